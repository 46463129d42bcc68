"""The Terraform files as text: inputs, outputs and the two lists that make the bundle.

`terraform fmt` gives these files one form (test_configuration.py), so that a line's beginning says what it is. No HCL parser
for three questions.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
TERRAFORM = ROOT / "terraform"
BLOCK = r'^{kind} "(\w+)" \{{\n(.*?)^\}}$'


@dataclass(frozen=True)
class Variable:
    """One input. `default` is its text in the file, or None if there is none."""

    name: str
    description: str
    type: str
    default: str | None
    validated: bool


def variables() -> list[Variable]:
    """All inputs, in the order of the file."""
    return [
        Variable(
            name=name,
            description=_argument(body, "description", r'"(.*)"'),
            type=_argument(body, "type", r"(.+)"),
            default=_optional(body, "default", r"(.+)"),
            validated="\n  validation {\n" in body,
        )
        for name, body in _blocks("variables.tf", "variable")
    ]


def outputs() -> dict[str, str]:
    """All outputs: name to description."""
    return {name: _argument(body, "description", r'"(.*)"') for name, body in _blocks("outputs.tf", "output")}


def _blocks(file: str, kind: str) -> list[tuple[str, str]]:
    text = (TERRAFORM / file).read_text()
    found = re.findall(BLOCK.format(kind=kind), text, re.MULTILINE | re.DOTALL)
    assert len(found) == text.count(f'\n{kind} "')
    return found


def _argument(body: str, name: str, value: str) -> str:
    found = _optional(body, name, value)
    assert found is not None, f"no {name} in: {body}"
    return found


def _optional(body: str, name: str, value: str) -> str | None:
    match = re.search(rf"^  {name} += {value}$", body, re.MULTILINE)
    return match[1].replace('\\"', '"') if match is not None else None


def left_out() -> set[str]:
    """Files of lib/ that a deployment does not need."""
    return _matching(_list("left_out_globs"))


def bundle() -> list[str]:
    """The files that the function is built from, from the lists that Terraform itself reads."""
    return sorted(_matching(_list("bundle_globs")) - left_out())


def _list(name: str) -> list[str]:
    match = re.search(rf"^  {name} += \[(.*)\]$", (TERRAFORM / "source.tf").read_text(), re.MULTILINE)
    assert match is not None
    return re.findall(r'"([^"]+)"', match[1])


def _matching(globs: list[str]) -> set[str]:
    """As Terraform's `fileset`: files only; a final `**` is every file below."""
    found = (path for glob in globs for path in ROOT.glob(glob + "/*" if glob.endswith("**") else glob))
    return {path.relative_to(ROOT).as_posix() for path in found if path.is_file()}
