"""Who we are to Firestore: an access token of the ambient Google account, or the emulator's fixed one.

google-auth finds the account (a key file that GOOGLE_APPLICATION_CREDENTIALS names, gcloud's login on a laptop, the metadata
server on Cloud Run) and knows how to ask for its token. Its `AuthorizedSession` is not used (docs/adr/0005): its time-outs
are 120 s, it sleeps up to 15 s between tries, refreshes from all threads at once, and starts a thread of its own that asks a
third service. Here a token is asked for once at a time, each question once and within the time of the call that needs it.

The token is a secret: it goes into the one header, no log line and no error holds it.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Protocol

from lib.http import BoundedSession

if TYPE_CHECKING:
    from collections.abc import Mapping

    from google.auth.credentials import Credentials

SCOPE = "https://www.googleapis.com/auth/datastore"  # Cloud Run's metadata server gives no more than was asked for
TOKEN_S = 3.0  # seconds for each question; the metadata server is on the same host
TOKEN_MAX_BYTES = 65_536
BUSY_STATUS = frozenset({408, 429, 500, 502, 503, 504})


class NoAccess(Exception):
    """There is no token; `passing`: it may be there if it is asked for again."""

    def __init__(self, reason: str, *, passing: bool) -> None:
        """Keep whether to ask again beside the reason."""
        super().__init__(reason)
        self.passing = passing


class Access(Protocol):
    """Where the headers that authorise a call come from. Safe from any thread."""

    def headers(self, until: float) -> dict[str, str]:
        """The headers, before `until` on the monotonic clock. Raises NoAccess."""

    def refused(self, headers: Mapping[str, str]) -> None:
        """These headers were answered 401: do not give them out again."""


class EmulatorAccess:
    """The emulator takes this word for everybody's; it means nothing anywhere else."""

    def headers(self, _until: float) -> dict[str, str]:
        """See Access."""
        return {"authorization": "Bearer owner"}

    def refused(self, headers: Mapping[str, str]) -> None:
        """See Access."""


class GoogleAccess:
    """The ambient account's. google-auth is imported and asked when the first call needs a token, not before."""

    def __init__(self) -> None:
        """Nothing is asked yet."""
        self._lock = threading.Lock()  # google-auth's credentials have none: they are touched by one thread at a time
        self._session = BoundedSession(TOKEN_S, TOKEN_MAX_BYTES)
        self._credentials: Credentials | None = None
        self._refused = ""  # the header of the last token that was not accepted

    def headers(self, until: float) -> dict[str, str]:
        """See Access."""
        from google.auth.exceptions import GoogleAuthError  # noqa: PLC0415 - a cold start that needs no token skips it

        if not self._lock.acquire(timeout=max(0.0, until - time.monotonic())):
            reason = "no access token in time"
            raise NoAccess(reason, passing=True)
        try:
            return self._headers(_Question(self._session, until))
        except (GoogleAuthError, ValueError, LookupError, TypeError, AttributeError, OSError) as error:
            reason = f"no access token ({type(error).__name__})"  # google-auth's own text holds URLs and bodies
            raise NoAccess(reason, passing=False) from error
        finally:
            self._lock.release()

    def _headers(self, question: _Question) -> dict[str, str]:
        import google.auth  # noqa: PLC0415 - as above

        if self._credentials is None:
            self._credentials, _ = google.auth.default(scopes=[SCOPE], request=question)  # type: ignore[arg-type] # it calls it
        if not self._credentials.valid or f"Bearer {self._credentials.token}" == self._refused:
            self._credentials.refresh(question)  # type: ignore[no-untyped-call]
        headers: dict[str, str] = {}
        self._credentials.apply(headers)  # type: ignore[no-untyped-call]
        return headers

    def refused(self, headers: Mapping[str, str]) -> None:
        """See Access."""
        self._refused = headers["authorization"]


class _Answer:
    """As much of an HTTP answer as google-auth reads."""

    __slots__ = ("data", "headers", "status")

    def __init__(self, status: int, headers: Mapping[str, str], data: bytes) -> None:
        self.status = status
        self.headers = headers
        self.data = data


class _Question:
    """google-auth's transport: what it asks, once and in time.

    What may pass is raised as NoAccess, which google-auth lets through: its own repetitions would sleep for longer than
    the call may take.
    """

    def __init__(self, session: BoundedSession, until: float) -> None:
        self._session = session
        self._until = until

    def __call__(
        self,
        url: str,
        method: str = "GET",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        **_: object,
    ) -> _Answer:
        left = self._until - time.monotonic()
        if left <= 0.0:
            reason = "no access token in time"
            raise NoAccess(reason, passing=True)
        limit = min(left, timeout or TOKEN_S)
        try:
            response = self._session.request(method, url, data=body, headers=headers, timeout=limit)
        except OSError as error:  # what requests raises is one
            reason = f"no access token: no answer ({type(error).__name__})"
            raise NoAccess(reason, passing=True) from error
        if response.status_code in BUSY_STATUS:
            reason = f"no access token: HTTP {response.status_code}"
            raise NoAccess(reason, passing=True)
        return _Answer(response.status_code, response.headers, response.content)
