"""What the account that runs and signs may do, read from the Terraform that gives it that."""

from __future__ import annotations

import re
from pathlib import Path

TERRAFORM = Path(__file__).parents[2] / "terraform"
TEXT = "\n".join(file.read_text() for file in sorted(TERRAFORM.glob("*.tf")))
RESOURCES = dict(re.findall(r'^resource "(\w+" "\w+)" \{\n(.*?)^\}', TEXT, re.MULTILINE | re.DOTALL))


def test_the_account_that_signs_may_add_records_and_read_its_own_secret_and_nothing_else() -> None:
    """A stolen service account is worth what its roles are: no update, no delete, no list, no other service.

    So that a metadata token that somebody got hold of (google/kf#1108) opens nothing else.
    """
    given = {name for name, body in RESOURCES.items() if "google_service_account.runtime.member" in body}
    assert given == {'google_project_iam_member" "records', 'google_secret_manager_secret_iam_member" "runtime'}
    role = RESOURCES['google_project_iam_custom_role" "records']
    (permissions,) = re.findall(r"permissions = \[(.*)\]", role)
    assert permissions == '"datastore.entities.create", "datastore.entities.get"'
    assert "resource.name ==" in RESOURCES['google_project_iam_member" "records'], "of this one database"
    assert '"roles/secretmanager.secretAccessor"' in RESOURCES['google_secret_manager_secret_iam_member" "runtime']
    assert TEXT.count("google_service_account.runtime.") == 3, "its roles, and the function that runs as it"


def test_no_key_of_an_account_is_ever_made() -> None:
    """A key is a credential without an end, which can be carried away; the function gets its tokens from the platform."""
    assert "google_service_account_key" not in TEXT
    assert "private_key" not in TEXT
