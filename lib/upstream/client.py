"""A conversation with one registry: first without a token, with one on 401, redirects followed only where they must be.

    1. ask; a token that is held for this very origin and repository goes along
       if one has expired, a new one is fetched as the last challenge said, before the registry is asked
    2. 401: find the Bearer challenge (if the answer has none at all: in that of `/v2/`), fetch a token, ask once more
    3. a redirect that is to be followed inside: start again at 1 on the new origin, which has tokens of its own or none

Every address in it (realm, redirect) is checked afresh by the guard. Not here: what the last status means
(`registry.py`).
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lib.errors import NotPublic, UpstreamUnavailable
from lib.oci.manifest import ACCEPT
from lib.oci.reference import PATH
from lib.upstream.challenge import Challenge
from lib.upstream.meaning import meaning
from lib.upstream.token import Audience
from lib.upstream.url import Url, authority

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lib.config import BaseUrl
    from lib.deadline import Deadline
    from lib.telemetry import Telemetry
    from lib.upstream.answer import Answer
    from lib.upstream.guard import Guard
    from lib.upstream.limits import Limits
    from lib.upstream.token import TokenSource
    from lib.upstream.transport import Method, Transport

REDIRECTS = frozenset({301, 302, 303, 307, 308})
RESOURCE = re.compile(rf"/v2/({PATH.pattern})/(?:(?:manifests|blobs|referrers)/[^/]+|tags/list)", re.ASCII)
API = "/v2/"
ACCEPT_MANIFESTS = {"Accept": ACCEPT}
UNAUTHORIZED = 401
REFUSALS = frozenset({401, 403})
SAYS_WHO = frozenset({200, 401, 403, 404, *REDIRECTS})  # what an answer to `/v2/` that is no outage may be


@dataclass(frozen=True, slots=True)
class Site:
    """A registry as we reach it: its canonical name, where it is, and what its requests may reach."""

    registry: str
    base: BaseUrl
    guard: Guard


def in_registry(url: Url) -> bool:
    """Whether a URL is part of a registry's API, where a client of ours could not authenticate."""
    return url.path.startswith(API)


def anywhere(_: Url) -> bool:
    """Follow every redirect."""
    return True


def nowhere(_: Url) -> bool:
    """Follow none."""
    return False


