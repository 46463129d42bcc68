"""The secret's format, and the pairs of registry and realm."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lib.config import BaseUrl
from lib.upstream.credentials import MAX_BYTES, REALMS, Credential, Realms, parse
from lib.upstream.token import Audience

PASSWORD = "dckr_pat_hunter2"
GOOD = {"username": "my-user", "password": PASSWORD}


def test_credentials_are_by_canonical_registry_name() -> None:
    found = parse(json.dumps({"Index.Docker.IO": GOOD, "ghcr.io.": GOOD, "reg.example:5000": GOOD}).encode())
    assert list(found) == ["docker.io", "ghcr.io", "reg.example:5000"]
    assert found["docker.io"] == Credential("my-user", PASSWORD)


def test_no_account_is_a_content_too() -> None:
    assert parse(b"{}") == {}


def test_user_and_password_are_sent_as_basic_in_utf_8() -> None:
    assert Credential("Aladdin", "open sesame").basic == "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="  # RFC 7617, 2
    assert Credential("test", "123£").basic == "Basic dGVzdDoxMjPCow=="  # RFC 7617, 2.1
    assert Credential("x", "a:b").basic == "Basic eDphOmI="


def _entry(**changes: Any) -> bytes:
    return json.dumps({"docker.io": {**GOOD, **changes}}).encode()


REFUSED: dict[str, bytes] = {
    "nothing": b"",
    "no JSON": b'{"docker.io": hunter2}',
    "no UTF-8": b'{"docker.io": {"username": "x", "password": "hunter2\xff"}}',
    "too long": json.dumps({"docker.io": GOOD}).encode() + b" " * MAX_BYTES,
    "too deep": b"[" * 60_000,
    "a list": b'[{"username": "x", "password": "hunter2"}]',
    "a key twice": b'{"docker.io": {"username": "x", "password": "hunter2"}, "docker.io": {}}',
    "a user name twice": b'{"docker.io": {"username": "x", "username": "y", "password": "hunter2"}}',
    "two names of one registry": json.dumps({"docker.io": GOOD, "index.docker.io": GOOD}).encode(),
    "a URL as a name": json.dumps({"https://index.docker.io/v1/": GOOD}).encode(),
    "no name": json.dumps({"": GOOD}).encode(),
    "a password as a name": b'{"hunter2": {}}',
    "no object": b'{"docker.io": "x:hunter2"}',
    "no password": b'{"docker.io": {"username": "x"}}',
    "more": _entry(email="x"),
    "a number": _entry(password=2),
    "null": _entry(password=None),
    "an empty user name": _entry(username=""),
    "an empty password": _entry(password=""),
    "a colon in the user name": _entry(username="a:b"),
    "a line break after the password": _entry(password="hunter2\n"),
    "a header in the user name": _entry(username="x\r\nX-Evil: hunter2"),
    "a NUL": _entry(password="hunter2\0"),
    "a lone surrogate": b'{"docker.io": {"username": "x", "password": "hunter2\\ud800"}}',
    "a long user name": _entry(username="x" * 257),
    "a long password": _entry(password="x" * 4097),
    "Docker's own file": b'{"auths": {"docker.io": {"auth": "aHVudGVyMg=="}}}',
}


@pytest.mark.parametrize("what", REFUSED)
def test_anything_else_is_refused_with_a_reason_that_repeats_nothing_of_it(what: str) -> None:
    with pytest.raises(ValueError, match=r"\w") as caught:
        parse(REFUSED[what])
    shown = repr(caught.value) + str(caught.value)
    assert "hunter2" not in shown
    parsers_own = caught.value.__context__  # holds the text
    assert caught.value.__cause__ is None
    assert parsers_own is None or caught.value.__suppress_context__


def test_nothing_that_holds_a_password_prints_it() -> None:
    credential = Credential("my-user", PASSWORD)
    audience = Audience("docker.io", BaseUrl("https", "registry-1.docker.io", 443), "library/alpine", credential)
    for holder in (credential, audience, parse(json.dumps({"docker.io": GOOD}).encode()), (credential,)):
        for text in (str(holder), repr(holder), f"{holder}", "%s" % (holder,)):  # noqa: UP031 - one more way to print
            assert PASSWORD not in text
            assert "my-user" not in text


TABLE = Realms({})
MAPPED = Realms(
    {
        "docker.io": BaseUrl.parse("https://mirror.example"),
        "ghcr.io": BaseUrl.parse("http://127.0.0.1:5000"),
        "v6.example": BaseUrl.parse("http://[::1]:5000"),
    }
)


@pytest.mark.parametrize("registry", REALMS)
def test_a_registry_of_the_table_has_exactly_its_own_realm(registry: str) -> None:
    allowed = [realm for realm in REALMS.values() if TABLE.allow(registry, realm)]
    assert allowed == [REALMS[registry]]
    assert registry in TABLE


def test_a_registry_without_a_pair_has_no_realm() -> None:
    assert "reg.example" not in TABLE
    for realm in (*REALMS.values(), "https://reg.example/token", "None", ""):
        assert not TABLE.allow("reg.example", realm)


def test_every_realm_of_the_table_is_spelt_as_we_spell_it_and_over_https() -> None:
    for registry, realm in REALMS.items():
        host = realm.split("/")[2]
        mapped = Realms({registry: BaseUrl.parse(f"https://{host}")})
        assert mapped.allow(registry, realm)


@pytest.mark.parametrize("realm", ["https://mirror.example/token", "https://mirror.example/v2/auth?account=x"])
def test_a_mapped_registry_has_the_realms_of_its_mapping_with_any_path(realm: str) -> None:
    assert MAPPED.allow("docker.io", realm)


def test_a_mapped_registry_on_loopback_has_realms_there() -> None:
    assert MAPPED.allow("ghcr.io", "http://127.0.0.1:5000/token")
    assert MAPPED.allow("v6.example", "http://[::1]:5000/token")


def test_a_mirror_is_not_the_original() -> None:
    assert not MAPPED.allow("docker.io", REALMS["docker.io"])
    assert not MAPPED.allow("ghcr.io", REALMS["ghcr.io"])


# What a malicious registry might name to be sent a password, and why it is another place, or might be read as one.
NOT_DOCKER_HUBS = {
    "foreign host": "https://evil.example/token",
    "another registry's": "https://ghcr.io/token",
    "subdomain": "https://evil.auth.docker.io/token",
    "parent domain": "https://docker.io/token",
    "suffix": "https://auth.docker.io.evil.example/token",
    "prefix": "https://xauth.docker.io/token",
    "another path": "https://auth.docker.io/other",
    "longer path": "https://auth.docker.io/token/x",
    "shorter path": "https://auth.docker.io/",
    "no path": "https://auth.docker.io",
    "slash at the end": "https://auth.docker.io/token/",
    "dot segment": "https://auth.docker.io/x/../token",
    "double slash": "https://auth.docker.io//token",
    "encoded path": "https://auth.docker.io/%74oken",
    "case of the path": "https://auth.docker.io/Token",
    "query": "https://auth.docker.io/token?redirect=https://evil.example",
    "empty query": "https://auth.docker.io/token?",
    "fragment": "https://auth.docker.io/token#x",
    "plain HTTP": "http://auth.docker.io/token",
    "plain HTTP on 443": "http://auth.docker.io:443/token",
    "another port": "https://auth.docker.io:8443/token",
    "the same port, written": "https://auth.docker.io:443/token",
    "empty port": "https://auth.docker.io:/token",
    "case of the host": "https://Auth.Docker.IO/token",
    "case of the scheme": "HTTPS://auth.docker.io/token",
    "trailing dot": "https://auth.docker.io./token",
    "user": "https://evil.example@auth.docker.io/token",
    "pinned host as user": "https://auth.docker.io@evil.example/token",
    "pinned host as user and password": "https://auth.docker.io:443@evil.example/token",
    "backslash": "https://auth.docker.io\\@evil.example/token",
    "fragment before the host": "https://evil.example#@auth.docker.io/token",
    "query before the host": "https://evil.example?@auth.docker.io/token",
    "space": " https://auth.docker.io/token",
    "space after": "https://auth.docker.io/token ",
    "line break": "https://auth.docker.io/token\n",
    "tab": "https://auth.docker.io\t/token",
    "NUL": "https://auth.docker.io/token\0",
    "full-width letters": "https://\uff41uth.docker.io/token",
    "Cyrillic letter": "https://auth.d\u043ecker.io/token",
    "no scheme": "//auth.docker.io/token",
    "another scheme": "ftp://auth.docker.io/token",
    "one slash": "https:/auth.docker.io/token",
    "nothing": "",
}


@pytest.mark.parametrize("difference", NOT_DOCKER_HUBS)
def test_a_realm_that_differs_in_anything_is_not_the_pinned_one(difference: str) -> None:
    assert not TABLE.allow("docker.io", NOT_DOCKER_HUBS[difference])


@pytest.mark.parametrize("difference", NOT_DOCKER_HUBS)
def test_a_mapped_registrys_realm_differs_in_nothing_but_the_path(difference: str) -> None:
    realms = Realms({"docker.io": BaseUrl.parse("https://auth.docker.io")})
    only_the_path = {
        "another path", "longer path", "shorter path", "slash at the end", "dot segment", "double slash", "encoded path",
        "case of the path", "query", "empty query",
    }  # fmt: skip
    assert realms.allow("docker.io", NOT_DOCKER_HUBS[difference]) == (difference in only_the_path)
