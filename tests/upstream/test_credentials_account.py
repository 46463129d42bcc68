"""What is asked with an account: numbers in the names are those of the rules in `lib/upstream/account.py`."""

from __future__ import annotations

import base64
import json
import threading
from typing import TYPE_CHECKING

import pytest

from lib.config import BaseUrl
from lib.errors import NotPublic, RateLimited, UpstreamAnswer, UpstreamUnavailable
from lib.oci.digest import Digest
from lib.oci.reference import Tag
from lib.upstream.account import SHOWN_MAX, SHOWN_S, Shown
from lib.upstream.credentials import MAX_BYTES
from lib.upstream.keyring import AGAIN_S, REFRESH_S, REST_S
from lib.upstream.secret import SecretUnavailable
from tests.clock import Clock
from tests.fakes.registry import (
    CutShort,
    DigestHeader,
    Drop,
    EndlessBody,
    FakeRegistry,
    Hang,
    Html,
    Raw,
    Redirect,
    Status,
    image,
)
from tests.upstream.support import ALPINE, ALPINE_PATH, TYPE, HeldSecret, asking, soon

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lib.oci.manifest import Manifest
    from tests.fakes.registry import Fault
    from tests.upstream.support import Asking

REPOSITORY = ALPINE.repository
MANIFESTS = "/v2/library/alpine/manifests/"
ACCOUNT = {"my-user": "hunter2"}
SECRET = {"docker.io": {"username": "my-user", "password": "hunter2"}}


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


BASIC = basic("my-user", "hunter2")


class Hub:
    """A registry like Docker Hub, which has an account of ours."""

    def __init__(self, fake: FakeRegistry, asked: Asking, secret: HeldSecret, clock: Clock) -> None:
        self.fake, self.asked, self.secret, self.clock = fake, asked, secret, clock
        self.digest = Digest.parse(fake.push("library/alpine", "3.16.0", image("a"), TYPE))

    def get(self, reference: Tag | Digest = ALPINE) -> Manifest:
        return self.asked.registries.manifest(REPOSITORY, reference, soon(20))

    def head(self, tag: Tag = ALPINE) -> Digest | None:
        return self.asked.registries.head(tag, soon(20)).digest

    @property
    def logins(self) -> list[str]:
        """What the token service was given as Authorization, if anything."""
        return [seen.headers["authorization"] for seen in self.fake.token_requests if "authorization" in seen.headers]

    @property
    def calls(self) -> list[str]:
        """`HEAD 3.16.0`, or `GET sha256:… as my-user` if made with the account's token."""
        found = []
        for seen in self.fake.requests:
            holder = self.fake.holder(seen.headers.get("authorization", "").removeprefix("Bearer "))
            name = seen.path.removeprefix(MANIFESTS)[:14]
            found.append(f"{seen.method} {name}" + (f" as {holder}" if holder is not None else ""))
        return found

    @property
    def warnings(self) -> list[object]:
        return [line["message"] for line in self.asked.log if line["severity"] == "WARNING"]


@pytest.fixture
def hub() -> Iterator[Hub]:
    clock, secret = Clock(), HeldSecret(SECRET)
    with (
        FakeRegistry(token_field="token", accounts=dict(ACCOUNT)) as fake,
        asking({"docker.io": fake}, clock=clock.now, secret=secret) as asked,
    ):
        yield Hub(fake, asked, secret, clock)


def short(digest: Digest) -> str:
    return str(digest)[:14]


# What it is for


def test_more_can_be_pulled_than_an_anonymous_client_may(hub: Hub) -> None:
    hub.fake.pulls = 0
    for number in range(3):
        hub.fake.push("library/alpine", f"1.{number}", image(str(number)), TYPE)
        assert hub.get(Tag.of(REPOSITORY, f"1.{number}")).content == image(str(number))
    assert hub.fake.pulled_by_account == 3


def test_a_pull_as_docker_makes_it_costs_no_call_more_than_without_an_account(hub: Hub) -> None:
    hub.head()
    hub.get(hub.digest)
    hub.fake.forget_requests()
    for _ in range(3):
        hub.head()
        assert hub.get(hub.digest).content == image("a")
    assert hub.calls == ["HEAD 3.16.0", f"GET {short(hub.digest)} as my-user"] * 3
    assert hub.fake.token_requests == []


