"""The suites themselves, as their README says for a registry that is only read; `gotools.py` has which versions."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import pytest

from tests.conformance.conftest import TAGS, WAYS, World, digest, running
from tests.e2e.conftest import need_go
from tests.e2e.gotools import TOOLS
from tests.e2e.processes import run
from tests.fakes.habits import PLAIN

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COUNT = re.compile(r"^ +(Disabled|Skip|Pass|FAIL|Error)\.+: +([0-9]+)$", re.MULTILINE)
SUMMARY = re.compile(r"([0-9]+) Passed.*?([0-9]+) Failed")
WITHOUT_NS = [way for way, (_, query) in WAYS.items() if not query]  # which they cannot send


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """They follow no `Link`, so all is on one page."""
    with running(tmp_path_factory.mktemp("suites"), PLAIN) as made:
        yield made


@pytest.mark.parametrize("way", WITHOUT_NS)
def test_the_main_suite_passes(plain: World, way: str, tmp_path: Path) -> None:
    need_go("suite-main")
    site = plain.site(way)
    manifests = [digest(manifest) for manifest in (*site.content.manifests, site.content.index)]
    settings = {
        "OCI_REGISTRY": f"127.0.0.1:{site.port}",
        "OCI_TLS": "disabled",
        "OCI_REPO1": site.name,
        "OCI_API_PUSH": "false",
        "OCI_API_BLOBS_DELETE": "false",
        "OCI_API_MANIFESTS_DELETE": "false",
        "OCI_API_TAGS_DELETE": "false",
        "OCI_DATA_SHA512": "false",
        "OCI_VERSION": "1.1",
        "OCI_RO_DATA_TAGS": " ".join(TAGS),
        "OCI_RO_DATA_MANIFESTS": " ".join(manifests),
        "OCI_RO_DATA_BLOBS": " ".join(digest(blob) for blob in site.content.blobs),
        "OCI_RO_DATA_REFERRERS": manifests[0],
        "OCI_RESULTS_DIR": str(tmp_path),
    }
    said = run([TOOLS["suite-main"].command()], {"PATH": os.environ["PATH"], "HOME": str(tmp_path), **settings})
    # Its exit code says nothing: without a filter it panics once the report is printed.
    counted = {name: int(number) for name, number in COUNT.findall(said.out)}
    assert (counted["FAIL"], counted["Error"], counted["Skip"]) == (0, 0, 0), said.out
    assert counted["Pass"] == 42


@pytest.mark.parametrize("way", WITHOUT_NS)
def test_the_released_suite_passes(plain: World, way: str, tmp_path: Path) -> None:
    """Pull and content discovery; its referrers are counted too, because they are those of the digest that it is given."""
    need_go("suite-1.1")
    site = plain.site(way)
    settings = {
        "OCI_ROOT_URL": f"http://127.0.0.1:{site.port}",
        "OCI_NAMESPACE": site.name,
        "OCI_TEST_PULL": "1",
        "OCI_TEST_CONTENT_DISCOVERY": "1",
        "OCI_TAG_NAME": TAGS[0],
        "OCI_MANIFEST_DIGEST": digest(site.content.manifests[0]),
        "OCI_BLOB_DIGEST": digest(site.content.blobs[0]),
        "OCI_TAG_LIST": ",".join(TAGS),
        "OCI_HIDE_SKIPPED_WORKFLOWS": "1",
        "OCI_REPORT_DIR": "none",
    }
    command = TOOLS["suite-1.1"].command()
    said = run([command, "-ginkgo.no-color"], {"PATH": os.environ["PATH"], "HOME": str(tmp_path), **settings})
    assert said.code == 0, said.text
    assert [match.groups() for match in SUMMARY.finditer(said.out)] == [("21", "0")], said.text
