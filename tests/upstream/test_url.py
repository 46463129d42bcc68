"""URLs that registries name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.config import BaseUrl
from lib.upstream.url import Url, authority

GOOD = {
    "https://auth.docker.io/token": ("https", "auth.docker.io", 443, "/token"),
    "HTTPS://Auth.Docker.IO./token?a=b": ("https", "auth.docker.io", 443, "/token?a=b"),
    "http://127.0.0.1:5000": ("http", "127.0.0.1", 5000, "/"),
    "https://[fd00:ec2::254]/x": ("https", "fd00:ec2::254", 443, "/x"),
    "https://reg.example?x=1": ("https", "reg.example", 443, "/?x=1"),
    "https://reg.example:443/x#fragment": ("https", "reg.example", 443, "/x"),
    "https://reg.example:/x": ("https", "reg.example", 443, "/x"),
    "https://my_bucket.s3.example/a%2Fb?X-Sig=a/b+c==": ("https", "my_bucket.s3.example", 443, "/a%2Fb?X-Sig=a/b+c=="),
    "https://reg.example/@user:x": ("https", "reg.example", 443, "/@user:x"),
}
BAD = (
    "", "/token", "token", "//reg.example/token", "ftp://reg.example/", "file:///etc/passwd", "javascript:alert(1)",
    "https:/reg.example/", "https:///token", "https://", "https://user@reg.example/", "https://user:pw@reg.example/",
    "https://reg.example@169.254.169.254/", "https://reg.example\\@169.254.169.254/", "https:\\\\169.254.169.254/",
    "https://reg.example /", " https://reg.example/", "https://reg.example/\t", "https://reg.example/\r\nX: y",
    "https://reg.exa\x00mple/", "https://\uff52eg.example/", "https://①②⑦.0.0.1/", "https://bücher.example/",
    "https://%31%36%39.254.169.254/", "https://reg.example:0/", "https://reg.example:99999/", "https://reg.example:+1/",
    "https://reg.example:80:80/", "https://[::1/", "https://::1/", "https://./", "https://reg.example../",
    "https://reg..example/", "https://" + "a" * 9000,
)  # fmt: skip


@pytest.mark.parametrize("text", GOOD)
def test_a_plain_url_is_parsed(text: str) -> None:
    url = Url.parse(text)
    assert (url.origin.scheme, url.origin.host, url.origin.port, url.target) == GOOD[text]
    assert Url.parse(str(url)) == url


@pytest.mark.parametrize("text", BAD, ids=ascii)
def test_anything_else_is_refused_without_being_repeated(text: str) -> None:
    with pytest.raises(ValueError, match=r"^not a plain http or https URL$"):
        Url.parse(text)


JOINED = {
    "/artifacts-downloads/x?y": "https://pkg.example/artifacts-downloads/x?y",
    "../y": "https://pkg.example/v2/a/y",
    "?n=1": "https://pkg.example/v2/a/blobs/x?n=1",
    "//cdn.example/z": "https://cdn.example/z",
    "http://169.254.169.254/": "http://169.254.169.254/",
    "https://cdn.example:443/z": "https://cdn.example/z",
}


@pytest.mark.parametrize("reference", JOINED)
def test_a_relative_location_means_what_it_means_on_its_page(reference: str) -> None:
    assert str(Url.parse("https://pkg.example/v2/a/blobs/x").join(reference)) == JOINED[reference]


@pytest.mark.parametrize(
    "reference", ["/\t/169.254.169.254/", "/\n/x", "\\\\169.254.169.254\\", "/a b", "//user@h.example/", ""], ids=ascii
)
def test_a_location_that_two_parsers_read_differently_is_refused(reference: str) -> None:
    with pytest.raises(ValueError, match="not a plain"):
        Url.parse("https://pkg.example/v2/a/blobs/x").join(reference)


def test_parameters_are_added_after_those_that_are_there_and_escaped() -> None:
    url = Url.parse("https://auth.example/token?account=x").with_query(
        [("service", "a&b"), ("scope", "repository:a/b:pull")]
    )
    assert url.target == "/token?account=x&service=a%26b&scope=repository%3Aa%2Fb%3Apull"
    assert Url.parse("https://auth.example/token").with_query([("a", "b")]).target == "/token?a=b"


def test_the_authority_leaves_the_default_port_out() -> None:
    assert authority(BaseUrl("https", "reg.example", 443)) == "reg.example"
    assert authority(BaseUrl("http", "reg.example", 443)) == "reg.example:443"
    assert authority(BaseUrl("http", "::1", 5000)) == "[::1]:5000"


@given(st.text(max_size=60), st.sampled_from(["https://", "https://a.example/", "https://a.example:"]))
def test_whatever_is_parsed_is_a_fixed_point(text: str, prefix: str) -> None:
    try:
        url = Url.parse(prefix + text)
    except ValueError:
        return
    assert Url.parse(str(url)) == url
    assert str(url).isascii()
    assert " " not in str(url)
    assert "@" not in authority(url.origin)
