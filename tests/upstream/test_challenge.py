"""WWW-Authenticate, as registries and proxies write it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.upstream.challenge import Challenge

HUB = 'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/alpine:pull"'
PARSED = Challenge("https://auth.docker.io/token", "registry.docker.io", "repository:library/alpine:pull")
REALM = Challenge("https://a.example/t", None, None)

TABLE: dict[tuple[str, ...], Challenge | None] = {
    (HUB,): PARSED,
    (HUB.replace(",", ", "),): PARSED,
    (HUB.replace("Bearer", "bearer").replace("realm", "Realm").replace("scope", "SCOPE"),): PARSED,
    (
        'Bearer service="registry.docker.io",scope="repository:library/alpine:pull",realm="https://auth.docker.io/token"',
    ): PARSED,
    ("Bearer realm=https://a.example/t",): REALM,
    ('Bearer realm = "https://a.example/t"',): REALM,
    ('Basic realm="x"', 'Bearer realm="https://a.example/t"'): REALM,
    ('Basic realm="x, Bearer realm=y", Bearer realm="https://a.example/t"',): REALM,
    ('Negotiate, Basic realm="x", Bearer realm="https://a.example/t"',): REALM,
    ('Negotiate dGVzdA==, Bearer realm="https://a.example/t"',): REALM,
    ('Bearer realm="https://a.example/t", Basic realm="x"',): REALM,
    ('Bearer realm="https://a.example/t",error="insufficient_scope"',): REALM,
    ('Bearer realm="https://a.example/\\t"',): REALM,
    ('Bearer service="x"', 'Bearer realm="https://a.example/t"'): REALM,
    ('Bearer realm="",service="x"',): None,
    ('Basic realm="GitHub Package Registry"',): None,
    ("Negotiate",): None,
    ("Bearer",): None,
    ("Bearer dGVzdA==",): None,
    ("",): None,
    (): None,
    ('Bearer realm="https://a.example/t',): None,
    ('Bearer realm="' + "x" * 5000 + '"',): None,
    ("Bearer " + ", " * 9000,): None,
}


@pytest.mark.parametrize("lines", TABLE, ids=lambda lines: " | ".join(lines)[:60])
def test_the_bearer_challenge_is_found(lines: tuple[str, ...]) -> None:
    assert Challenge.find(lines) == TABLE[lines]


@given(st.lists(st.text(alphabet='Bearer Basic,="\\ \tx:/', max_size=80), max_size=3))
def test_no_header_makes_the_parser_fail(lines: list[str]) -> None:
    found = Challenge.find(lines)
    assert found is None or found.realm
