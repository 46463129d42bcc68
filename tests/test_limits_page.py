"""docs/limits.md against the code: every bound that it names exists, and the defaults are the settings' own."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from lib.config import DEFAULT_PER_CLIENT, DEFAULT_PER_DAY, DEFAULT_PER_DOMAIN, DEFAULT_TOTAL
from lib.flood import SHARED
from lib.upstream.limits import Limits

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "limits.md").read_text()
BOUNDS = PAGE.partition("## What bounds each call")[2]


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(lib(?:\.\w+)+\.[A-Z_]+)`", BOUNDS))))
def test_a_constant_that_is_named_exists(name: str) -> None:
    module, _, constant = name.rpartition(".")
    assert getattr(importlib.import_module(module), constant) > 0


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`Limits\.(\w+)`", BOUNDS))))
def test_a_limit_that_is_named_exists(name: str) -> None:
    assert getattr(Limits(), name) > 0


def test_every_file_that_is_named_exists() -> None:
    for name in re.findall(r"`(lib/[\w/]+\.py)`", PAGE):
        assert (ROOT / name).is_file(), name


def test_every_limit_on_calls_is_on_the_page() -> None:
    elsewhere = {
        "calls",
        "waiting",
        "stall_s",
        "streams",
        "idle_s",
        "absent_s",
        "headless_s",
    }  # with the threads, or lifetimes
    named = set(re.findall(r"`Limits\.(\w+)`", BOUNDS))
    assert set(Limits.__dataclass_fields__) - elsewhere <= named


def test_the_defaults_are_those_of_the_settings() -> None:
    rows = dict(re.findall(r"^\| `TLOGISTRY_NEW_TAGS_(\w+)` \| [^|]+ \| `([^`]+)` \|$", PAGE, re.MULTILINE))
    assert rows == {
        "PER_CLIENT": str(DEFAULT_PER_CLIENT),
        "PER_DOMAIN": str(DEFAULT_PER_DOMAIN),
        "TOTAL": str(DEFAULT_TOTAL),
        "PER_DAY": str(DEFAULT_PER_DAY.count if DEFAULT_PER_DAY else "off"),
    }


def test_every_registry_that_is_not_limited_by_domain_is_named() -> None:
    paragraph = next(text for text in PAGE.split("\n\n") if text.startswith("**Which domain.**"))
    named = set(re.findall(r"`([a-z0-9.]+)`", paragraph)) - {"a.evil.example", "b.evil.example", "github.io", "run.app"}
    assert named == SHARED
