"""What a URL must say to be asked."""

from __future__ import annotations

import pytest

from lib.config import BaseUrl
from lib.upstream.guard import Guard, Refused
from lib.upstream.url import Url

STRANGER = Guard(frozenset())
MAPPED = Guard(frozenset({BaseUrl("http", "127.0.0.1", 5000), BaseUrl("https", "mirror.internal", 8443)}))

ALLOWED = (
    "https://ghcr.io/",
    "https://registry-1.docker.io:443/",
    "https://xn--bcher-kva.xn--p1ai/",
    "https://a_b.s3.example/",
)
REFUSED = {
    "http://ghcr.io/": "only https",
    "http://ghcr.io:443/": "only https",
    "https://ghcr.io:8443/": "only port 443",
    "https://ghcr.io:80/": "only port 443",
    "https://127.0.0.1/": "not a public host name",
    "https://8.8.8.8/": "not a public host name",
    "https://127.1/": "not a public host name",
    "https://2130706433/": "not a public host name",
    "https://0x7f000001/": "not a public host name",
    "https://0x7f.0.0.0x1/": "not a public host name",
    "https://017700000001/": "not a public host name",
    "https://0177.0.0.01/": "not a public host name",
    "https://[::1]/": "not a public host name",
    "https://[::ffff:a9fe:a9fe]/": "not a public host name",
    "https://169.254.169.254./": "not a public host name",
    "https://localhost/": "not a public host name",
    "https://metadata/": "not a public host name",
    "https://metadata.google.internal/": "not a public host name",
    "https://metadata.google.internal./": "not a public host name",
    "https://printer.local/": "not a public host name",
    "https://a.localhost/": "not a public host name",
    "https://-a.example/": "not a public host name",
    "https://" + "a" * 64 + ".example/": "not a public host name",
}


@pytest.mark.parametrize("text", ALLOWED)
def test_https_to_a_public_name_is_allowed(text: str) -> None:
    STRANGER.check(Url.parse(text).origin)


@pytest.mark.parametrize("text", REFUSED)
def test_everything_else_is_refused_with_its_reason(text: str) -> None:
    for guard in (STRANGER, MAPPED):
        with pytest.raises(Refused, match=REFUSED[text]):
            guard.check(Url.parse(text).origin)


def test_exactly_the_mapped_scheme_host_and_port_is_allowed() -> None:
    MAPPED.check(Url.parse("http://127.0.0.1:5000/token").origin)
    MAPPED.check(Url.parse("https://MIRROR.internal:8443/").origin)
    for other in (
        "https://127.0.0.1:5000/", "http://127.0.0.1:5001/", "http://127.0.0.2:5000/", "http://localhost:5000/",
        "http://mirror.internal:8443/", "https://mirror.internal/", "http://127.0.0.1/",
    ):  # fmt: skip
        with pytest.raises(Refused):
            MAPPED.check(Url.parse(other).origin)


def test_a_mapping_says_nothing_for_a_stranger() -> None:
    with pytest.raises(Refused):
        STRANGER.check(BaseUrl("http", "127.0.0.1", 5000))


def test_a_refusal_names_what_was_refused_and_no_query() -> None:
    with pytest.raises(Refused, match=r"^refused to connect to http://169\.254\.169\.254: only https is allowed$"):
        STRANGER.check(Url.parse("http://169.254.169.254/computeMetadata/v1/?secret=x").origin)
