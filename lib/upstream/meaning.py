"""What a registry's status means when it is no content: one row for each error of `lib/errors.py`; and its digest header.

    404         NotFound                  401, 403    NotPublic (the token, if it wanted one, did not help)
    429         RateLimited               the rest    UpstreamUnavailable, naming host and status

Nothing of an error's body is read for its meaning, or repeated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lib.errors import DigestInvalid, NotFound, NotPublic, RateLimited, TlogistryError, UpstreamUnavailable
from lib.oci.digest import Digest
from lib.upstream.retry_after import retry_after

if TYPE_CHECKING:
    from lib.upstream.answer import Answer

OK = 200
NOT_FOUND = 404
TOO_MANY_REQUESTS = 429
NOT_IMPLEMENTED = 501
# Docker Hub's, on the answers to GET and HEAD alike
LIMITS = ("RateLimit-Limit", "RateLimit-Remaining", "Docker-RateLimit-Source")


def meaning(answer: Answer, what: str) -> TlogistryError:
    """The error that an answer without content stands for; `what` is what was asked for, in the client's words."""
    match answer.status:
        case 404:
            return NotFound(f"{answer.host} does not have {what}")
        case 401 | 403:
            return NotPublic(f"{answer.host} does not serve {what} without an account: not public, or not there")
        case 429:
            return rate_limited(answer, f"{answer.host} asks to wait")
        case _:
            return UpstreamUnavailable(f"{answer.host} answered {answer.status} for {what}")


def rate_limited(answer: Answer, message: str) -> RateLimited:
    """A 429 with what its headers say."""
    limits = {name: value for name in LIMITS if (value := answer.header(name)) is not None}
    return RateLimited(message, retry_after(answer), limits)


def claimed_digest(answer: Answer) -> Digest | None:
    """What an answer's header claims. Tags are recorded by sha256 only, so another algorithm is no hint."""
    header = answer.header("Docker-Content-Digest")
    try:
        digest = Digest.parse(header) if header is not None else None
    except DigestInvalid:
        return None
    return digest if digest is not None and digest.algorithm == "sha256" else None


def refuses_head(status: int) -> bool:
    """Some registries answer a HEAD with 401, 403 or 405 where a GET works."""
    return status == NOT_IMPLEMENTED or (status in range(400, 500) and status not in {NOT_FOUND, TOO_MANY_REQUESTS})