def test_to_be_anonymous_first_costs_one_head_for_each_manifest_and_window(hub: Hub) -> None:
    for _ in range(5):
        hub.get(hub.digest)
    assert hub.fake.count("HEAD") == 2  # one of them without a token
    hub.fake.forget_requests()
    hub.clock.advance(SHOWN_S)
    for _ in range(5):
        hub.get(hub.digest)
    assert (
        len([call for call in hub.calls if call.startswith("HEAD")]) == 1
    )  # with a new token, in place of the expired one
    assert hub.fake.pulled_by_account == 10


def test_the_password_is_sent_once_for_each_token(hub: Hub) -> None:
    for _ in range(5):
        hub.get()
    assert hub.logins == [BASIC]


# 1. Only GETs of manifests


def test_1_heads_and_blobs_are_anonymous(hub: Hub) -> None:
    blob = Digest.parse(hub.fake.push_blob("library/alpine", b"layer"))
    hub.get()
    hub.fake.forget_requests()
    hub.head()
    for head in (True, False):
        stream = hub.asked.registries.blob(REPOSITORY, blob, head=head, range_=None, if_range=None, deadline=soon())
        assert b"".join(getattr(stream, "chunks")()) == (b"" if head else b"layer")  # noqa: B009 - one of two types
    assert [call for call in hub.calls if " as " in call] == []
    assert len(hub.fake.requests) == 3


def test_1_a_manifest_that_is_redirected_is_asked_for_anonymously(hub: Hub) -> None:
    with (
        FakeRegistry() as elsewhere,
        asking({"docker.io": hub.fake, "elsewhere.example": elsewhere}, secret=hub.secret) as asked,
    ):
        elsewhere.push("library/alpine", "3.16.0", image("b"), TYPE)
        hub.fake.fault(ALPINE_PATH, Redirect(f"{elsewhere.base_url}{ALPINE_PATH}"))
        assert asked.registries.manifest(REPOSITORY, ALPINE, soon()).content == image("b")
        assert hub.logins == []


# 2. Only where there is a pair


def test_2_a_registry_that_is_not_in_the_secret_is_asked_anonymously() -> None:
    secret = HeldSecret({"ghcr.io": {"username": "x", "password": "y"}})
    with FakeRegistry(token_field="token") as fake, asking({"docker.io": fake}, secret=secret) as asked:
        fake.push("library/alpine", "3.16.0", image("a"), TYPE)
        assert asked.registries.manifest(REPOSITORY, ALPINE, soon()).content == image("a")
        assert fake.count("HEAD") == 0  # and costs no call more


def test_2_without_a_secret_nothing_changes() -> None:
    with FakeRegistry(token_field="token", accounts=ACCOUNT) as fake, asking({"docker.io": fake}) as asked:
        fake.push("library/alpine", "3.16.0", image("a"), TYPE)
        for _ in range(3):
            asked.registries.manifest(REPOSITORY, ALPINE, soon())
        assert fake.count("HEAD") == 0
        assert fake.pulled_by_account == 0


# 3. Only what an anonymous client is shown


def test_3_a_tag_is_shown_anonymously_each_time(hub: Hub) -> None:
    for _ in range(3):
        hub.get()
    assert hub.calls == [
        "HEAD 3.16.0", "HEAD 3.16.0", f"GET {short(hub.digest)}", f"GET {short(hub.digest)} as my-user",
        "HEAD 3.16.0", f"GET {short(hub.digest)} as my-user",
        "HEAD 3.16.0", f"GET {short(hub.digest)} as my-user",
    ]  # fmt: skip


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_3_what_an_anonymous_request_showed_before_counts(hub: Hub, method: str) -> None:
    if method == "HEAD":
        hub.head()
    else:
        hub.secret.content = {}
        hub.get(hub.digest)
        hub.secret.content = SECRET
        hub.clock.advance(REFRESH_S - 0.1)
        hub.get(hub.digest)
        hub.clock.advance(0.1)
    hub.fake.forget_requests()
    hub.get(hub.digest)
    assert hub.calls[-1] == f"GET {short(hub.digest)} as my-user"
    assert hub.fake.count("HEAD") == 0


