"""The configuration: its form, its own tests, and that what it tells the function is what the function understands."""

from __future__ import annotations

import json
import re
import subprocess
from typing import TYPE_CHECKING

import pytest
from sigstore.models import ClientTrustConfig

from lib.config import Config, FirestoreDatabase
from lib.oci.reference import Tag
from lib.sighting.trust import Trust
from lib.store.document import Place
from tests.terraform.configuration import ROOT, TERRAFORM, variables
from tests.terraform.conftest import FORMER, TRUST
from tests.terraform.offline import need_terraform, run

if TYPE_CHECKING:
    from pathlib import Path

    from tests.terraform.conftest import Planned


def test_it_is_formatted() -> None:
    command = [need_terraform(), "fmt", "-check", "-recursive", "-diff", str(TERRAFORM)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_it_is_valid() -> None:
    done = run("validate", "-no-color")
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_its_own_tests_pass() -> None:
    files = sorted((TERRAFORM / "tests").glob("*.tftest.hcl"))
    runs = sum(len(re.findall(r'^run "', file.read_text(), re.MULTILINE)) for file in files)
    assert len(files) >= 3
    done = run("test", "-no-color")
    assert done.returncode == 0, done.stdout
    assert f"Success! {runs} passed, 0 failed." in done.stdout


def test_two_values_are_enough_and_they_come_first() -> None:
    every = variables()
    assert [variable.name for variable in every if variable.default is None] == ["project_id", "region"]
    assert [variable.name for variable in every[:2]] == ["project_id", "region"]


def test_every_input_refuses_what_it_cannot_use_and_the_refusal_is_tested() -> None:
    refusals = (TERRAFORM / "tests" / "refusals.tftest.hcl").read_text()
    malformed = refusals.partition('run "malformed"')[2].partition("\nrun ")[0]
    for variable in variables():
        assert variable.description.endswith("."), variable.name
        assert variable.validated == (variable.type != "bool"), variable.name
        if variable.validated:
            assert re.search(rf"\bvar\.{variable.name}\b", malformed), variable.name


def test_the_function_understands_what_it_is_told(
    planned: Planned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A misspelt setting, a store or an identity that it cannot read would end it at its start, after a build of minutes."""
    (tmp_path / "trust-config.json").write_text(planned.files()["trust-config.json"])
    monkeypatch.chdir(tmp_path)  # the buildpack starts the framework in the folder of main.py
    environment = planned.environment()
    config = Config.from_env(environment)
    emails = [identity.email for identity in config.identities]
    assert emails == ["tlogistry@demo-project.iam.gserviceaccount.com", FORMER["email"]]
    assert config.trust is not None
    trust = Trust.parse(ClientTrustConfig.from_json(config.trust.text), generation=1)
    assert (trust.rekor_url, trust.fulcio_url) == ("https://rekor.example.com", "https://fulcio.example.com")
    assert json.loads(config.trust.text)["trustedRoot"] == json.loads(TRUST.read_text())["trustedRoot"]
    assert config.store == FirestoreDatabase("demo-project", "tlogistry")
    assert str(config.credentials) == "projects/demo-project/secrets/registry-accounts/versions/latest"
    assert (config.project, config.threads, config.deadline_s, config.log_search) == ("demo-project", 128, 30.0, True)
    assert config.forwarded_hops == 1, "Cloud Run's front end adds the client's address"


def test_no_field_of_the_stores_documents_is_indexed(planned: Planned) -> None:
    database, tag = FirestoreDatabase("demo-project", "tlogistry"), Tag.parse("alpine:3.16.0")
    written = {
        (place.collection, field)
        for place in (Place.claim(database, tag), Place.sighting(database, tag))
        for field in json.loads(json.dumps(place.format("x")))["fields"]
    }
    fields = planned.resources("google_firestore_field")
    assert {(field["collection"], field["field"]) for field in fields} == written
    assert all(field["index_config"] == [{"indexes": []}] for field in fields)
    assert {field["database"] for field in fields} == {database.database}


def test_threads_and_concurrency_are_one_number(planned: Planned) -> None:
    (config,) = planned.one("google_cloudfunctions2_function")["service_config"]
    assert str(config["max_instance_request_concurrency"]) == planned.environment()["THREADS"]


def test_the_entry_point_is_the_function_of_main(planned: Planned) -> None:
    (build,) = planned.one("google_cloudfunctions2_function")["build_config"]
    assert f"@functions_framework.http\ndef {build['entry_point']}(" in (ROOT / "main.py").read_text()


def test_the_metrics_count_verdicts_that_the_service_writes(planned: Planned) -> None:
    code = "\n".join(path.read_text() for path in (ROOT / "lib").rglob("*.py"))
    filters = [metric["filter"] for metric in planned.resources("google_logging_metric")]
    assert len(filters) == 4
    for text in filters:
        match = re.search(r'jsonPayload\.verdict="([^"]+)"$', text)
        assert match is not None
        assert f'"{match[1]}"' in code


def test_the_dashboard_is_what_cloud_monitoring_reads(planned: Planned) -> None:
    dashboard = json.loads(planned.one("google_monitoring_dashboard")["dashboard_json"])
    taken: set[tuple[int, int]] = set()
    for tile in dashboard["mosaicLayout"]["tiles"]:
        cells = {(tile["xPos"] + x, tile["yPos"] + y) for x in range(tile["width"]) for y in range(tile["height"])}
        assert not cells & taken, "two tiles overlap"
        assert all(x < dashboard["mosaicLayout"]["columns"] for x, _ in cells)
        taken |= cells
    metrics = {metric["name"] for metric in planned.resources("google_logging_metric")}
    shown = set(re.findall(r"logging\.googleapis\.com/user/([a-z_/]+)", json.dumps(dashboard)))
    assert shown == metrics


def test_no_secret_value_passes_through_terraform(planned: Planned) -> None:
    kinds = {resource["type"] for resource in planned.plan["planned_values"]["root_module"]["resources"]}
    assert "google_secret_manager_secret" in kinds
    assert "google_secret_manager_secret_version" not in kinds


def test_what_a_plan_leaves_is_not_uploaded_or_committed() -> None:
    """State in a build's source would be used instead of the real one; gcloud does not read terraform/.gitignore."""
    ignored = (TERRAFORM / ".gitignore").read_text().split()
    not_uploaded = (ROOT / ".gcloudignore").read_text().splitlines()
    for name in ignored:
        assert {name, f"/terraform/{name}"} & set(not_uploaded), name
