"""Who signs: the ambient identity token of the service account, from the metadata server.

Through google-auth's `fetch_id_token`, not through sigstore's ambient detection, which silently finds nothing on Cloud Run.
The token is a secret: it goes to Fulcio and nowhere else, no log line and no error holds it.
"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

from google.auth.exceptions import GoogleAuthError
from google.auth.transport.requests import Request
from google.oauth2.id_token import fetch_id_token
from sigstore.oidc import IdentityError, IdentityToken

from lib.errors import SignerUnavailable
from lib.http import BoundedSession

if TYPE_CHECKING:
    from lib.config import Identity
    from lib.deadline import Deadline

AUDIENCE = "sigstore"
METADATA_TOTAL_S = 5.0  # seconds; the metadata server is on the same host
METADATA_MAX_BYTES = 65_536
_NO_TOKEN = (  # what google-auth, PyJWT and sigstore-python raise at answers that they do not expect
    GoogleAuthError,
    IdentityError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    RecursionError,
    OSError,
)


class MetadataIdentity:
    """Fetches identity tokens for exactly one configured identity."""

    def __init__(self, identity: Identity) -> None:
        """`identity` is the first of the accepted ones: who signs."""
        self._identity = identity
        self._session = BoundedSession(METADATA_TOTAL_S, METADATA_MAX_BYTES)

    def token(self, deadline: Deadline) -> IdentityToken:
        """A token for Fulcio. google-auth asks again on its own, with pauses, but not after `deadline`.

        Raises SignerUnavailable if there is none, or if it is not the configured identity's: signing as somebody else would
        make records that nobody accepts. Raises DeadlineExceeded.
        """
        try:
            with self._session.within(deadline):
                raw = fetch_id_token(Request(self._session), AUDIENCE)  # type: ignore[no-untyped-call]
            token = IdentityToken(raw, AUDIENCE)
            claims = _claims(raw)
        except _NO_TOKEN as error:
            msg = f"no identity token from the metadata server ({type(error).__name__})"
            raise SignerUnavailable(msg) from error
        email, issuer = claims.get("email"), claims.get("iss")
        if (email, issuer) != (self._identity.email, self._identity.issuer):
            msg = (
                f"this service runs as {str(email)[:320]} of {str(issuer)[:320]}, but TLOGISTRY_IDENTITIES says that "
                f"{self._identity.email} of {self._identity.issuer} signs"
            )
            raise SignerUnavailable(msg)
        return token


def _claims(raw: str) -> dict[str, object]:
    """The token's claims; Fulcio verifies the signature, we only compare."""
    body = raw.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    if not isinstance(claims, dict):
        msg = "the token's claims are no object"
        raise ValueError(msg)  # noqa: TRY004 - joins the other parsing failures
    return claims