def test_3_one_manifest_that_was_shown_says_nothing_of_another(hub: Hub) -> None:
    other = Digest.parse(hub.fake.push("library/alpine", None, image("other"), TYPE))
    hub.get()
    hub.fake.forget_requests()
    hub.fake.fault(f"{MANIFESTS}{other}", Status(401), method="HEAD")
    hub.get(other)
    assert [call for call in hub.calls if " as " in call] == []


def test_3_one_repository_that_was_shown_says_nothing_of_another(hub: Hub) -> None:
    hub.fake.push("library/debian", "1", image("a"), TYPE)  # the same bytes
    hub.fake.private.add("library/debian")
    hub.get()
    with pytest.raises(NotPublic):
        hub.asked.registries.manifest(Tag.parse("debian:1").repository, hub.digest, soon())
    assert {seen.query for seen in hub.fake.token_requests if "authorization" in seen.headers} == {
        "service=fake-registry&scope=repository%3Alibrary%2Falpine%3Apull"
    }


def test_3_a_head_without_a_digest_shows_no_tag(hub: Hub) -> None:
    hub.fake.fault(ALPINE_PATH, DigestHeader(None), method="HEAD")
    assert hub.get().content == image("a")
    assert hub.logins == []


def test_3_a_redirect_shows_nothing(hub: Hub) -> None:
    hub.fake.push("mirror/alpine", "3.16.0", image("a"), TYPE)
    hub.fake.fault(ALPINE_PATH, Redirect("/v2/mirror/alpine/manifests/3.16.0"))
    assert hub.head() == hub.digest  # followed, and so not shown by this repository
    assert hub.get().content == image("a")
    hub.fake.fault(f"{MANIFESTS}{hub.digest}", Status(401), method="HEAD")
    assert hub.get(hub.digest).content == image("a")
    assert hub.logins == []


def test_3_what_was_shown_is_forgotten_after_a_while_and_when_there_is_too_much() -> None:
    clock = Clock()
    shown = Shown(clock.now)
    base = BaseUrl.parse("https://reg.example")
    manifests = [(base, REPOSITORY, Digest.of(str(number).encode())) for number in range(SHOWN_MAX + 1)]
    shown.add(manifests[0])
    assert manifests[0] in shown
    assert manifests[1] not in shown
    clock.advance(SHOWN_S - 1)
    assert manifests[0] in shown
    clock.advance(1)
    assert manifests[0] not in shown
    for manifest in manifests:
        shown.add(manifest)
    assert manifests[0] not in shown
    assert manifests[1] in shown


# 4. What shows nothing


SHOWS_NOTHING: dict[str, Fault] = {
    "401": Status(401),
    "403": Status(403),
    "404": Status(404),
    "405": Status(405),
    "500": Status(500),
    "503": Status(503),
    "204": Status(204),
    "304": Status(304),
    "hangs up": Drop(),
    "no HTTP": Raw(b"hello\r\n\r\n"),
    "redirect to nowhere": Redirect("gopher://x"),
}


@pytest.mark.parametrize("by", ["tag", "digest"])
@pytest.mark.parametrize("what", SHOWS_NOTHING)
def test_4_a_head_that_shows_nothing_leaves_the_request_anonymous(hub: Hub, what: str, by: str) -> None:
    hub.fake.fault("/v2/*", SHOWS_NOTHING[what], method="HEAD")
    assert hub.get(ALPINE if by == "tag" else hub.digest).content == image("a")
    assert hub.logins == []


@pytest.mark.parametrize("where", ["/v2/*", "/token"])
def test_4_an_anonymous_client_that_is_turned_away_is_the_answer(hub: Hub, where: str) -> None:
    hub.fake.fault(where, Status(429, {"Retry-After": "77"}))
    for reference in (ALPINE, hub.digest):
        with pytest.raises(RateLimited) as caught:
            hub.get(reference)
        assert caught.value.retry_after == 77
    assert hub.logins == []
    assert hub.fake.count("GET") == 0


def test_4_a_limit_on_an_anonymous_get_is_no_proof_either(hub: Hub) -> None:
    hub.fake.pulls = 0
    hub.fake.fault("/v2/*", Status(405), method="HEAD")
    with pytest.raises(RateLimited):
        hub.get()
    with pytest.raises(RateLimited):
        hub.get(hub.digest)
    assert hub.logins == []


