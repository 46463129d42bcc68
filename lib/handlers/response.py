"""From values to the wire: the one place where a verdict, a manifest or an error becomes status, headers and body.

Errors are always `{"errors": [one]}` as application/json with a code of the distribution-spec, or TAG_INVALID and UNAVAILABLE.
403 and not 400 for a moved tag: containerd and newer Docker show the message only then.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lib.errors import (
    DigestInvalid,
    InputInvalid,
    Loop,
    ManifestInvalid,
    NameInvalid,
    NoReferrers,
    NotFound,
    NotPublic,
    ParameterInvalid,
    PathInvalid,
    RateLimited,
    TagSyntaxInvalid,
    TlogistryError,
    TooManyNew,
    Unavailable,
)
from lib.oci import error as oci_error
from lib.oci.error import Code
from lib.oci.reference import is_host

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from lib.oci.digest import Digest
    from lib.oci.reference import Tag
    from lib.recorder import Moved
    from lib.sighting.sighting import Sighting

JSON = "application/json"
ALLOWED = "GET, HEAD"
IMMUTABLE = "public, max-age=31536000, immutable"  # contents by digest never change
NO_STORE = "no-store"  # a verdict is for this request alone
HOST = re.compile(r"[A-Za-z0-9.\-]{1,253}(:[0-9]{1,5})?|\[[0-9a-fA-F:.]{2,45}\](:[0-9]{1,5})?", re.ASCII)
WAIT_S = 60  # where a registry asks us to wait and does not say how long: nothing shorter would help


@dataclass(frozen=True, slots=True)
class Response:
    """An answer before it meets the web framework. `body` is bytes, or chunks of a stream that closes itself."""

    status: int
    headers: Mapping[str, str]
    body: bytes | Iterator[bytes] = b""
    verdict: str | None = field(default=None, compare=False)  # for the log line of a request by tag
    reason: str | None = field(default=None, compare=False)


def time_text(time: datetime) -> str:
    """RFC 3339 in UTC with `Z`, whole seconds as in the log."""
    return f"{time:%Y-%m-%dT%H:%M:%SZ}"


def json_response(status: int, value: object, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON body, with a length and no charset."""
    body = json.dumps(value, ensure_ascii=False).encode()
    return Response(status, {"Content-Type": JSON, "Content-Length": str(len(body)), **(headers or {})}, body)


def manifest_headers(media_type: str, length: int, digest: Digest) -> dict[str, str]:
    """What every manifest answer carries, on GET and HEAD alike (distribution-spec, "Pulling manifests")."""
    return {
        "Content-Type": media_type,
        "Content-Length": str(length),
        "Docker-Content-Digest": str(digest),
        "ETag": f'"{digest}"',
    }


def sighting_headers(sighting: Sighting, *, first_seen: bool) -> dict[str, str]:
    """Where the entry is."""
    headers = {
        "Tlog-Integratedtime": time_text(sighting.integrated_time),
        "Tlog-Logindex": str(sighting.log_index),
        "Tlog-Uuid": sighting.uuid,
    }
    if first_seen:
        headers["Tlog-First-Seen"] = "true"
        headers["Warning"] = (
            f'299 - "first time that {sighting.tag.familiar} was asked for: what it points to was recorded '
            f'in the transparency log at index {sighting.log_index}"'
        )
    return headers


def reached(host: str) -> str:
    """How a client can name us in a command: without a dot or port we would be the first part of a name at Docker Hub."""
    if HOST.fullmatch(host) is None:
        return "HOST"
    return host if is_host(host) else f"{host}:80"


def moved(verdict: Moved, host: str) -> Response:
    """403 TAG_INVALID: the refusal that carries its evidence. `host` is how the client addressed us."""
    sighting, tag = verdict.sighting, verdict.sighting.tag
    message = f'tag "{tag.familiar}" mismatch; got "{verdict.offered}", want "{sighting.digest}"'
    detail = {
        "tag": str(tag),
        "recorded": str(sighting.digest),
        "offered": str(verdict.offered),
        "logIndex": sighting.log_index,
        "uuid": sighting.uuid,
        "integratedTime": time_text(sighting.integrated_time),
        "pull": f"docker pull {host}/{_name(tag)}@{sighting.digest}",
    }
    headers = {**sighting_headers(sighting, first_seen=False), "Cache-Control": NO_STORE}
    reason = f"got {verdict.offered}, want {sighting.digest}"
    return _refusal(403, Code.TAG_INVALID, message, detail, headers, verdict="moved", reason=reason)


