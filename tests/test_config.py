"""Settings: every problem at once, none guessed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.config import (
    SETTINGS,
    BaseUrl,
    Config,
    FirestoreDatabase,
    Identity,
    Rate,
    RegistryPattern,
    SecretName,
    SqlitePath,
)
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
    assert config.store == SqlitePath(Path(".tlogistry/store.sqlite"))
    assert config.deadline_s == 30
    assert config.log_search
    assert config.log_format == "json"
    assert config.credentials is None
    assert config.secret_manager is None
    assert config.firestore_emulator is None
    assert config.project is None
    assert config.threads is None
    assert (config.new_tags_per_client, config.new_tags_per_domain) == (Rate(500, 60), Rate(500, 60))
    assert not config.every_domain
    assert (config.new_tags_total, config.new_tags_per_day) == (Rate(1000, 60), Rate(50_000, 86_400))
    assert config.forwarded_hops == 0
    assert (config.allow_upstreams, config.deny_upstreams, config.own_hosts) == (None, (), frozenset())


def test_every_setting() -> None:
    config = read(
        TLOGISTRY_UPSTREAMS='{"Index.Docker.io": "http://127.0.0.1:5000", "ghcr.io": "https://Mirror.example/"}',
        TLOGISTRY_TRUST=LOCAL_TRUST,
        TLOGISTRY_STORE="sqlite:/var/lib/x.sqlite",
        TLOGISTRY_DEADLINE="2.5",
        TLOGISTRY_LOG_SEARCH="off",
        TLOGISTRY_LOG_FORMAT="line",
        TLOGISTRY_CREDENTIALS_SECRET="projects/my-project/secrets/upstream-credentials",
        TLOGISTRY_SECRET_MANAGER_ENDPOINT="http://127.0.0.1:8099",
        FIRESTORE_EMULATOR_HOST="localhost:8080",
        GOOGLE_CLOUD_PROJECT="my-project",
        THREADS="80",
        TLOGISTRY_NEW_TAGS_PER_CLIENT="5/1s",
        TLOGISTRY_NEW_TAGS_PER_DOMAIN="999999999/99999s",
        TLOGISTRY_NEW_TAGS_TOTAL="off",
        TLOGISTRY_NEW_TAGS_PER_DAY="1",
        TLOGISTRY_FORWARDED_HOPS="2",
        TLOGISTRY_ALLOW_UPSTREAMS='["Index.Docker.io", "*.Example.com", "reg.example:5000"]',
        TLOGISTRY_DENY_UPSTREAMS='["evil.example.com"]',
        TLOGISTRY_OWN_HOSTS='["Tags.example.com.", "localhost:8080"]',
    )
    assert {name: str(url) for name, url in config.upstreams.items()} == {
        "docker.io": "http://127.0.0.1:5000",
        "ghcr.io": "https://mirror.example:443",
    }
    assert config.trust is not None
    assert config.store == SqlitePath(Path("/var/lib/x.sqlite"))
    assert (config.deadline_s, config.log_search, config.log_format) == (2.5, False, "line")
    assert config.credentials == SecretName("my-project", "upstream-credentials", "latest")
    assert config.secret_manager == BaseUrl("http", "127.0.0.1", 8099)
    assert config.firestore_emulator == BaseUrl("http", "localhost", 8080)
    assert (config.project, config.threads) == ("my-project", 80)
    assert (config.new_tags_per_client, config.new_tags_per_domain) == (Rate(5, 1), Rate(999_999_999, 99_999))
    assert config.every_domain
    assert (config.new_tags_total, config.new_tags_per_day, config.forwarded_hops) == (None, Rate(1, 86_400), 2)
    hub, below, port = RegistryPattern("docker.io"), RegistryPattern("example.com", below=True), "reg.example:5000"
    assert config.allow_upstreams == (hub, below, RegistryPattern(port))
    assert config.deny_upstreams == (RegistryPattern("evil.example.com"),)
    assert config.own_hosts == {"tags.example.com", "localhost:8080"}


def test_an_empty_value_is_an_unset_one() -> None:
    assert read(**{name: "" for name in SETTINGS if name != "TLOGISTRY_IDENTITIES"}) == read()


def test_all_problems_are_reported_at_once() -> None:
    found = problems(
        TLOGISTRY_UPSTREAMS="{",
        TLOGISTRY_DEADLINE="soon",
        TLOGISTRY_STORE="redis:x",
        TLOGISTRY_LOG_SEARCH="no",
        TLOGISTRY_CREDENTIALS_SECRET="x",
        TLOGISTRY_CREDENTIALS_FILE="y",
        TLOGISTRY_SECRET_MANAGER_ENDPOINT="https://127.0.0.1",
        FIRESTORE_EMULATOR_HOST="firestore.googleapis.com:443",
        GOOGLE_CLOUD_PROJECT="X",
        THREADS="0",
        TLOGISTRY_NEW_TAGS_PER_CLIENT="500",
        TLOGISTRY_NEW_TAGS_PER_DOMAIN="none",
        TLOGISTRY_NEW_TAGS_TOTAL="0/60s",
        TLOGISTRY_NEW_TAGS_PER_DAY="500/60s",
        TLOGISTRY_FORWARDED_HOPS="-1",
        TLOGISTRY_ALLOW_UPSTREAMS="[]",
        TLOGISTRY_DENY_UPSTREAMS="ghcr.io",
        TLOGISTRY_OWN_HOSTS='["*.example.com"]',
        TLOGISTRY_TYPO="1",
    )
    assert [problem.partition(":")[0] for problem in found] == [
        "TLOGISTRY_UPSTREAMS",
        "TLOGISTRY_STORE",
        "TLOGISTRY_DEADLINE",
        "TLOGISTRY_LOG_SEARCH",
        "TLOGISTRY_CREDENTIALS_SECRET",
        "TLOGISTRY_SECRET_MANAGER_ENDPOINT",
        "TLOGISTRY_NEW_TAGS_PER_CLIENT",
        "TLOGISTRY_NEW_TAGS_PER_DOMAIN",
        "TLOGISTRY_NEW_TAGS_TOTAL",
        "TLOGISTRY_NEW_TAGS_PER_DAY",
        "TLOGISTRY_FORWARDED_HOPS",
        "TLOGISTRY_ALLOW_UPSTREAMS",
        "TLOGISTRY_DENY_UPSTREAMS",
        "TLOGISTRY_OWN_HOSTS",
        "FIRESTORE_EMULATOR_HOST",
        "GOOGLE_CLOUD_PROJECT",
        "THREADS",
        "TLOGISTRY_TYPO",
        "TLOGISTRY_CREDENTIALS_FILE",
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


STORES = {
    "sqlite:x": SqlitePath(Path("x")),
    "sqlite:a:b": SqlitePath(Path("a:b")),
    "firestore:projects/my-project/databases/tlogistry": FirestoreDatabase("my-project", "tlogistry"),
    "firestore:projects/my-project/databases/(default)": FirestoreDatabase("my-project", "(default)"),
    "firestore:projects/example.com:my-project/databases/data-2": FirestoreDatabase("example.com:my-project", "data-2"),
}


@pytest.mark.parametrize("value", STORES)
def test_stores(value: str) -> None:
    assert read(TLOGISTRY_STORE=value).store == STORES[value]


def test_a_database_is_shown_by_its_resource_name() -> None:
    assert str(FirestoreDatabase("my-project", "data")) == "projects/my-project/databases/data"


@pytest.mark.parametrize(
    "value",
    [
        "sqlite:", "sqlite", "x", "firestore:", "SQLITE:x",
        "firestore:projects/my-project/databases/", "firestore:projects/my-project/databases/ab",
        "firestore:projects/my-project/databases/Data", "firestore:projects/my-project/databases/data/documents",
        "firestore:projects/my-project/databases/data?x", "firestore:projects/my-project/databases/default)",
        "firestore:projects/my/databases/data", "firestore:projects/123456/databases/data",
        "firestore:projects/../databases/data", "firestore:projects/my-project/databases/data\n",
        "firestore:/projects/my-project/databases/data",
        "firestore:projects/" + "a" * 600 + "/databases/data",
    ],
    ids=lambda value: ascii(value)[:60],
)  # fmt: skip
def test_stores_that_are_refused(value: str) -> None:
    (problem,) = problems(TLOGISTRY_STORE=value)
    assert problem.startswith("TLOGISTRY_STORE: ")


def test_the_newest_version_of_a_secret_is_meant_unless_one_is_named() -> None:
    secret = "projects/my-project/secrets/Upstream_1"
    for text, version in {
        secret: "latest",
        f"{secret}/versions/latest": "latest",
        f"{secret}/versions/12": "12",
    }.items():
        credentials = read(TLOGISTRY_CREDENTIALS_SECRET=text).credentials
        assert credentials == SecretName("my-project", "Upstream_1", version)
        assert str(credentials) == f"{secret}/versions/{version}"
        assert SecretName.parse(str(credentials)) == credentials
    assert read(TLOGISTRY_CREDENTIALS_SECRET="projects/1234567/secrets/x").credentials == SecretName(
        "1234567", "x", "latest"
    )


@pytest.mark.parametrize(
    "value",
    [
        "x", "projects/my-project/secrets/", "projects/my-project/secrets/a.b", "projects/my-project/secrets/a/versions/",
        "projects/my-project/secrets/a/versions/0", "projects/my-project/secrets/a/versions/01",
        "projects/my-project/secrets/a/versions/newest", "projects/my-project/secrets/a/versions/1:access",
        "projects/my-project/locations/europe-west1/secrets/a", "projects/my-project/secrets/a\n",
        "/projects/my-project/secrets/a", "projects/my-project/secrets/" + "a" * 256,
    ],
    ids=lambda value: ascii(value)[:60],
)  # fmt: skip
def test_secrets_that_are_refused(value: str) -> None:
    (problem,) = problems(TLOGISTRY_CREDENTIALS_SECRET=value)
    assert problem.startswith("TLOGISTRY_CREDENTIALS_SECRET: ")


def test_credentials_come_from_one_place() -> None:
    assert read(TLOGISTRY_CREDENTIALS_FILE="creds.json").credentials == Path("creds.json")
    (problem,) = problems(
        TLOGISTRY_CREDENTIALS_FILE="creds.json", TLOGISTRY_CREDENTIALS_SECRET="projects/my-project/secrets/a"
    )
    assert problem == "TLOGISTRY_CREDENTIALS_FILE: not together with TLOGISTRY_CREDENTIALS_SECRET"


def test_a_credentials_file_that_is_not_there_is_no_reason_not_to_start(tmp_path: Path) -> None:
    assert read(TLOGISTRY_CREDENTIALS_FILE=str(tmp_path / "missing")).credentials == tmp_path / "missing"


@pytest.mark.parametrize(
    "value",
    [
        "http://secretmanager.googleapis.com", "https://127.0.0.1:1", "http://10.0.0.1:1", "http://0.0.0.0:1", "127.0.0.1:1",
        "http://127.0.0.1:1/v1", "http://127.0.0.1.example.com:1", "http://user@127.0.0.1:1", "http://localhost.:1",
    ],
)  # fmt: skip
def test_secret_manager_is_imitated_on_loopback_only(value: str) -> None:
    (problem,) = problems(TLOGISTRY_SECRET_MANAGER_ENDPOINT=value)
    assert problem.startswith("TLOGISTRY_SECRET_MANAGER_ENDPOINT: ")


@pytest.mark.parametrize("value", ["127.0.0.1:8080", "localhost:8080", "[::1]:8080"])
def test_the_firestore_emulator_is_on_loopback(value: str) -> None:
    emulator = read(FIRESTORE_EMULATOR_HOST=value).firestore_emulator
    assert emulator is not None
    assert str(emulator) == f"http://{value}"


@pytest.mark.parametrize(
    "value",
    ["10.0.0.1:8080", "0.0.0.0:8080", "example.com:8080", "localhost", "localhost:0", "localhost:99999", ":8080",
     "http://localhost:8080", "localhost:8080/x", "user@localhost:8080", "localhost:8080@example.com:1"],
)  # fmt: skip
def test_a_firestore_emulator_that_is_elsewhere_is_refused(value: str) -> None:
    (problem,) = problems(FIRESTORE_EMULATOR_HOST=value)
    assert problem.startswith("FIRESTORE_EMULATOR_HOST: ")


@pytest.mark.parametrize("value", ["my-project", "example.com:my-project", "123456789012"])
def test_projects(value: str) -> None:
    assert read(GOOGLE_CLOUD_PROJECT=value).project == value


@pytest.mark.parametrize("value", ["My-Project", "a", "my-project/", "my project", "-my-project", "my-project\n"])
def test_projects_that_are_refused(value: str) -> None:
    assert problems(GOOGLE_CLOUD_PROJECT=value)[0].startswith("GOOGLE_CLOUD_PROJECT: ")


@pytest.mark.parametrize("value", ["0", "1001", "9999", "-1", "1.0", "08", "\u0661", "many", "1e2", " 3"])
def test_threads_that_are_refused(value: str) -> None:
    assert problems(THREADS=value)[0].startswith("THREADS: ")


def test_threads() -> None:
    assert [read(THREADS=value).threads for value in ("1", "80", "1000")] == [1, 80, 1000]


def test_settings_are_read_without_any_package() -> None:
    """A local start checks the settings before anything is installed."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from lib.config import Config; "
        "print(Config.from_env({'TLOGISTRY_IDENTITIES': sys.argv[2]}))"
    )
    command = [sys.executable, "-I", "-S", "-c", code, str(Path(__file__).parents[1]), WHO]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Config(")


RATE, DAILY = "TLOGISTRY_NEW_TAGS_PER_CLIENT", "TLOGISTRY_NEW_TAGS_PER_DAY"


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        *(
            (RATE, value)
            for value in ("500", "500/60", "0/60s", "500/0s", "+5/60s", "5.0/60s", "5/60s ", "05/60s", "Off", "5/1m")
        ),
        *((RATE, value) for value in ("1000000000/60s", "5/100000s", "5/60s\n", "\u0665/60s", "-1/60s")),
        *((DAILY, value) for value in ("0", "-5", "5/60s", "5.5", "1e5", "050", "1000000000", "none", " off")),
        *(("TLOGISTRY_FORWARDED_HOPS", value) for value in ("9", "-1", "1.0", "x", "\u0661", "100")),
        *(
            (f"TLOGISTRY_{name}", value)
            for name in ("ALLOW_UPSTREAMS", "DENY_UPSTREAMS", "OWN_HOSTS")
            for value in ("ghcr.io", "{}", "[1]", '["a b.example"]', '["ghcr"]', '["*"]', '["*."]', '["*.*.example"]')
        ),
        *(
            (f"TLOGISTRY_{name}", value)
            for name in ("ALLOW_UPSTREAMS", "DENY_UPSTREAMS", "OWN_HOSTS")
            for value in (
                '["x*.example"]',
                '["*.a.example:5000"]',
                '["docker.io", "index.docker.io"]',
                '["[::1]"]',
                '["127.1"]',
            )
        ),
        ("TLOGISTRY_ALLOW_UPSTREAMS", "[]"),
        ("TLOGISTRY_OWN_HOSTS", '["*.example.com"]'),
    ],
    ids=lambda value: value[-40:],
)
def test_limits_and_lists_that_are_refused(setting: str, value: str) -> None:
    """Taken for "no limit" or "nobody", each of these would open what its writer meant to close."""
    (problem,) = problems(**{setting: value})
    assert problem.startswith(f"{setting}: ")


def test_an_own_name_cannot_be_mapped() -> None:
    settings = {
        "TLOGISTRY_UPSTREAMS": '{"tags.example.com": "http://127.0.0.1:5000"}',
        "TLOGISTRY_OWN_HOSTS": '["tags.example.com"]',
        "TLOGISTRY_TRUST": LOCAL_TRUST,
    }
    assert problems(**settings) == ("TLOGISTRY_OWN_HOSTS: tags.example.com is mapped in TLOGISTRY_UPSTREAMS",)


@given(st.builds(Rate, st.integers(1, 10**9 - 1), st.integers(1, 99_999)))
def test_a_rate_is_read_as_it_is_written(rate: Rate) -> None:
    assert Rate.parse(str(rate)) == rate


@pytest.mark.parametrize(
    "text", ["docker.io", "*.docker.io", "reg.example:5000", "*.dev", "127.0.0.1:5000", "localhost:5000"]
)
def test_a_pattern_is_read_as_it_is_written(text: str) -> None:
    assert str(RegistryPattern.parse(text)) == text