def test_4_what_was_shown_lately_needs_no_anonymous_request(hub: Hub) -> None:
    hub.get()
    hub.fake.fault("/v2/*", Status(429), method="HEAD")
    assert hub.get(hub.digest).content == image("a")


# 5. The bytes


def test_5_other_bytes_than_were_shown_are_not_taken(hub: Hub) -> None:
    hub.fake.fault(f"{MANIFESTS}{hub.digest}", Status(200, {"Content-Type": TYPE}, image("evil")))
    assert hub.get().content == image("a")  # by an anonymous GET of the tag
    with pytest.raises(UpstreamUnavailable, match="other bytes"):
        hub.get(hub.digest)


def test_5_a_sha512_digest_is_held_to_its_bytes_too(hub: Hub) -> None:
    digest = Digest.of(image("a"), "sha512")
    manifest = hub.get(digest)
    assert (manifest.content, manifest.digest) == (image("a"), digest)
    assert hub.fake.pulled_by_account == 1


# 6. No answer is the worse for it


NO_GOOD: dict[str, Fault] = {
    "401": Status(401),
    "403": Status(403),
    "404": Status(404),
    "429": Status(429),
    "500": Status(500),
    "redirect": Redirect("/v2/x"),
    "page": Html(),
    "endless": EndlessBody(),
    "cut short": CutShort(),
    "hangs up": Drop(),
}


@pytest.mark.parametrize("what", NO_GOOD)
def test_6_a_registry_that_fails_the_account_is_asked_anonymously(hub: Hub, what: str) -> None:
    hub.fake.fault(f"{MANIFESTS}sha256:*", NO_GOOD[what], method="GET")
    assert hub.get().content == image("a")
    assert hub.calls[-1] == "GET 3.16.0"


@pytest.mark.parametrize("what", [*NO_GOOD, "hangs"])
def test_6_a_realm_that_fails_the_account_does_not_fail_the_request(hub: Hub, what: str) -> None:
    hub.head()  # so that the anonymous token is there
    hub.fake.fault("/token", NO_GOOD.get(what, Hang()))
    if what == "hangs":
        assert hub.asked.registries.manifest(REPOSITORY, ALPINE, soon(4)).content == image("a")
    else:
        assert hub.get().content == image("a")
    assert hub.calls[-1] == "GET 3.16.0"
    assert hub.fake.pulled_by_account == 0


def test_6_a_token_that_the_registry_revoked_is_fetched_again(hub: Hub) -> None:
    hub.get()
    hub.fake.revoke()
    hub.get()
    assert hub.logins == [BASIC, BASIC]
    assert hub.fake.pulled_by_account == 2


# The password's life


def test_a_rotated_password_is_used_at_once_when_the_old_one_is_refused(hub: Hub) -> None:
    hub.get()
    hub.fake.accounts = {"my-user": "hunter3"}
    hub.fake.revoke()
    hub.secret.content = {"docker.io": {"username": "my-user", "password": "hunter3"}}
    hub.clock.advance(AGAIN_S)
    hub.fake.pulls = 0
    assert hub.get().content == image("a")
    assert hub.logins == [BASIC, BASIC, basic("my-user", "hunter3")]
    assert hub.fake.pulled_by_account == 2


def test_a_rotated_password_does_not_use_the_old_ones_token(hub: Hub) -> None:
    hub.fake.expires_in = 3600
    hub.get()
    hub.fake.accounts = {"my-user": "hunter2", "another": "hunter3"}
    hub.secret.content = {"docker.io": {"username": "another", "password": "hunter3"}}
    hub.clock.advance(REFRESH_S - 20)
    hub.get()
    assert hub.calls[-1].endswith("as my-user")
    hub.clock.advance(20)
    hub.get()
    assert hub.calls[-1].endswith("as another")


def test_a_wrong_password_is_tried_once_and_then_rests(hub: Hub) -> None:
    hub.secret.content = {"docker.io": {"username": "my-user", "password": "wrong"}}
    for _ in range(10):
        assert hub.get().content == image("a")
    assert hub.logins == [basic("my-user", "wrong")]
    assert hub.warnings == ["upstream credentials refused"]
    assert hub.secret.reads == 1
    hub.clock.advance(REST_S)
    hub.get()
    assert len(hub.logins) == 2


