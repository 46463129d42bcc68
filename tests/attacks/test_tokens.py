"""Tokens are for the origin that asked for one, and nobody else; what a token service says is for nobody."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lib.errors import ManifestInvalid, NotFound, TlogistryError, UpstreamUnavailable
from lib.oci.manifest import MAX_BYTES
from lib.upstream.limits import Limits
from tests.fakes.registry import EndlessBody, FakeRegistry, Raw, Redirect, Status, image
from tests.upstream.support import ALPINE, ALPINE_PATH, TYPE, asking, names, soon
from tests.upstream.test_transport import certificate

if TYPE_CHECKING:
    from pathlib import Path

    from tests.attacks.network import Network
    from tests.fakes.registry import Fault
    from tests.handlers.test_http import World


def _hosts(fake: FakeRegistry) -> list[tuple[str, bool]]:
    """Which Host was asked, and whether a token came along."""
    return [(seen.headers["host"].partition(":")[0], "authorization" in seen.headers) for seen in fake.requests]


def test_a_token_does_not_follow_a_redirect_to_another_host() -> None:
    """CVE-2020-15157, GHSA-vh4v-2xq2-g5cg, GGCR#2193, GHSA-9m43-p3cx-w8j5: same server, same port, another name."""
    with FakeRegistry(token_field="token") as fake:
        fake.push("library/alpine", "3.16.0", image("a"), TYPE)
        alias = f"http://localhost:{fake.port}"
        resolver = names({"localhost": ["127.0.0.1"]})
        with asking({"docker.io": fake, "alias.example": alias}, resolver=resolver) as asked:
            asked.registries.head(ALPINE, soon())
            fake.forget_requests()
            fake.fault(ALPINE_PATH, Redirect(alias + ALPINE_PATH), times=1)
            assert asked.registries.manifest(ALPINE.repository, ALPINE, soon()).content == image("a")
        assert _hosts(fake) == [("127.0.0.1", True), ("localhost", False), ("localhost", True)]
        assert len(fake.token_requests) == 1, "the other host was given a token of its own"


def test_a_token_does_not_follow_a_redirect_to_another_port() -> None:
    """CVE-2020-15157, GHSA-vh4v-2xq2-g5cg: same host. The other server takes an Authorization for a violation."""
    with FakeRegistry(token_field="token") as fake, FakeRegistry() as other:
        for registry in (fake, other):
            registry.push("library/alpine", "3.16.0", image("a"), TYPE)
        with asking({"docker.io": fake, "other.example": other}) as asked:
            asked.registries.head(ALPINE, soon())
            fake.fault(ALPINE_PATH, Redirect(other.base_url + ALPINE_PATH))
            assert asked.registries.manifest(ALPINE.repository, ALPINE, soon()).content == image("a")
        assert _hosts(other) == [("127.0.0.1", False)]


