"""checkov over terraform/: what it objects to is exactly what .checkov.yaml leaves out, each with its reason."""

from __future__ import annotations

import json
import os
import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.terraform import checkov
from tests.terraform.configuration import ROOT, TERRAFORM
from tests.terraform.offline import lacking

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = (ROOT / ".checkov.yaml").read_text()
SKIP = re.compile(r"^  - (CKV2?_[A-Z]+_[0-9]+)(?: # (.+))?$", re.MULTILINE)


def test_every_check_that_is_left_out_says_why() -> None:
    listed = CONFIG.partition("\nskip-check:\n")[2].splitlines()
    assert listed
    for line in listed:
        match = SKIP.fullmatch(line)
        assert match is not None, line
        assert match[2] is not None, line
        assert len(match[2]) > 20, line


@pytest.mark.slow
def test_it_objects_to_nothing_else_and_no_longer_to_nothing(tmp_path: Path) -> None:
    """Run without the list of what is left out, so that an entry which is no longer needed shows too."""
    if not checkov.is_ready():
        if os.environ.get("TLOGISTRY_REQUIRE_E2E") != "1":
            lacking("checkov is not set up: .venv/bin/python -m tests.terraform.checkov does it, and downloads 60 MB")
        try:
            checkov.set_up()
        except subprocess.CalledProcessError as error:
            pytest.fail(f"checkov could not be set up: {error.stderr}", pytrace=False)
    config = CONFIG.partition("skip-check:")[0].replace("[terraform]", json.dumps([str(TERRAFORM)]), 1)
    (tmp_path / ".checkov.yaml").write_text(config.replace("compact: true\nquiet: true\n", "output: [json]\n"))
    done = checkov.run(cwd=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["summary"]["parsing_errors"] == 0
    assert report["summary"]["passed"] > 15
    failed = {check["check_id"] for check in report["results"]["failed_checks"]}
    skipped = {check for check, _ in SKIP.findall(CONFIG)}
    assert failed - skipped == set(), "objections without an answer"
    assert skipped - failed == set(), "no longer objected to: take them out of .checkov.yaml"
