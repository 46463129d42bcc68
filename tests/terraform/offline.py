"""Runs the real Terraform on the real providers' schemas, without providers, credentials or a network.

The tool for that, terraform-offline, is named by TLOGISTRY_TERRAFORM_OFFLINE, or lies beside this project, or is on the PATH.
Its first run on a machine downloads the schemas (75 MB, half a minute) from the Python package index.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.terraform.configuration import ROOT, TERRAFORM

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

BESIDE = ROOT.parent / "shared" / "tools" / "terraform-offline" / "terraform-offline"
LIMIT_S = 900


def lacking(sentence: str) -> None:
    """Skip, saying what is missing; fail where everything is promised to be there (TLOGISTRY_REQUIRE_E2E=1)."""
    if os.environ.get("TLOGISTRY_REQUIRE_E2E") == "1":
        pytest.fail(sentence, pytrace=False)
    pytest.skip(sentence)


def need_terraform() -> str:
    """The command, or a skip: Terraform is in no package of Debian's and none of PyPI's, so it is promised nowhere."""
    command = shutil.which("terraform")
    if command is None:
        pytest.skip("terraform is not installed; it is at https://developer.hashicorp.com/terraform/install")
    return command


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """One command of terraform in terraform/. Skips or fails if it cannot be run here."""
    need_terraform()
    named = os.environ.get("TLOGISTRY_TERRAFORM_OFFLINE") or (str(BESIDE) if BESIDE.exists() else "terraform-offline")
    tool = shutil.which(named)
    if tool is None:
        lacking("terraform-offline is not here: TLOGISTRY_TERRAFORM_OFFLINE may name it")
    return subprocess.run(
        [str(tool), f"-chdir={TERRAFORM}", *arguments],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT_S,
        check=False,
        env={name: value for name, value in os.environ.items() if not name.startswith("TF_")},
    )


def plan(variables: Mapping[str, object], folder: Path) -> dict[str, Any]:
    """A plan from an empty state, as JSON."""
    inputs = folder / "inputs.tfvars.json"
    inputs.write_text(json.dumps(variables))
    made = run("plan", "-no-color", "-input=false", f"-var-file={inputs}", f"-out={folder / 'plan'}")
    assert made.returncode == 0, made.stdout
    shown = run("show", "-json", str(folder / "plan"))
    assert shown.returncode == 0, shown.stdout
    line = next(line for line in shown.stdout.splitlines() if line.startswith("{"))
    parsed: dict[str, Any] = json.loads(line)
    return parsed