def test_a_token_does_not_follow_a_redirect_from_https_to_http(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """GHSA-vh4v-2xq2-g5cg, CVE-2023-45289: same name, downgraded to where everybody on the way can read it."""
    tls = certificate(tmp_path, "localhost")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    with FakeRegistry(token_field="token", tls=tls) as fake, FakeRegistry() as plain:
        for registry in (fake, plain):
            registry.push("library/alpine", "3.16.0", image("a"), TYPE)
        mapping = {
            "docker.io": f"https://localhost:{fake.port}",
            "token.example": fake.token_url.removesuffix("/token"),
            "plain.example": f"http://localhost:{plain.port}",
        }
        with asking(mapping, resolver=names({"localhost": ["127.0.0.1"]})) as asked:
            asked.registries.head(ALPINE, soon())
            fake.fault(ALPINE_PATH, Redirect(f"http://localhost:{plain.port}{ALPINE_PATH}"))
            assert asked.registries.manifest(ALPINE.repository, ALPINE, soon()).content == image("a")
        assert "authorization" in fake.requests[-1].headers
        assert _hosts(plain) == [("localhost", False)]


def test_a_token_of_a_challenger_is_not_shown_to_its_token_service_or_another_repository() -> None:
    """CVE-2026-33540, CVE-2026-48978: the fake registry takes both for a violation, which ends the test."""
    with FakeRegistry(token_field="token") as fake, asking({"docker.io": fake}) as asked:
        for name in ("library/alpine", "other/alpine"):
            fake.push(name, "3.16.0", image("a"), TYPE)
        asked.registries.head(ALPINE, soon())
        fake.revoke()
        fake.fault(ALPINE_PATH, Redirect("/v2/other/alpine/manifests/3.16.0"))
        assert asked.registries.manifest(ALPINE.repository, ALPINE, soon()).content == image("a")
        held = {seen.path: seen.headers.get("authorization") for seen in fake.requests}
        assert held[ALPINE_PATH] != held["/v2/other/alpine/manifests/3.16.0"]
        assert len(fake.token_requests) == 2


def test_a_realm_inside_is_not_a_token_for_the_one_who_named_it(network: Network) -> None:
    """google/kf#1108: the metadata server's answer would be sent to the registry as its Bearer token."""
    realm = "http://metadata.google.internal/computeMetadata/v1/instance/service-accounts/default/token"
    with FakeRegistry(token_field="access_token") as fake, asking({"docker.io": fake}) as asked:
        fake.challenge = f'Bearer realm="{realm}"'
        for _ in range(2):
            with pytest.raises(UpstreamUnavailable, match=r"refused to connect to http://metadata\.google\.internal"):
                asked.registries.manifest(ALPINE.repository, ALPINE, soon())
        assert all("authorization" not in seen.headers for seen in fake.requests)
        assert network.outside == []


@pytest.mark.parametrize("endless", [EndlessBody("length"), EndlessBody("chunked"), EndlessBody("close")], ids=str)
@pytest.mark.parametrize("where", ["/token", ALPINE_PATH])
def test_an_endless_body_ends_at_its_cap(where: str, endless: EndlessBody) -> None:
    """GHSA-f36w-mj3v-6jqv: 4 MiB of a manifest, 64 KiB of a token, however it is framed; no more than that is read."""
    cap = 65_536 if where == "/token" else MAX_BYTES
    with FakeRegistry(token_field="token") as fake, asking({"docker.io": fake}) as asked:
        fake.fault(where, endless)
        with pytest.raises(TlogistryError, match=f"longer than {cap} bytes") as caught:
            asked.registries.manifest(ALPINE.repository, ALPINE, soon(30))
    error: BaseException | None = caught.value
    said = []
    while error is not None:
        said.append(str(error))
        error = error.__cause__
    assert any(text.startswith("the answer of ") and text.endswith(f" is longer than {cap} bytes") for text in said)


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500])
def test_an_endless_body_of_an_error_is_not_read(status: int) -> None:
    """GHSA-f36w-mj3v-6jqv: nothing of an error's body is wanted, so a quarter of a second of it is enough."""
    head = f"HTTP/1.1 {status} X\r\nContent-Length: {1 << 40}\r\n\r\n".encode()
    with FakeRegistry() as fake, asking({"docker.io": fake}) as asked:
        fake.fault(ALPINE_PATH, Raw(head + b" " * 1_000_000))
        with pytest.raises(TlogistryError) as caught:
            asked.registries.manifest(ALPINE.repository, ALPINE, soon(30))
        assert "longer" not in str(caught.value)


@pytest.mark.parametrize(
    "framing", [f"Content-Length: {1 << 40}", "Content-Length: 2000", "Transfer-Encoding: chunked"]
)
def test_an_error_whose_body_does_not_come_is_not_waited_for(framing: str) -> None:
    """GHSA-f36w-mj3v-6jqv: nor can a body that is announced and never sent hold a request until its time is over."""
    head = f"HTTP/1.1 404 X\r\n{framing}\r\n\r\n".encode()
    deadline = soon(60)
    with FakeRegistry() as fake, asking({"docker.io": fake}, limits=Limits(read_s=60.0)) as asked:
        fake.fault(ALPINE_PATH, Raw(head, keep=True))
        with pytest.raises(NotFound):
            asked.registries.manifest(ALPINE.repository, ALPINE, deadline)
    assert not deadline.passed()


def test_a_manifest_may_be_exactly_as_long_as_the_cap() -> None:
    with FakeRegistry() as fake, asking({"docker.io": fake}) as asked:
        for extra in (0, 1):
            content = image("a", size=MAX_BYTES + extra - len(image("a")))
            fake.push("library/alpine", "3.16.0", content, TYPE)
            if extra:
                with pytest.raises(ManifestInvalid, match="longer than"):
                    asked.registries.manifest(ALPINE.repository, ALPINE, soon(30))
            else:
                assert asked.registries.manifest(ALPINE.repository, ALPINE, soon(30)).content == content


