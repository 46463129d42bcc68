"""References: every spelling of one tag is that tag, and no other text is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.errors import InputInvalid, NameInvalid, TagSyntaxInvalid
from lib.oci.reference import NAME_MAX, TEXT_MAX, Repository, Tag, canonical_registry
from tests.strategies import registries, repositories, spellings, tag_names, tags

HEX64, HEX128 = "0123456789abcdef" * 4, "0123456789abcdef" * 8


@given(repositories())
def test_a_repository_is_the_parse_of_its_canonical_and_of_its_familiar_form(repository: Repository) -> None:
    assert Repository.parse(str(repository)) == repository
    assert Repository.parse(repository.familiar) == repository


@given(tags())
def test_a_tag_is_the_parse_of_its_canonical_and_of_its_familiar_form(tag: Tag) -> None:
    assert Tag.parse(str(tag)) == tag
    assert Tag.parse(tag.familiar) == tag


@given(registries())
def test_a_canonical_registry_is_a_fixed_point(registry: str) -> None:
    assert canonical_registry(registry) == registry


@given(st.data(), repositories(), tag_names())
def test_two_spellings_of_one_tag_are_one_tag(data: st.DataObject, repository: Repository, name: str) -> None:
    text = data.draw(spellings(repository))
    assert str(Tag.parse(f"{text}:{name}")) == f"{repository}:{name}"


@given(st.text(max_size=60) | st.text("aA0.:/-_lochst@[]%\u0130", max_size=24))
def test_whatever_parses_has_a_canonical_form_that_is_a_fixed_point(text: str) -> None:
    try:
        tag = Tag.parse(text)
    except InputInvalid:
        return
    assert Tag.parse(str(tag)) == tag
    assert Tag.parse(tag.familiar) == tag
    assert str(tag).isascii()


@given(tags(), tags())
def test_two_tags_are_one_only_if_their_canonical_texts_are(one: Tag, two: Tag) -> None:
    assert (one == two) == (str(one) == str(two)) == (one.familiar == two.familiar)


@pytest.mark.parametrize(
    ("text", "canonical", "familiar"),
    [
        ("alpine:3.16.0", "docker.io/library/alpine:3.16.0", "alpine:3.16.0"),
        ("library/alpine:3", "docker.io/library/alpine:3", "alpine:3"),
        ("docker.io/alpine:3", "docker.io/library/alpine:3", "alpine:3"),
        ("docker.io/library/alpine:3", "docker.io/library/alpine:3", "alpine:3"),
        ("index.docker.io/alpine:3", "docker.io/library/alpine:3", "alpine:3"),
        ("index.docker.io/library/alpine:3", "docker.io/library/alpine:3", "alpine:3"),
        ("registry-1.docker.io/library/alpine:3", "docker.io/library/alpine:3", "alpine:3"),
        ("registry.hub.docker.com/library/alpine:3", "docker.io/library/alpine:3", "alpine:3"),
        ("Docker.IO/alpine:3", "docker.io/library/alpine:3", "alpine:3"),
        ("docker.io:443/alpine:3", "docker.io/library/alpine:3", "alpine:3"),
        ("docker.io./alpine:3", "docker.io/library/alpine:3", "alpine:3"),
        ("Registry-1.Docker.io.:443/alpine:3", "docker.io/library/alpine:3", "alpine:3"),
        ("my-user/my-app:v1.2.3", "docker.io/my-user/my-app:v1.2.3", "my-user/my-app:v1.2.3"),
        ("library/a/b:1", "docker.io/library/a/b:1", "library/a/b:1"),
        ("library:1", "docker.io/library/library:1", "library:1"),
        ("library/library:1", "docker.io/library/library:1", "library:1"),
        ("ghcr.io/distroless/static:20220707", "ghcr.io/distroless/static:20220707", None),
        ("GHCR.io/distroless/static:1", "ghcr.io/distroless/static:1", None),
        ("ghcr.io:443/distroless/static:1", "ghcr.io/distroless/static:1", None),
        ("ghcr.io./distroless/static:1", "ghcr.io/distroless/static:1", None),
        ("ghcr.io/one:1", "ghcr.io/one:1", None),
        ("ghcr.io/library/one:1", "ghcr.io/library/one:1", None),
        ("localhost/x:1", "localhost/x:1", None),
        ("LOCALHOST/x:1", "localhost/x:1", None),
        ("localhost./x:1", "localhost/x:1", None),
        ("localhost:443/x:1", "localhost/x:1", None),
        ("localhost:5000/x:1", "localhost:5000/x:1", None),
        ("reg.example:8443/a/b:1", "reg.example:8443/a/b:1", None),
        ("reg:5000/x:1", "reg:5000/x:1", None),
        ("docker.io:80/x:1", "docker.io:80/x:1", None),
        ("127.0.0.1:5000/x:1", "127.0.0.1:5000/x:1", None),
        ("10.0.0.8/x:1", "10.0.0.8/x:1", None),
        ("10.0.0.8./x:1", "10.0.0.8/x:1", None),
        ("xn--bcher-kva.example/x:1", "xn--bcher-kva.example/x:1", None),
        ("1.example/x:1", "1.example/x:1", None),
        # a familiar name whose first component looks like a registry host keeps the registry
        ("docker.io/a.b/c:1", "docker.io/a.b/c:1", "docker.io/a.b/c:1"),
        ("docker.io/localhost/c:1", "docker.io/localhost/c:1", "docker.io/localhost/c:1"),
        ("docker.io/library/a.b/c:1", "docker.io/library/a.b/c:1", "library/a.b/c:1"),
        ("a.b:1", "docker.io/library/a.b:1", "a.b:1"),
        ("localhost:5000", "docker.io/library/localhost:5000", "localhost:5000"),
        ("a/b__c/d---e/f.g:T_a-g.", "docker.io/a/b__c/d---e/f.g:T_a-g.", "a/b__c/d---e/f.g:T_a-g."),
    ],
)
def test_canonical_and_familiar_form(text: str, canonical: str, familiar: str | None) -> None:
    tag = Tag.parse(text)
    assert (str(tag), tag.familiar) == (canonical, familiar or canonical)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/",
        "/alpine",
        "alpine/",
        "a//b",
        "a/../b",
        "a/./b",
        "..",
        ".",
        "Alpine",
        "my-user/My-App",
        "Foo/bar",
        "ghcr.io/Distroless/static",
        "ghcr.io/",
        "ghcr.io//a",
        "-a",
        "a-",
        "a..b/c",
        "x/a..b",
        "x/a___b",
        "x/a._b",
        "x/_a",
        "_catalog",
        "x/a_",
        "a b",
        "x/a\n",
        "a\n",
        "a\x00b",
        "x/a%2fb",
        "x/a:b",
        "x/a@b",
        "x\\a",
        "x/\u00e9",
        "x/\u0131",
        "x/\u212a",
        "x/\uff41",
        "x/\u0661",
        "ghcr.io/ghcr.io:443/x",
        "https://ghcr.io/a/b",
        "user@ghcr.io/a",
        "user:password@ghcr.io/a",
        "[::1]/x",
        "[::1]:5000/x",
        "::1/x",
        f"x/{'a' * NAME_MAX}",
        f"ghcr.io/{'a' * (NAME_MAX - len('ghcr.io/') + 1)}",
        "a" * (TEXT_MAX + 1),
        "a/" * 100_000 + "a",
    ],
    ids=lambda name: ascii(name[:24]) + f" of {len(name)}",
)
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(NameInvalid):
        Repository.parse(name)
    with pytest.raises(NameInvalid):
        Tag.parse(f"{name}:1")


def test_the_limit_is_for_host_and_path_together_and_counts_the_folded_form() -> None:
    path = "a" * (NAME_MAX - len("ghcr.io/"))
    assert str(Repository.parse(f"GHCR.io.:443/{path}")) == f"ghcr.io/{path}"
    short = "a" * (NAME_MAX - len("docker.io/library/"))
    assert len(str(Repository.parse(short))) == NAME_MAX
    with pytest.raises(NameInvalid, match="longer than 255"):
        Repository.parse(short + "a")


@pytest.mark.parametrize(
    "host",
    [
        "",
        ".",
        "..",
        "foo",
        "docker",
        ":443",
        ".ghcr.io",
        "ghcr..io",
        "ghcr.io..",
        "-ghcr.io",
        "ghcr-.io",
        "ghcr.-io",
        "gh_cr.io",
        "ghcr.io/",
        "ghcr.io:",
        "ghcr.io:0",
        "ghcr.io:00443",
        "ghcr.io:0443",
        "ghcr.io:65536",
        "ghcr.io:99999",
        "ghcr.io:100000",
        "ghcr.io:+443",
        "ghcr.io:-1",
        "ghcr.io: 443",
        "ghcr.io:4_43",
        "ghcr.io:\u0664\u0664\u0663",
        "ghcr.io:443:443",
        "ghcr.io:https",
        "ghcr.io\n",
        "ghcr.io\n:443",
        "ghcr.io\x00",
        " ghcr.io",
        "gh cr.io",
        "b\u00fccher.example",
        "\u212aghcr.io",
        "ghcr\u3002io",
        "ghcr\uff0eio",
        "ghcr%2eio",
        "user@ghcr.io",
        "http://ghcr.io",
        f"{'a' * 64}.io",
        f"{'a.' * 126}io",
        "a." * 100_000 + "a",
    ],
    ids=lambda host: ascii(host[:24]) + f" of {len(host)}",
)
def test_a_host_that_is_none_is_refused(host: str) -> None:
    with pytest.raises(NameInvalid):
        canonical_registry(host)
    with pytest.raises(NameInvalid):
        Repository.parse(f"{host}/a/B")  # the upper case is for those whose first component makes them a Hub name


@pytest.mark.parametrize(
    "host",
    [
        "2130706433",
        "2130706433:443",
        "2130706433:5000",
        "127.1",
        "127.0.1",
        "127.0.0.1.1",
        "127.0.0.256",
        "0177.0.0.1",
        "127.0.0.01",
        "0x7f.0.0.1",
        "0x7f.1",
        "127.0x0.1",
        "127.0.0.0x1",
        "127.0.0.0X1",
        "0x7f000001:443",
        "0x7f000001:5000",
        "0X7F000001:443",
        "metadata.0x",
        "metadata.0xfe",
        "169.254.43518",
        "a.1",
        "a.1.",
        "1.2.3.4..",
    ],
)
def test_a_number_that_a_resolver_would_read_as_an_address_is_no_host(host: str) -> None:
    with pytest.raises(NameInvalid):
        canonical_registry(host)
    with pytest.raises(NameInvalid):
        Repository.parse(f"{host}/a/B")
    with pytest.raises(NameInvalid):
        Repository.parse(f"{host}:5000/a")


@pytest.mark.parametrize("text", ["foo:443/x", "foo.:443/x", "foo./x", "FOO:443/x"])
def test_a_host_does_not_become_a_hub_user_when_its_port_or_dot_is_folded(text: str) -> None:
    with pytest.raises(NameInvalid, match="needs a port"):
        Repository.parse(text)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("ghcr.io", "ghcr.io"),
        ("GHCR.IO.:443", "ghcr.io"),
        ("registry-1.docker.io", "docker.io"),
        ("localhost", "localhost"),
        ("reg.example:1", "reg.example:1"),
        ("reg.example:65535", "reg.example:65535"),
        ("reg:5000", "reg:5000"),
        ("255.255.255.255", "255.255.255.255"),
        (f"{'a' * 63}.io", f"{'a' * 63}.io"),
        (f"{'a.' * 125}io.", f"{'a.' * 125}io"),
        ("0x7f.example", "0x7f.example"),
    ],
    ids=lambda text: text[:24],
)
def test_registry_hosts(text: str, canonical: str) -> None:
    assert canonical_registry(text) == canonical


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".INVALID_MANIFEST_NAME",
        "-a",
        "a b",
        "a\n",
        "a\x00",
        "a+b",
        "a%2e",
        "a@b",
        "\u00e9",
        "\u0661",
        "a" * 129,
        "a" * 1_000_000,
    ],
    ids=lambda name: ascii(name[:24]) + f" of {len(name)}",
)
def test_a_tag_that_is_none_is_refused(name: str) -> None:
    repository = Repository.parse("alpine")
    with pytest.raises(TagSyntaxInvalid):
        Tag.of(repository, name)
    with pytest.raises(TagSyntaxInvalid):
        Tag.parse(f"alpine:{name}")


@pytest.mark.parametrize("text", ["alpine", "my-user/my-app", "localhost:5000/x", "ghcr.io/a/b", ""])
def test_a_reference_without_a_tag_has_no_default(text: str) -> None:
    with pytest.raises(TagSyntaxInvalid, match="no tag"):
        Tag.parse(text)


@pytest.mark.parametrize("text", [f"alpine@sha256:{HEX64}", f"alpine:3@sha256:{HEX64}"])
def test_a_digest_is_no_tag(text: str) -> None:
    with pytest.raises(NameInvalid):
        Tag.parse(text)


@pytest.mark.parametrize("name", ["a", "_", "0", "_.-", "A" * 128, "latest", f"sha256-{HEX64}"])
def test_tags(name: str) -> None:
    assert Tag.parse(f"alpine:{name}").name == name


def test_a_tag_keeps_its_case_and_a_host_does_not() -> None:
    assert Tag.parse("GHCR.io/a/b:Edge") == Tag.parse("ghcr.io/a/b:Edge") != Tag.parse("ghcr.io/a/b:edge")


@pytest.mark.parametrize(
    ("name", "moves"),
    [
        *((f"sha256-{HEX64}{suffix}", True) for suffix in ("", ".sig", ".att", ".sbom")),
        *((f"sha512-{HEX64}{suffix}", True) for suffix in ("", ".sig", ".att", ".sbom")),
        (f"sha512-{HEX128[:100]}", False),
        (f"sha512-{'a' * 121}", False),
        (f"sha256-{HEX64[:-1]}", False),
        (f"sha256-{HEX64}0", False),
        (f"sha512-{HEX64[:-1]}", False),
        (f"sha256-{HEX64.upper()}", False),
        (f"SHA256-{HEX64}", False),
        (f"sha256-{HEX64}.", False),
        (f"sha256-{HEX64}.sig.", False),
        (f"sha256-{HEX64}.SIG", False),
        (f"sha256-{HEX64}.zip", False),
        (f"sha256-{HEX64}-sig", False),
        (f"v1-sha256-{HEX64[:40]}", False),
        (f"sha384-{HEX64}", False),
        ("latest", False),
        ("3.16.0", False),
    ],
    ids=lambda value: value[:12] + value[-12:] if isinstance(value, str) else str(value),
)
def test_only_the_fall_back_tags_of_cosign_and_oci_move_by_design(name: str, moves: bool) -> None:
    assert Tag.parse(f"ghcr.io/a/b:{name}").moves_by_design is moves
