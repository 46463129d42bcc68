"""Settings: every problem at once, none guessed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.config import SETTINGS, BaseUrl, Config, Identity
from lib.errors import ConfigInvalid

VECTORS = Path(__file__).parent / "vectors" / "sigstore"
WHO = '[{"email": "a@example.com", "issuer": "https://accounts.google.com"}]'
LOCAL_TRUST = str(VECTORS / "trust-v1.json")


def read(**settings: str) -> Config:
    return Config.from_env({"TLOGISTRY_IDENTITIES": WHO, **settings})


def problems(**settings: str) -> tuple[str, ...]:
    with pytest.raises(ConfigInvalid) as refused:
        read(**settings)
    return refused.value.problems


def test_defaults() -> None:
    config = read()
    assert config.upstreams == {}
    assert config.trust is None
    assert config.identities == (Identity("a@example.com", "https://accounts.google.com"),)
    assert config.store == Path(".tlogistry/store.sqlite")
    assert config.deadline_s == 30
    assert config.log_search
    assert config.log_format == "json"


def test_every_setting() -> None:
    config = read(
        TLOGISTRY_UPSTREAMS='{"Index.Docker.io": "http://127.0.0.1:5000", "ghcr.io": "https://Mirror.example/"}',
        TLOGISTRY_TRUST=LOCAL_TRUST,
        TLOGISTRY_STORE="sqlite:/var/lib/x.sqlite",
        TLOGISTRY_DEADLINE="2.5",
        TLOGISTRY_LOG_SEARCH="off",
        TLOGISTRY_LOG_FORMAT="line",
    )
    assert {name: str(url) for name, url in config.upstreams.items()} == {
        "docker.io": "http://127.0.0.1:5000",
        "ghcr.io": "https://mirror.example:443",
    }
    assert config.trust is not None
    assert config.store == Path("/var/lib/x.sqlite")
    assert (config.deadline_s, config.log_search, config.log_format) == (2.5, False, "line")


def test_an_empty_value_is_an_unset_one() -> None:
    assert read(**{name: "" for name in SETTINGS if name != "TLOGISTRY_IDENTITIES"}) == read()


def test_all_problems_are_reported_at_once() -> None:
    found = problems(
        TLOGISTRY_UPSTREAMS="{",
        TLOGISTRY_DEADLINE="soon",
        TLOGISTRY_STORE="redis:x",
        TLOGISTRY_LOG_SEARCH="no",
        TLOGISTRY_TYPO="1",
    )
    assert [problem.partition(":")[0] for problem in found] == [
        "TLOGISTRY_UPSTREAMS",
        "TLOGISTRY_STORE",
        "TLOGISTRY_DEADLINE",
        "TLOGISTRY_LOG_SEARCH",
        "TLOGISTRY_TYPO",
    ]
    assert all("\n" not in problem for problem in found)


@pytest.mark.parametrize(
    "value",
    [
        "{}x",
        "[]",
        '"x"',
        '{"docker.io": 7}',
        '{"docker.io": "ftp://x"}',
        '{"docker.io": "http://user@x"}',
        '{"docker.io": "http://x/path"}',
        '{"docker.io": "http://x?y"}',
        '{"docker.io": "http://x:0"}',
        '{"docker.io": "http://x:99999"}',
        '{"docker.io": "http://"}',
        '{"docker.io": "http://a b"}',
        '{"docker.io": "http://x", "index.docker.io": "http://y"}',
        '{"docker.io": "http://x", "docker.io": "http://y"}',
        '{"not a host": "http://x"}',
        '{"": "http://x"}',
        "[" * 100_000,
    ],
    ids=lambda value: value[:60],
)
def test_upstreams_that_are_refused(value: str) -> None:
    (problem,) = problems(TLOGISTRY_UPSTREAMS=value, TLOGISTRY_TRUST=LOCAL_TRUST)
    assert problem.startswith("TLOGISTRY_UPSTREAMS: ")


@pytest.mark.parametrize(
    "value",
    [
        "x",
        "{}",
        "[]",
        "[7]",
        '[{"email": "a@b.c"}]',
        '[{"email": "a", "issuer": "https://x"}]',
        '[{"email": "a@b.c", "issuer": "x"}]',
        '[{"email": "a@b.c", "issuer": "https://x", "more": 1}]',
        WHO.replace("]", ", " + WHO[1:]),
    ],
)
def test_identities_that_are_refused(value: str) -> None:
    (problem,) = problems(TLOGISTRY_IDENTITIES=value)
    assert problem.startswith("TLOGISTRY_IDENTITIES: ")


@pytest.mark.parametrize("value", ["0", "0.1", "301", "-1", "1e2", "nan", "\u0661", " 3"])
def test_deadlines_that_are_refused(value: str) -> None:
    assert problems(TLOGISTRY_DEADLINE=value)[0].startswith("TLOGISTRY_DEADLINE: ")


def test_nobody_signs_by_default() -> None:
    with pytest.raises(ConfigInvalid, match="TLOGISTRY_IDENTITIES: not set"):
        Config.from_env({})


@pytest.mark.parametrize("where", ["missing.json", "empty.json", "list.json", "large.json", "binary.json"])
def test_trust_files_that_are_refused(tmp_path: Path, where: str) -> None:
    contents = {"empty.json": b"{}", "list.json": b"[]", "large.json": b" " * (2 << 20), "binary.json": b"\xff"}
    if where in contents:
        (tmp_path / where).write_bytes(contents[where])
    assert problems(TLOGISTRY_TRUST=str(tmp_path / where))[0].startswith("TLOGISTRY_TRUST: ")


@pytest.mark.parametrize(
    "service", ["https://rekor.sigstore.dev", "https://fulcio.sigstage.dev", "https://REKOR.SigStore.Dev./"]
)
def test_a_mapping_never_signs_into_a_public_log(tmp_path: Path, service: str) -> None:
    trust = json.loads(Path(LOCAL_TRUST).read_text())
    trust["signingConfig"]["rekorTlogUrls"][0]["url"] = service
    (tmp_path / "trust.json").write_text(json.dumps(trust))
    mapping = '{"docker.io": "http://127.0.0.1:5000"}'
    for setting in (str(tmp_path / "trust.json"), "production", ""):
        (problem,) = problems(TLOGISTRY_UPSTREAMS=mapping, TLOGISTRY_TRUST=setting)
        assert "public Sigstore" in problem
    read(TLOGISTRY_TRUST=str(tmp_path / "trust.json"))
    read(TLOGISTRY_UPSTREAMS=mapping, TLOGISTRY_TRUST=LOCAL_TRUST)


@given(
    st.sampled_from(["http", "https"]),
    st.from_regex(r"[a-z0-9]{1,10}(\.[a-z0-9]{1,10}){0,3}", fullmatch=True),
    st.integers(1, 65535),
)
def test_a_base_url_is_its_text(scheme: str, host: str, port: int) -> None:
    parsed = BaseUrl.parse(f"{scheme}://{host}:{port}")
    assert BaseUrl.parse(str(parsed)) == parsed
