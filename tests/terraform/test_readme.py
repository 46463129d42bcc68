"""terraform/README.md says of inputs, outputs and files what the code says. A failure prints the rows as they should be."""

from __future__ import annotations

import re

from tests.terraform.configuration import ROOT, TERRAFORM, outputs, variables

README = (TERRAFORM / "README.md").read_text()


def rows(heading: str) -> list[str]:
    """The rows of the table below a heading, without its head."""
    section = README.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return [line for line in section.splitlines() if line.startswith("| `")]


def missing(heading: str, expected: list[str]) -> str:
    """The rows that are not there; none if only the order is wrong."""
    return "\n".join(row for row in expected if row not in rows(heading))


def test_inputs() -> None:
    expected = [
        f"| `{one.name}` | {one.description} | `{one.type}` | {'required' if one.default is None else f'`{one.default}`'} |"
        for one in variables()
    ]
    assert rows("Inputs") == expected, missing("Inputs", expected)


def test_outputs() -> None:
    expected = [f"| `{name}` | {description} |" for name, description in outputs().items()]
    assert rows("Outputs") == expected, missing("Outputs", expected)


def test_every_file_is_introduced() -> None:
    files = {path.name for path in TERRAFORM.glob("*.tf")} - {"backend.tf"}
    assert set(re.findall(r"`(\w+\.tf)`", README)) - {"backend.tf"} == files


def test_every_metric_and_alert_is_explained() -> None:
    code = (TERRAFORM / "monitoring.tf").read_text()
    metrics = re.findall(r'^    (\w+) += \{ verdict = "[^"]+", description = "([^"]+)" \}$', code, re.MULTILINE)
    alerts = re.findall(r'^  display_name += "\$\{var\.name\}: (.+)"\n  combiner', code, re.MULTILINE)
    assert len(metrics) == 4
    assert len(alerts) == code.count('resource "google_monitoring_alert_policy"') == 2
    expected = [f"| `NAME/{name}` | {description} |" for name, description in metrics]
    found = rows("Metrics and alerts")
    assert found[: len(metrics)] == expected, missing("Metrics and alerts", expected)
    assert [row.split("`")[1] for row in found[len(metrics) :]] == [f"NAME: {alert}" for alert in alerts]


def test_substitutions_of_the_pipeline_that_it_names_exist() -> None:
    pipeline = (ROOT / "cloudbuild.yaml").read_text()
    named = set(re.findall(r"\b_[A-Z_]+\b", README))
    assert named
    for name in named:
        assert re.search(rf"^  {name}: ", pipeline, re.MULTILINE), name