def test_two_wrong_passwords_in_a_row_are_two_attempts_and_no_more(hub: Hub) -> None:
    hub.secret.content = {"docker.io": {"username": "my-user", "password": "wrong"}}
    hub.get()
    hub.secret.content = {"docker.io": {"username": "my-user", "password": "as wrong"}}
    hub.clock.advance(REST_S)  # and the secret is read again by then
    hub.get()
    hub.get()
    assert hub.logins == [basic("my-user", "wrong"), basic("my-user", "as wrong")]


def test_an_account_that_is_taken_away_is_not_used_any_more(hub: Hub) -> None:
    hub.get()
    hub.secret.content = {}
    hub.clock.advance(REFRESH_S)
    hub.fake.forget_requests()
    hub.get()
    assert hub.logins == []
    assert [call for call in hub.calls if " as " in call] == []


UNUSABLE = {
    "bad JSON": b"{",
    "missing": SecretUnavailable("there is no such secret"),
    "too large": b" " * MAX_BYTES * 2,
}


@pytest.mark.parametrize("what", UNUSABLE)
def test_a_secret_that_cannot_be_used_makes_us_anonymous_and_one_warning(hub: Hub, what: str) -> None:
    hub.secret.content = UNUSABLE[what]
    for _ in range(20):
        assert hub.get().content == image("a")
    assert hub.warnings == ["upstream credentials not read; everything is asked anonymously"]
    assert hub.logins == []
    assert hub.fake.count("HEAD") == 0


def test_a_secret_that_can_no_longer_be_read_leaves_the_account(hub: Hub) -> None:
    hub.get()
    hub.secret.content = SecretUnavailable("no answer")
    for _ in range(3):
        hub.clock.advance(REFRESH_S)
        hub.get()
    assert hub.fake.pulled_by_account == 4
    assert hub.warnings == ["upstream credentials not read; the ones that were read before stay"]


def test_neither_password_nor_token_is_in_any_log_line_error_or_repr(hub: Hub) -> None:
    errors = [hub.get().content.decode()]
    hub.secret.content = b'{"docker.io": {"username": "my-user", "password": "hunter2"'
    hub.clock.advance(REFRESH_S)
    faults = (*NO_GOOD.values(), *SHOWS_NOTHING.values())
    for fault in faults:
        for where in ("/v2/*", f"{MANIFESTS}sha256:*", "/token"):
            hub.fake.heal()
            hub.head()  # so that the anonymous token is there
            hub.fake.fault(where, fault)
            try:
                hub.get()
            except (UpstreamAnswer, UpstreamUnavailable) as error:
                chain: BaseException | None = error
                while chain is not None:
                    errors.append(f"{chain} {chain!r}")
                    chain = chain.__cause__ or chain.__context__
            hub.clock.advance(REST_S)
    shown = json.dumps(hub.asked.log) + " ".join(errors) + repr(hub.asked.registries)
    assert len(hub.logins) > len(faults)
    tokens = {
        seen.headers["authorization"].partition(" ")[2]
        for seen in (*hub.fake.requests, *hub.fake.token_requests)
        if "authorization" in seen.headers
    }
    for secret in ("hunter2", "my-user", *tokens):
        assert secret not in shown


def test_many_at_once_use_the_account_and_never_too_early(hub: Hub) -> None:
    hub.fake.private.add("library/private")
    private = Digest.parse(hub.fake.push("library/private", "1", image("private"), TYPE))
    failures: list[BaseException] = []

    def pull(number: int) -> None:
        try:
            for _ in range(5):
                assert hub.get(ALPINE if number % 2 else hub.digest).content == image("a")
                with pytest.raises(NotPublic):
                    hub.asked.registries.manifest(Tag.parse("private:1").repository, private, soon(20))
        except BaseException as error:  # noqa: BLE001 - shown by the test
            failures.append(error)

    threads = [threading.Thread(target=pull, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    for seen in hub.fake.requests:
        if hub.fake.holder(seen.headers.get("authorization", "").removeprefix("Bearer ")) is not None:
            assert seen.path == f"{MANIFESTS}{hub.digest}"
            assert seen.method == "GET"
