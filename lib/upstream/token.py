"""Tokens: fetched where a challenge says, kept for the origin that challenged, and shown to nobody else.

    GET https://auth.docker.io/token?service=registry.docker.io&scope=repository%3Alibrary%2Falpine%3Apull
    {"token": "…", "access_token": "…", "expires_in": 300}

A realm on another host is normal (vanity domains, Hub itself) and harmless to an anonymous client, which has nothing to
lose; where it may be is the guard's business. The request says nothing about our client, and the answer's text is never
repeated. Not here: when to ask (`client.py`), and which realm may be shown a password (`account.py`, which asks before it
comes here).
"""

from __future__ import annotations

import json
import re
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from lib.errors import NotPublic, UpstreamUnavailable
from lib.upstream.flight import Flights
from lib.upstream.meaning import rate_limited
from lib.upstream.url import Url, authority

if TYPE_CHECKING:
    from collections.abc import Callable

    from lib.config import BaseUrl
    from lib.deadline import Deadline
    from lib.upstream.challenge import Challenge
    from lib.upstream.credentials import Credential
    from lib.upstream.guard import Guard
    from lib.upstream.limits import Limits
    from lib.upstream.transport import Transport

DEFAULT_LIFE_S = 60  # "expires_in": at least 60 where it is not said (distribution "Token Authentication")
MAX_LIFE_S = 86_400
EARLY = 0.1  # the share of a life that is given away, so that no token expires on its way
EARLY_MAX_S = 10.0
SECONDS = re.compile(r"[0-9]{1,9}", re.ASCII)
TOKEN = re.compile(r"[!-~]+", re.ASCII)  # what may stand in a header


@dataclass(frozen=True, slots=True)
class Audience:
    """Whose token it is: the registry we were asked for, the origin that challenged, the repository there, and for whom."""

    registry: str
    origin: BaseUrl
    repository: str
    account: Credential | None = None  # a rotated password has tokens of its own


class TokenSource(Protocol):
    """What a conversation needs: a token at hand, a new one after a 401, and to say that one did not help."""

    def held(self, whose: Audience) -> str | None:
        """The token, if there is one that has not expired."""
        ...

    def forget(self, whose: Audience, token: str) -> None:
        """The origin did not take this one."""
        ...

    def fetch(self, whose: Audience, challenge: Challenge, guard: Guard, deadline: Deadline) -> str:
        """A new one. Raises NotPublic, RateLimited, UpstreamUnavailable, DeadlineExceeded."""
        ...


@dataclass(frozen=True, slots=True)
class _Grant:
    token: str = field(repr=False)
    until: float


class Tokens:
    """Tokens by whose they are. Bounded; safe from any thread. Threads that want one token make one call for it."""

    def __init__(self, transport: Transport, clock: Callable[[], float], limits: Limits) -> None:
        """`clock` is monotonic, in seconds."""
        self._transport = transport
        self._clock = clock
        self._limits = limits
        self._lock = threading.Lock()
        self._grants: OrderedDict[Audience, _Grant] = OrderedDict()
        self._flights = Flights[str](limits)

    def held(self, whose: Audience) -> str | None:
        """The token, if there is one that has not expired."""
        with self._lock:
            grant = self._grants.get(whose)
            if grant is None:
                return None
            if self._clock() >= grant.until:
                del self._grants[whose]
                return None
            self._grants.move_to_end(whose)
            return grant.token

    def forget(self, whose: Audience, token: str) -> None:
        """The origin did not take this one; a newer one, which somebody else fetched meanwhile, stays."""
        with self._lock:
            grant = self._grants.get(whose)
            if grant is not None and grant.token == token:
                del self._grants[whose]

    def fetch(
        self,
        whose: Audience,
        challenge: Challenge,
        guard: Guard,
        deadline: Deadline,
        authorization: str | None = None,
    ) -> str:
        """Ask the challenge's realm, and keep what it gives. `authorization` is sent to it as it is; no redirect is followed.

        Raises NotPublic, RateLimited, UpstreamUnavailable (Refused, if the guard does not allow the realm),
        DeadlineExceeded.
        """
        return self._flights.share(
            (whose, challenge, guard, authorization),
            lambda: self._fetch(whose, challenge, guard, deadline, authorization),
            deadline,
        )

    def _fetch(
        self, whose: Audience, challenge: Challenge, guard: Guard, deadline: Deadline, authorization: str | None
    ) -> str:
        try:
            url = Url.parse(challenge.realm)
        except ValueError as error:
            msg = f"{authority(whose.origin)} names a token service that is {error}"
            raise UpstreamUnavailable(msg) from error
        service = [("service", challenge.service)] if challenge.service else []
        url = url.with_query([*service, ("scope", scope(challenge.scope, whose.repository))])
        asked = self._clock()
        headers = {"Accept": "application/json"}
        if authorization is not None:
            headers["Authorization"] = authorization
        answer = self._transport.call("GET", url, headers, guard, deadline)
        if answer.status != 200:  # noqa: PLR2004 - HTTP's own number
            answer.discard(self._limits)
            host = authority(url.origin)
            if answer.status in {401, 403}:
                whom = "anonymous token" if authorization is None else "token to our account"
                msg = f"{host} gives no {whom} for {whose.repository}: not public, or not there"
                raise NotPublic(msg)
            if answer.status == 429:  # noqa: PLR2004 - HTTP's own number
                raise rate_limited(answer, f"the token service {host} asks to wait")
            msg = f"the token service {host} answered {answer.status}"
            raise UpstreamUnavailable(msg)
        token, life_s = _parse(answer.read(self._limits.token_bytes), authority(url.origin), self._limits.token_chars)
        self._keep(whose, _Grant(token, asked + life_s - min(life_s * EARLY, EARLY_MAX_S)))
        return token

    def _keep(self, whose: Audience, grant: _Grant) -> None:
        with self._lock:
            self._grants[whose] = grant
            self._grants.move_to_end(whose)
            while len(self._grants) > self._limits.tokens:
                self._grants.popitem(last=False)


def scope(offered: str | None, repository: str) -> str:
    """The challenge's scope if it asks exactly for pulling this repository, else our own words for that.

    Some registries put a placeholder or another repository's name there, or ask for push.
    """
    ours = f"repository:{repository}:pull"
    if offered is not None and re.fullmatch(
        rf"repository(\([a-z]+\))?:{re.escape(repository)}:pull", offered, re.ASCII
    ):
        return offered
    return ours


def _parse(content: bytes, host: str, max_chars: int) -> tuple[str, float]:
    """The token and its life in seconds. Raises UpstreamUnavailable."""
    try:
        document = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        msg = f"the token service {host} did not answer with JSON"
        raise UpstreamUnavailable(msg) from error
    fields = document if isinstance(document, dict) else {}
    token = fields.get("token") or fields.get("access_token")
    if not isinstance(token, str) or len(token) > max_chars or not TOKEN.fullmatch(token):
        msg = f"the token service {host} gave no usable token"
        raise UpstreamUnavailable(msg)
    return token, _life(fields.get("expires_in"))


def _life(said: object) -> float:
    """Seconds. Some write the number as text."""
    if isinstance(said, str) and SECONDS.fullmatch(said):
        said = int(said)
    if isinstance(said, bool) or not isinstance(said, int | float) or said != said:  # noqa: PLR0124 - NaN
        return float(DEFAULT_LIFE_S)
    return float(max(0, min(said, MAX_LIFE_S)))