class RegistryClient:
    """What `Registries` asks through. Safe from any thread."""

    def __init__(self, transport: Transport, tokens: TokenSource, telemetry: Telemetry, limits: Limits) -> None:
        """All shared by all registries. Whose tokens they are makes the client anonymous, or not (`account.py`)."""
        self._transport = transport
        self._tokens = tokens
        self._telemetry = telemetry
        self._limits = limits
        self._lock = threading.Lock()
        self._challenges: OrderedDict[Audience, Challenge] = OrderedDict()  # those whose tokens helped

    def ask(  # noqa: PLR0913 - one request
        self,
        site: Site,
        method: Method,
        target: str,
        headers: Mapping[str, str],
        deadline: Deadline,
        *,
        follow: Callable[[Url], bool],
        renews: bool = True,
    ) -> tuple[Answer, Url]:
        """The last answer and the URL that gave it; a redirect that `follow` does not want is such an answer.

        Without `renews`, a HEAD that is refused with a token at hand is an answer, too: so do registries that refuse it always.
        Raises NotPublic, RateLimited, UpstreamUnavailable, DeadlineExceeded.
        """
        url = Url(site.base, target)
        for _ in range(self._limits.redirects + 1):
            answer = self._authorized(site, method, url, headers, deadline, renews=renews)
            next_url = redirect(answer, url, self._limits)
            if next_url is None or not follow(next_url):
                return answer, url
            answer.discard(self._limits)
            url = next_url
        msg = f"{authority(site.base)} redirects more than {self._limits.redirects} times"
        raise UpstreamUnavailable(msg)

    def _authorized(  # noqa: PLR0913 - one request, and how it can end
        self,
        site: Site,
        method: Method,
        url: Url,
        headers: Mapping[str, str],
        deadline: Deadline,
        *,
        renews: bool,
    ) -> Answer:
        match = RESOURCE.fullmatch(url.path)
        if match is None:  # storage, or a page: no place for a token of ours
            return self._call(site, method, url, headers, deadline)
        whose = Audience(site.registry, url.origin, match[1])
        token = self._tokens.held(whose) or self._renewed(whose, site, deadline)
        sent = {**headers, "Authorization": f"Bearer {token}"} if token is not None else headers
        answer = self._call(site, method, url, sent, deadline)
        if answer.status != UNAUTHORIZED:
            return answer
        answer.discard(self._limits)
        if token is not None:
            if method == "HEAD" and not renews:
                return answer
            self._tokens.forget(whose, token)
        challenge = self._challenge(site, url, answer, deadline)
        if challenge is None:
            if method == "HEAD":  # perhaps only that is refused; if not, the GET will say so
                return answer
            msg = f"{authority(url.origin)} does not serve {whose.repository} without an account: not public, or not there"
            raise NotPublic(msg)
        newer = self._tokens.held(whose)  # somebody else may have fetched one meanwhile
        if newer is not None:
            answer = self._with_token(site, method, url, headers, whose, newer, deadline)
            if answer.status != UNAUTHORIZED:
                return answer
            answer.discard(self._limits)
        token = self._tokens.fetch(whose, challenge, site.guard, deadline)
        answer = self._with_token(site, method, url, headers, whose, token, deadline)
        if answer.status not in REFUSALS:
            self._remember(whose, challenge)
        return answer

    def _renewed(self, whose: Audience, site: Site, deadline: Deadline) -> str | None:
        """A new token in place of one that helped and has expired; None if there was none, or there is no other to be had."""
        with self._lock:
            challenge = self._challenges.get(whose)
        if challenge is None:
            return None
        try:
            token = self._tokens.fetch(whose, challenge, site.guard, deadline)
        except (NotPublic, UpstreamUnavailable):  # that was then: the registry will say where tokens are now
            with self._lock:
                self._challenges.pop(whose, None)
            return None
        self._remember(whose, challenge)
        return token

    def _remember(self, whose: Audience, challenge: Challenge) -> None:
        with self._lock:
            self._challenges[whose] = challenge
            self._challenges.move_to_end(whose)
            while len(self._challenges) > self._limits.tokens:
                self._challenges.popitem(last=False)

    def _with_token(  # noqa: PLR0913, PLR0917 - one request
        self,
        site: Site,
        method: Method,
        url: Url,
        headers: Mapping[str, str],
        whose: Audience,
        token: str,
        deadline: Deadline,
    ) -> Answer:
        answer = self._call(site, method, url, {**headers, "Authorization": f"Bearer {token}"}, deadline)
        if answer.status == UNAUTHORIZED and method != "HEAD":  # 403 and a refused HEAD say nothing about the token
            self._tokens.forget(whose, token)
        return answer

    def _call(self, site: Site, method: Method, url: Url, headers: Mapping[str, str], deadline: Deadline) -> Answer:
        """One call; its status is the registry's last, whatever comes of it."""
        answer = self._transport.call(method, url, headers, site.guard, deadline)
        self._telemetry.upstream_status(answer.status)
        return answer

    def _challenge(self, site: Site, url: Url, answer: Answer, deadline: Deadline) -> Challenge | None:
        """gcr.io was seen to answer 401 without a challenge: then the one of `/v2/`, whose scope is a placeholder."""
        lines = answer.header_lines("WWW-Authenticate")
        if lines:
            return Challenge.find(lines)
        ping = self._transport.call("GET", Url(url.origin, API), {}, site.guard, deadline)
        ping.discard(self._limits)
        if ping.status not in SAYS_WHO:
            raise meaning(ping, f"where tokens for {url.path} are")
        return Challenge.find(ping.header_lines("WWW-Authenticate")) if ping.status == UNAUTHORIZED else None


def redirect(answer: Answer, url: Url, limits: Limits) -> Url | None:
    """Where an answer sends us, resolved against the URL that gave it; None if it is no redirect.

    Raises UpstreamUnavailable if what it names is not a plain URL.
    """
    location = answer.header("Location") if answer.status in REDIRECTS else None
    if location is None:
        return None
    try:
        return url.join(location)
    except ValueError as error:
        answer.discard(limits)
        msg = f"{authority(url.origin)} redirects to something that is {error}"
        raise UpstreamUnavailable(msg) from error