def _name(tag: Tag) -> str:
    return tag.familiar.rpartition(":")[0]


def error(failure: TlogistryError) -> Response:  # noqa: C901, PLR0911, PLR0912 - one row of the table each
    """The wire form of every error that is raised on purpose. `docs/request-handling.md` has the table."""
    text = str(failure)
    match failure:
        case NameInvalid():
            return _refusal(400, Code.NAME_INVALID, text, verdict="refused", reason=text)
        case TagSyntaxInvalid():
            return _refusal(404, Code.MANIFEST_UNKNOWN, text)
        case DigestInvalid():
            return _refusal(400, Code.DIGEST_INVALID, text)
        case ParameterInvalid():
            return _refusal(400, Code.UNSUPPORTED, text)
        case PathInvalid() | InputInvalid():
            return _refusal(404, Code.NAME_UNKNOWN, text)
        case NotPublic():
            return _refusal(404, Code.NAME_UNKNOWN, text, verdict="not public")
        case NotFound():
            return _refusal(404, Code.MANIFEST_UNKNOWN, text, verdict="not found")
        case ManifestInvalid():
            return _refusal(400, Code.MANIFEST_INVALID, text, verdict="no manifest", reason=text)
        case NoReferrers():
            return _no_referrers(failure)
        case RateLimited():
            after = failure.retry_after if failure.retry_after is not None else WAIT_S
            wait = {"Retry-After": str(after), **failure.limits}
            return _refusal(429, Code.TOOMANYREQUESTS, text, headers=wait, verdict="rate limited")
        case TooManyNew():
            wait = {"Retry-After": str(failure.retry_after)}
            return _refusal(429, Code.TOOMANYREQUESTS, text, headers=wait, verdict="too many new", reason=text)
        case Loop():
            return _refusal(508, Code.UNSUPPORTED, text, verdict="refused", reason=text)
        case Unavailable():
            wait = {"Retry-After": str(failure.retry_after)}
            return _refusal(503, Code.UNAVAILABLE, text, headers=wait, verdict="could not tell", reason=text)
        case _:
            return internal()


def unknown_blob(failure: NotFound) -> Response:
    """404 for a blob."""
    return _refusal(404, Code.BLOB_UNKNOWN, str(failure))


def _no_referrers(failure: NoReferrers) -> Response:
    """The registry's own 4xx, because clients look at the fall-back tag for some of them. NAME_UNKNOWN stops them."""
    known = {400: Code.UNSUPPORTED, 404: Code.NAME_UNKNOWN if failure.name_unknown else Code.MANIFEST_UNKNOWN}
    return _refusal(failure.status, known.get(failure.status, Code.UNSUPPORTED), str(failure))


def unknown_name(failure: NotFound) -> Response:
    """404 for a list of tags: it is the repository that is not there."""
    return _refusal(404, Code.NAME_UNKNOWN, str(failure), verdict="not found")


def internal() -> Response:
    """The net's answer: a fault of ours, without internals."""
    return _refusal(
        503,
        Code.UNAVAILABLE,
        "internal error",
        headers={"Retry-After": "5"},
        verdict="could not tell",
        reason="internal error",
    )


def method_not_allowed() -> Response:
    """405 for everything but GET and HEAD: this registry is pull-only."""
    return _refusal(405, Code.UNSUPPORTED, "this registry is read-only", headers={"Allow": ALLOWED})


def _refusal(  # noqa: PLR0913 - one row of the table
    status: int,
    code: Code,
    message: str,
    detail: object = None,
    headers: Mapping[str, str] | None = None,
    *,
    verdict: str | None = None,
    reason: str | None = None,
) -> Response:
    body = oci_error.body(code, message, detail)
    base = {"Content-Type": JSON, "Content-Length": str(len(body)), "Cache-Control": NO_STORE}
    return Response(status, {**base, **(headers or {})}, body, verdict, reason)
