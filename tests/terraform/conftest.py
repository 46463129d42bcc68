"""One plan for all tests that read it: everything that reaches the function is set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.terraform.configuration import ROOT
from tests.terraform.offline import plan

if TYPE_CHECKING:
    from collections.abc import Iterator

TRUST = ROOT / "tests" / "vectors" / "sigstore" / "trust-v1.json"
FORMER = {"email": "former-signer@demo-project.iam.gserviceaccount.com", "issuer": "https://accounts.google.com"}


class Planned(NamedTuple):
    """What Terraform would make, and what it read."""

    plan: dict[str, Any]

    def resources(self, kind: str) -> list[dict[str, Any]]:
        """The planned values of all resources of a kind."""
        return [one["values"] for one in self._all("planned_values") if one["type"] == kind]

    def one(self, kind: str) -> dict[str, Any]:
        (values,) = self.resources(kind)
        return values

    def environment(self) -> dict[str, str]:
        """What the function is started with."""
        (config,) = self.one("google_cloudfunctions2_function")["service_config"]
        environment: dict[str, str] = config["environment_variables"]
        return environment

    def files(self) -> dict[str, str]:
        """What is zipped: name to content."""
        (archive,) = (one for one in self._all("prior_state") if one["type"] == "archive_file")
        return {file["filename"]: file["content"] for file in archive["values"]["source"]}

    def _all(self, part: str) -> Iterator[dict[str, Any]]:
        state = self.plan[part] if part == "planned_values" else self.plan[part]["values"]
        yield from state["root_module"]["resources"]


@pytest.fixture(scope="session")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Planned:
    """With a private trust configuration, a former identity and a secret."""
    inputs = {
        "project_id": "demo-project",
        "region": "europe-west1",
        "accepted_identities": [FORMER],
        "trust_config": str(TRUST),
        "rekor_url": "https://rekor.example.com",
        "fulcio_url": "https://fulcio.example.com",
        "upstream_credentials_secret": "registry-accounts",
    }
    return Planned(plan(inputs, tmp_path_factory.mktemp("plan")))
