"""Identity tokens in the shape of a Google service account's, and the metadata server that hands them out.

The issuer is a constant that nobody can reach: stored records name it, and must verify after a restart on another port.
"""

from __future__ import annotations

import base64
import hashlib
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

if TYPE_CHECKING:
    from lib.devsigstore.state import State

ISSUER = "https://tlogistry-dev.invalid/NOT-FOR-PRODUCTION"
EMAIL = "tlogistry-dev@not-for-production.invalid"
AUDIENCE = "sigstore"
LIFE_S = 3600
ACCOUNT = "/computeMetadata/v1/instance/service-accounts/default/"
FLAVOR = {"Metadata-Flavor": "Google", "Server": "Metadata Server for VM"}


@dataclass(frozen=True, slots=True)
class Claims:
    """What a verified token says."""

    email: str
    issuer: str
    subject: str


class TokenInvalid(ValueError):
    """Not a token of ours, or not one any more."""


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class Issuer:
    """Makes and checks identity tokens (RS256)."""

    def __init__(self, state: State) -> None:
        """Load or make the key."""

        def make() -> bytes:
            return rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )

        key = serialization.load_pem_private_key(state.setting("token-key", make), password=None)
        if not isinstance(key, rsa.RSAPrivateKey):
            msg = "the token key is of another kind"
            raise TypeError(msg)
        self._key = key

    def token(self, email: str, audience: str = AUDIENCE, life_s: int = LIFE_S) -> str:
        """A token for `email`; a negative life makes an expired one."""
        now = int(time.time())
        subject = str(int.from_bytes(hashlib.sha256(email.encode()).digest()[:8], "big"))
        claims = {
            "aud": audience,
            "azp": subject,
            "exp": now + life_s,
            "iat": now + min(0, life_s),
            "iss": ISSUER,
            "sub": subject,
            "email": email,
            "email_verified": True,
        }
        header = {"alg": "RS256", "kid": "tlogistry-dev", "typ": "JWT"}
        signed = f"{_b64(json.dumps(header).encode())}.{_b64(json.dumps(claims).encode())}"
        signature = self._key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{signed}.{_b64(signature)}"

    def verify(self, token: str) -> Claims:
        """Raises TokenInvalid."""
        try:
            signed, _, signature = token.rpartition(".")
            self._key.public_key().verify(_unb64(signature), signed.encode(), padding.PKCS1v15(), hashes.SHA256())
            claims = json.loads(_unb64(signed.partition(".")[2]))
            live = claims["exp"] > time.time() and claims["aud"] == AUDIENCE and claims["iss"] == ISSUER
            if not live or claims["email_verified"] is not True:
                msg = "expired, or for somebody else"
                raise TokenInvalid(msg)
            return Claims(claims["email"], claims["iss"], claims["sub"])
        except (InvalidSignature, ValueError, KeyError, TypeError) as error:
            msg = "not a token"
            raise TokenInvalid(msg) from error


def metadata(issuer: Issuer, email: str, path: str, query: str, flavor: str | None) -> tuple[int, dict[str, str], bytes]:
    """What Google's metadata server answers to GET `path`: status, headers, body."""
    if path == "/":
        return 200, {"Content-Type": "application/text", **FLAVOR}, b"computeMetadata/\n"
    if flavor != "Google":
        return 403, {"Content-Type": "text/html; charset=UTF-8", **FLAVOR}, b"Missing Metadata-Flavor:Google header."
    asked = parse_qs(query)
    text, kind = None, "application/text"
    match path.removeprefix(ACCOUNT) if path.startswith(ACCOUNT) else path:
        case "":
            account = {"aliases": ["default"], "email": email, "scopes": ["https://www.googleapis.com/auth/cloud-platform"]}
            text, kind = json.dumps(account), "application/json"
        case "email":
            text = email
        case "token":
            text = json.dumps({"access_token": "dev-not-for-production", "expires_in": LIFE_S, "token_type": "Bearer"})
            kind = "application/json"
        case "identity" if asked.get("audience"):
            text, kind = issuer.token(email, asked["audience"][0]), "text/html"
        case "/computeMetadata/v1/project/project-id":
            text = "tlogistry-dev-not-for-production"
    if text is None:
        return 404, {"Content-Type": "text/html; charset=UTF-8", **FLAVOR}, b"Not Found"
    return 200, {"Content-Type": kind, **FLAVOR}, text.encode()
