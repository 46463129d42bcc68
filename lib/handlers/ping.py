"""`/v2/`: distribution-spec end-1. 200 without a challenge, so that no client ever starts an authentication flow."""

from __future__ import annotations

from lib.handlers.response import Response, json_response


def ping() -> Response:
    """An empty object. Touches neither store, log nor upstream."""
    return json_response(200, {}, {"Docker-Distribution-Api-Version": "registry/2.0"})
