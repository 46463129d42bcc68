"""One service, as it is deployed, and every registry of `tests/fakes/profiles.py` under its real name."""

from __future__ import annotations

import http.client
import itertools
import json
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from lib.devsigstore.server import DevSigstore
from lib.oci.manifest import OCI_MANIFEST
from lib.oci.reference import Tag
from tests.fakes.profiles import PRIVATE_HEADERS, PROFILES, Internet
from tests.framework import Answer, Function
from tests.sigstore import digests_logged

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fakes.profiles import Place, Profile

_numbers = itertools.count(1)


def manifest(number: int, **fields: object) -> bytes:
    """A small image; another number, another digest."""
    config = {"mediaType": "application/vnd.oci.image.config.v1+json", "size": number, "digest": f"sha256:{'0' * 64}"}
    return json.dumps(
        {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": [], **fields}
    ).encode()


class Service:
    """What clients ask. Whatever it answers, nothing that an upstream said of itself is in it."""

    def __init__(self, internet: Internet, dev: DevSigstore, function: Function) -> None:
        self.internet, self.dev, self.function = internet, dev, function

    def place(self, registry: str) -> Place:
        """A repository of the test's own."""
        return self.internet.place(PROFILES[registry], f"app{next(_numbers)}")

    def ask(self, method: str, path: str, **headers: str) -> Answer:
        answer = self.function.ask(method, path, headers=headers)
        for name in (*(name.lower() for name in PRIVATE_HEADERS), "www-authenticate"):
            assert name not in answer.headers
        shown = "".join(value for name, value in answer.headers.items() if name != "location")
        assert "upstream-secret" not in shown
        assert b"upstream-secret" not in answer.body
        if method == "HEAD":
            assert answer.body == b""
        return answer

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, **headers)

    def head(self, path: str) -> Answer:
        return self.ask("HEAD", path)

    def fetch(self, method: str, path: str, **headers: str) -> Answer:
        """As a client does it that follows one redirect to storage, without a token."""
        answer = self.ask(method, path, **headers)
        if answer.status != 307:
            return answer
        assert answer.headers["content-length"] == "0"
        url = urlsplit(answer.headers["location"])
        assert url.hostname is not None
        connection = http.client.HTTPConnection(url.hostname, url.port, timeout=30)
        try:
            connection.request(method, f"{url.path}?{url.query}", headers=headers)
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, found, response.read())
        finally:
            connection.close()

    def recorded(self, place: Place, tag: str) -> int:
        """How many digests the log has for a tag."""
        return len(digests_logged(self.dev.url, Tag.parse(f"{place.asked}:{tag}")))

    def calls(self) -> dict[str, int]:
        """What the log and the certificate authority were asked so far."""
        return dict(self.dev.calls)


@pytest.fixture(scope="package")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("profiles")
    with DevSigstore(folder) as dev, Internet() as internet:
        settings = {
            **dev.environment(),
            "TLOGISTRY_STORE": f"sqlite:{folder / 'store.sqlite'}",
            "TLOGISTRY_LOG_FORMAT": "line",
            "TLOGISTRY_UPSTREAMS": json.dumps(internet.mapping),
        }
        with Function(settings) as function:
            yield Service(internet, dev, function)


@pytest.fixture
def service(running: Service) -> Iterator[Service]:
    """The service; in the end no host has seen what it should not: tokens, passwords, other headers than ours."""
    running.internet.heal()
    running.internet.violations()
    yield running
    assert running.internet.violations() == []


def path(place: Place, kind: str, reference: str) -> str:
    return f"/v2/{place.asked}/{kind}/{reference}"


PUBLIC = [row for row in PROFILES.values() if row.public]


def registry_of(profile: Profile) -> str:
    """What a test's id says."""
    return profile.registry