def test_endless_headers_end_at_their_cap() -> None:
    """GHSA-f36w-mj3v-6jqv: http.client alone would take 100 headers of 64 KiB each."""
    head = b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: %s\r\n" % (n, b"x" * 60_000) for n in range(50)) + b"\r\n"
    with FakeRegistry() as fake, asking({"docker.io": fake}) as asked:
        fake.fault(ALPINE_PATH, Raw(head))
        with pytest.raises(UpstreamUnavailable, match=r"headers of .* are longer than 65536 bytes"):
            asked.registries.head(ALPINE, soon(30))


# --- nothing of it is repeated to a client ----------------------------------------------------------------------------

SECRET = "ya29.the-secret"
TOKEN_ANSWERS: dict[str, Fault] = {
    "not JSON": Status(200, {"Content-Type": "text/plain", "X-Secret": SECRET}, SECRET.encode()),
    "no token": Status(200, {}, f'{{"error": "{SECRET}"}}'.encode()),
    "unusable token": Status(200, {}, f'{{"token": "{SECRET} {SECRET}"}}'.encode()),
    "metadata": Status(200, {}, f'{{"access_token": ["{SECRET}"]}}'.encode()),
    "401": Status(401, {"WWW-Authenticate": f'Bearer realm="{SECRET}"'}, SECRET.encode()),
    "403": Status(403, {}, SECRET.encode()),
    "429": Status(429, {"Retry-After": SECRET}, SECRET.encode()),
    "500": Status(500, {}, f"<html>{SECRET}</html>".encode()),
    "redirect": Redirect(f"http://169.254.169.254/?{SECRET}"),
}
REGISTRY_ANSWERS: dict[str, Fault] = {
    "page": Status(200, {"Content-Type": "text/html", "X-Secret": SECRET}, f"<html>{SECRET}".encode()),
    "403": Status(403, {"Set-Cookie": SECRET}, f'{{"errors": [{{"message": "{SECRET}"}}]}}'.encode()),
    "404": Status(404, {"Link": SECRET}, f'{{"errors": [{{"message": "{SECRET}"}}]}}'.encode()),
    "429": Status(429, {"Retry-After": SECRET}, SECRET.encode()),
    "500": Status(500, {"Server": SECRET}, SECRET.encode()),
    "realm": Status(401, {"WWW-Authenticate": f'Bearer realm="http://127.0.0.1:1/?{SECRET}"'}, SECRET.encode()),
    "scheme": Status(401, {"WWW-Authenticate": f'{SECRET} realm="x"'}, SECRET.encode()),
    "redirect": Redirect(f"http://169.254.169.254/?{SECRET}"),
    "no URL": Redirect(f"{SECRET} {SECRET}"),
    "reason": Raw(f"HTTP/1.1 500 {SECRET}\r\nContent-Length: 0\r\n\r\n".encode()),
    "no HTTP": Raw(f"{SECRET}\r\n\r\n".encode()),
}


@pytest.mark.parametrize("answer", [*(f"token: {key}" for key in TOKEN_ANSWERS), *REGISTRY_ANSWERS])
def test_what_an_upstream_says_is_not_repeated(world: World, name: str, answer: str) -> None:
    """GHSA-x2f5-332j-9xwq: a client must not read through us what it could not reach itself; nor does our log keep it."""
    digest = world.push(name)
    if answer.startswith("token: "):
        world.registry.fault("/token", TOKEN_ANSWERS[answer.removeprefix("token: ")])
    else:
        world.registry.fault(f"/v2/library/{name}/*", REGISTRY_ANSWERS[answer])
    for path in ("manifests/1.0", f"manifests/{digest}", f"blobs/{digest}"):
        got = world.get(f"/v2/{name}/{path}")
        assert got.status in ({200, 404, 429, 503} if path.startswith("blobs") else {404, 429, 503})
        if got.status == 200:
            assert (answer, path[:5]) == ("page", "blobs"), "a blob is passed through: whoever asks verifies it"
            assert "x-secret" not in got.headers
            continue
        assert got.code in {"UNAVAILABLE", "MANIFEST_UNKNOWN", "BLOB_UNKNOWN", "NAME_UNKNOWN", "TOOMANYREQUESTS"}
        assert SECRET not in got.body.decode() + str(got.headers)
        assert SECRET not in str(world.head(f"/v2/{name}/{path}").headers)
    assert not any(SECRET in line for line in world.function.lines)
