"""cloudbuild.yaml: its published schema, and what that schema does not see."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from typing import Any

import pytest
from ruamel.yaml import YAML

from scripts.smoke import main as smoke
from tests.terraform.configuration import ROOT, variables

FILE = ROOT / "cloudbuild.yaml"
PIPELINE: dict[str, Any] = YAML(typ="safe", pure=True).load(FILE)
STEPS: dict[str, dict[str, Any]] = {step["id"]: step for step in PIPELINE["steps"]}
BUILT_IN = {"PROJECT_ID"}
USE = re.compile(r"\$\{?([A-Za-z_]+)\}?")


def test_it_fits_the_published_schema() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.cloudbuild", str(FILE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_substitutions_begin_with_an_underscore_and_each_is_declared_and_used() -> None:
    """Cloud Build refuses a name without it, one that is not declared, and one that is not used."""
    declared = set(PIPELINE["substitutions"])
    assert all(re.fullmatch(r"_[A-Z0-9_]+", name) for name in declared)
    texts = [PIPELINE["serviceAccount"], *(setting for step in STEPS.values() for setting in step.get("env", []))]
    used = {name for text in texts for name in USE.findall(text)}
    assert used - BUILT_IN == declared


def test_substitutions_are_text() -> None:
    """YAML's own true is not a substitution's value."""
    assert all(isinstance(value, str) for value in PIPELINE["substitutions"].values())


def test_nothing_is_applied_unless_asked_for() -> None:
    assert PIPELINE["substitutions"]["_APPLY"] == "false"
    (applying,) = [name for name, step in STEPS.items() if "terraform apply" in step["script"]]
    before = STEPS[applying]["script"].partition("terraform apply")[0]
    assert 'if [ "$APPLY" != true ]; then' in before
    assert "exit 0" in before


def test_steps_wait_for_steps_that_come_before_them() -> None:
    assert len(STEPS) == len(PIPELINE["steps"]), "an id is there twice"
    before: set[str] = set()
    for name, step in STEPS.items():
        assert set(step["waitFor"]) <= before | {"-"}, name
        before.add(name)


def test_nothing_is_deployed_that_was_not_tested_and_planned() -> None:
    def all_before(name: str) -> set[str]:
        direct = set(STEPS[name]["waitFor"]) - {"-"}
        return direct.union(*(all_before(one) for one in direct))

    assert all_before("apply") == {"test", "terraform-check", "plan"}
    assert "apply" in all_before("smoke")


@pytest.mark.parametrize("name", STEPS)
def test_a_script_knows_every_name_that_it_uses(name: str) -> None:
    """Scripts get no substitutions, only the step's environment; an unknown name ends the step at `set -u`."""
    step = STEPS[name]
    given = {setting.partition("=")[0] for setting in step.get("env", [])}
    assert set(USE.findall(step["script"])) <= given
    assert step["script"].startswith("#!/bin/sh\nset -eu\n")
    assert not re.search(r"\$\{?_", step["script"])


@pytest.mark.parametrize("name", STEPS)
def test_a_script_is_good_shell(name: str) -> None:
    done = subprocess.run(["/bin/sh", "-n"], input=STEPS[name]["script"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_inputs_of_terraform_that_it_sets_exist() -> None:
    known = {variable.name for variable in variables()}
    for step in STEPS.values():
        for setting in step.get("env", []):
            if setting.startswith("TF_VAR_"):
                assert setting.partition("=")[0].removeprefix("TF_VAR_") in known


def test_a_build_with_its_own_service_account_says_where_it_logs() -> None:
    assert PIPELINE["serviceAccount"].startswith("projects/${PROJECT_ID}/serviceAccounts/")
    assert PIPELINE["options"]["logging"] == "CLOUD_LOGGING_ONLY"


def test_the_smoke_test_is_called_as_it_wants_to_be(capsys: pytest.CaptureFixture[str]) -> None:
    line = next(line for line in STEPS["smoke"]["script"].splitlines() if "smoke.py" in line)
    command = shlex.split(
        line.replace("$(cat /workspace/deployed-host)", "127.0.0.1:9").replace("$IMAGE", "alpine:3.20")
    )
    assert command[:2] == ["python", "scripts/smoke.py"]
    assert (ROOT / command[1]).is_file()
    wait = command.index("--wait")
    assert smoke([*command[2:wait], "--wait", "0", *command[wait + 2 :]]) == 1
    assert "Connection refused" in capsys.readouterr().err
