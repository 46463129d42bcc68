"""`/livez`: this process answers. Not `/healthz`, which Google's front end keeps for itself (gcp-facts 0)."""

from __future__ import annotations

from lib.handlers.response import NO_STORE, Response


def live() -> Response:
    """Touches neither store, log nor upstream."""
    body = b"ok\n"
    return Response(
        200, {"Content-Type": "text/plain", "Content-Length": str(len(body)), "Cache-Control": NO_STORE}, body
    )
