"""Retry-After (RFC 9110, 10.2.3): how long an upstream asks us to wait.

    Retry-After: 120                              Retry-After: Fri, 31 Dec 1999 23:59:59 GMT

A date is measured against the answer's own Date, so that no clock of ours is involved.
"""

from __future__ import annotations

import re
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lib.upstream.answer import Answer

MAX_S = 6 * 3600  # Docker Hub counts pulls over six hours; nobody has a reason to ask for more
SECONDS = re.compile(r"[0-9]{1,9}", re.ASCII)


def retry_after(answer: Answer) -> int | None:
    """Seconds, at least 1, or None if it does not say."""
    value = answer.header("Retry-After")
    if value is None:
        return None
    if SECONDS.fullmatch(value):
        return max(1, min(int(value), MAX_S))
    date = answer.header("Date")
    if date is None:
        return None
    try:
        seconds = (parsedate_to_datetime(value) - parsedate_to_datetime(date)).total_seconds()
    except (ValueError, TypeError, OverflowError, LookupError):  # TypeError: one of them names no time zone
        return None
    return max(1, min(int(seconds), MAX_S))
