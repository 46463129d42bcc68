"""Calls to Firestore's REST API, v1: their limits, their repetitions, and what an answer means.

https://firebase.google.com/docs/firestore/reference/rest/v1/projects.databases.documents

Only for calls that may be repeated without harm, which the store's two are (`lib/store/firestore.py`): after a lost answer,
429, 5xx or ABORTED a call is sent again, a few times and within its limit. Nothing here means *absent*: a 404 is a failure,
for Firestore says it of a database that is not there. Not here: documents and what is in them.
"""

from __future__ import annotations

import json
import random
import re
import time
from typing import TYPE_CHECKING

from lib.config import strict_json
from lib.errors import StoreUnavailable
from lib.http import BoundedSession, TooLarge
from lib.store.access import BUSY_STATUS, Access, NoAccess

if TYPE_CHECKING:
    from collections.abc import Mapping

    import requests

    from lib.config import FirestoreDatabase

ATTEMPTS = 4  # of one call; two time-outs already use up its limit
BACKOFF_S = 0.1  # seconds at most before the first repetition, then doubled: any part of it, so that a crowd spreads
ANSWER_MAX_BYTES = 1 << 20  # what Firestore allows a document
WORD = re.compile(r"[A-Z][A-Z_]{1,62}", re.ASCII)  # a status or reason: the only text of an error that is passed on

OK, UNAUTHENTICATED, FORBIDDEN, CONFLICT = 200, 401, 403, 409


class _Passing(Exception):
    """One attempt failed; another may not."""


class Calls:
    """Calls to one database. Safe from any thread; connections are kept and used again."""

    def __init__(self, root: str, database: FirestoreDatabase, access: Access, call_s: float, attempt_s: float) -> None:
        """`root` is the service's URL. `call_s` bounds a call with its repetitions, `attempt_s` each of them."""
        self._documents = f"{root}/v1/{database}/documents"
        self._database = database
        self._access = access
        self._call_s = call_s
        self._session = BoundedSession(attempt_s, ANSWER_MAX_BYTES)

    def post(self, path: str, body: Mapping[str, object], permission: str) -> object | None:
        """The JSON that `path` (under the database's documents) answers 200 with; None if what it creates exists already.

        `permission` is what the account needs for it. Raises StoreUnavailable.
        """
        content = json.dumps(body).encode()
        until = time.monotonic() + self._call_s
        attempt = 1
        while True:
            try:
                return self._attempt(path, content, permission, until)
            except _Passing as failure:
                pause = random.uniform(0.0, BACKOFF_S * 2 ** (attempt - 1))  # noqa: S311 - no secret
                if attempt == ATTEMPTS or time.monotonic() + pause >= until:
                    raise self._unavailable(str(failure)) from failure
            time.sleep(pause)
            attempt += 1

    def _attempt(self, path: str, content: bytes, permission: str, until: float) -> object | None:
        try:
            headers = self._access.headers(until)
        except NoAccess as failure:
            if failure.passing:
                raise _Passing(str(failure)) from failure
            raise self._unavailable(str(failure)) from failure
        try:
            response = self._session.post(
                self._documents + path,
                data=content,
                headers={**headers, "Content-Type": "application/json"},  # without it the emulator says 404
                timeout=until - time.monotonic(),
            )
        except TooLarge as error:
            reason = f"its answer is longer than {ANSWER_MAX_BYTES} bytes"
            raise self._unavailable(reason) from error
        except OSError as error:  # what requests raises is one; its text holds the URL
            self._session.close()  # the idle connections are as old: whoever was frozen wakes up with dead ones
            reason = f"no answer ({type(error).__name__})"
            raise _Passing(reason) from error
        if response.status_code == UNAUTHENTICATED:
            self._access.refused(headers)
            reason = "the access token was refused"
            raise _Passing(reason)
        return self._meaning(response, permission)

    def _meaning(self, response: requests.Response, permission: str) -> object | None:
        try:
            answer = strict_json(response.content.decode())
        except ValueError:
            answer = None
        if response.status_code == OK:
            if answer is None:
                reason = "its answer is not JSON"
                raise self._unavailable(reason)
            return answer
        status, why = _error(answer)
        said = " ".join(word for word in (f"HTTP {response.status_code}", status, why) if word)
        if response.status_code in BUSY_STATUS or status == "ABORTED":
            raise _Passing(said)
        if response.status_code == CONFLICT and status == "ALREADY_EXISTS":
            return None
        if response.status_code == FORBIDDEN:
            reason = (
                f"the account needs the permission {permission}, in the role roles/datastore.user for instance ({said})"
            )
        elif status == "NOT_FOUND":
            reason = f"there is no such database ({said})"
        else:
            reason = said
        raise self._unavailable(reason)

    def _unavailable(self, reason: str) -> StoreUnavailable:
        return StoreUnavailable(f"the record store {self._database.database} in Firestore cannot be used: {reason}")


def _error(answer: object) -> tuple[str, str]:
    """The status and the reason of Google's error object, https://google.aip.dev/193; a stream's error is in a list."""
    if isinstance(answer, list) and len(answer) == 1:
        answer = answer[0]
    error = answer.get("error") if isinstance(answer, dict) else None
    if not isinstance(error, dict):
        return "", ""
    details = error.get("details")
    reasons = (
        [detail.get("reason") for detail in details if isinstance(detail, dict)] if isinstance(details, list) else []
    )
    return _word(error.get("status")), next(filter(None, map(_word, reasons)), "")


def _word(value: object) -> str:
    return value if isinstance(value, str) and WORD.fullmatch(value) else ""
