"""Error codes of the distribution-spec ("Error Codes"), and the body that carries one.

    {"errors": [{"code": "MANIFEST_UNKNOWN", "message": "…", "detail": …}]}

Two codes are not in its table: TAG_INVALID (older, still known to clients; a tag that moved) and UNAVAILABLE (as in
distribution's own registry; could not tell). Never a top-level key `details`: Docker would show it instead of the
message. ASCII, so that whatever a message quotes can be written.
"""

from __future__ import annotations

import enum
import json


class Code(enum.StrEnum):
    """What `code` may be."""

    BLOB_UNKNOWN = "BLOB_UNKNOWN"
    DENIED = "DENIED"
    DIGEST_INVALID = "DIGEST_INVALID"
    MANIFEST_INVALID = "MANIFEST_INVALID"
    MANIFEST_UNKNOWN = "MANIFEST_UNKNOWN"
    NAME_INVALID = "NAME_INVALID"
    NAME_UNKNOWN = "NAME_UNKNOWN"
    TAG_INVALID = "TAG_INVALID"
    TOOMANYREQUESTS = "TOOMANYREQUESTS"
    UNAVAILABLE = "UNAVAILABLE"
    UNSUPPORTED = "UNSUPPORTED"


def body(code: Code, message: str, detail: object = None) -> bytes:
    """The JSON text with exactly one error; `detail` is left out if None."""
    error: dict[str, object] = {"code": code.value, "message": message}
    if detail is not None:
        error["detail"] = detail
    return json.dumps({"errors": [error]}).encode("ascii")
