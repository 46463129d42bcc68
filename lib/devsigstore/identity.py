"""Identity tokens in the shape of a Google service account's, and the metadata server that hands them out.

The issuer is a constant that nobody can reach: stored records name it, and must verify after a restart on another port.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from lib.devsigstore.reply import Reply

if TYPE_CHECKING:
    from lib.devsigstore.faults import Calls, Faults
    from lib.devsigstore.reply import Request
    from lib.devsigstore.state import State

ISSUER = "https://tlogistry-dev.invalid/NOT-FOR-PRODUCTION"
EMAIL = "tlogistry-dev@not-for-production.invalid"
AUDIENCE = "sigstore"
LIFE_S = 3600
ADDRESS = re.compile(r"[!-?A-~]{1,64}@[A-Za-z0-9.-]{1,255}", re.ASCII)
AS = re.compile(r"/__dev__/as/([^/]{1,320})(/.*)", re.ASCII)
ACCOUNT = re.compile(r"/computeMetadata/v1/instance/service-accounts/([^/]+)/(.*)", re.ASCII)
FLAVOR = {"Metadata-Flavor": "Google"}
PAGE = "text/html; charset=UTF-8"


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


def _bytes(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8, "big")


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
        self._numbers = key.public_key().public_numbers()
        self._key_id = hashlib.sha256(_bytes(self._numbers.n)).hexdigest()[:40]

    def token(self, email: str, audience: str = AUDIENCE, life_s: int = LIFE_S, *, full: bool = True) -> str:
        """A token for `email`; a negative life makes an expired one, and only a full one names the e-mail."""
        now = int(time.time())
        subject = str(int.from_bytes(hashlib.sha256(email.encode()).digest()[:8], "big"))
        claims: dict[str, str | int | bool] = {
            "aud": audience,
            "azp": subject,
            "exp": now + life_s,
            "iat": now + min(0, life_s),
            "iss": ISSUER,
            "sub": subject,
        }
        if full:
            claims |= {"email": email, "email_verified": True}
        header = {"alg": "RS256", "kid": self._key_id, "typ": "JWT"}
        signed = f"{_b64(json.dumps(header).encode())}.{_b64(json.dumps(claims).encode())}"
        signature = self._key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{signed}.{_b64(signature)}"

    def public(self) -> dict[str, str]:
        """The public key as a JWK."""
        n, e = (_b64(_bytes(number)) for number in (self._numbers.n, self._numbers.e))
        return {"kty": "RSA", "alg": "RS256", "use": "sig", "kid": self._key_id, "n": n, "e": e}

    def verify(self, token: str) -> Claims:
        """Raises TokenInvalid."""
        try:
            signed, _, signature = token.rpartition(".")
            self._key.public_key().verify(_unb64(signature), signed.encode(), padding.PKCS1v15(), hashes.SHA256())
            claims = json.loads(_unb64(signed.partition(".")[2]))
            live = claims["exp"] > time.time() and claims["aud"] == AUDIENCE and claims["iss"] == ISSUER
            if not live or claims["email_verified"] is not True or ADDRESS.fullmatch(claims["email"]) is None:
                msg = "expired, for somebody else, or without an address"
                raise TokenInvalid(msg)
            return Claims(claims["email"], claims["iss"], claims["sub"])
        except (InvalidSignature, ValueError, KeyError, TypeError) as error:
            msg = "not a token"
            raise TokenInvalid(msg) from error


class MetadataApi:
    """Google's metadata server, as google-auth uses it, and the issuer's public documents.

    Below `/__dev__/as/EMAIL` it serves another identity: `GCE_METADATA_HOST` may end in that path.
    """

    def __init__(self, issuer: Issuer, email: str, faults: Faults, calls: Calls) -> None:
        """`email` is the service account's."""
        self._issuer = issuer
        self._email = email
        self._faults = faults
        self._calls = calls

    def answer(self, request: Request) -> Reply:
        """Route one request."""
        self._calls.add("metadata")
        other = AS.fullmatch(request.path)
        email, path = (other[1], other[2]) if other else (self._email, request.path)
        if request.method not in {"GET", "HEAD"}:
            return Reply.text(405, "Method Not Allowed", PAGE)
        match path:
            case "/.well-known/openid-configuration":
                return Reply.json(200, _DISCOVERY)
            case "/oauth2/v3/certs":
                return Reply.json(200, {"keys": [self._issuer.public()]})
        return self._metadata(email, path, request).plus(FLAVOR)

    def _metadata(self, email: str, path: str, request: Request) -> Reply:
        if "metadata:before" in self._faults:
            return Reply.empty(500)
        if path == "/":
            return Reply.text(200, "computeMetadata/\n", "application/text")
        if request.headers.get("Metadata-Flavor") != "Google":
            return Reply.text(403, "Missing Metadata-Flavor:Google header.", PAGE)
        if path == "/computeMetadata/v1/project/project-id":
            return Reply.text(200, "tlogistry-dev-not-for-production", "application/text")
        account = ACCOUNT.fullmatch(path)
        if account is None or account[1] not in {"default", email}:
            return Reply.text(404, "Not Found", PAGE)
        return self._account(email, account[2], parse_qs(request.query))

    def _account(self, email: str, what: str, query: dict[str, list[str]]) -> Reply:
        match what:
            case "":
                scopes = ["https://www.googleapis.com/auth/cloud-platform"]
                return Reply.json(200, {"aliases": ["default"], "email": email, "scopes": scopes})
            case "email":
                return Reply.text(200, email, "application/text")
            case "token":
                token = {"access_token": "dev-not-for-production", "expires_in": LIFE_S - 1, "token_type": "Bearer"}
                return Reply.json(200, token)
            case "identity" if "audience" in query:
                full = query.get("format") == ["full"]
                return Reply.text(200, self._issuer.token(email, query["audience"][0], full=full), "text/html")
        return Reply.text(404, "Not Found", PAGE)


_DISCOVERY = {
    "issuer": ISSUER,
    "jwks_uri": f"{ISSUER}/oauth2/v3/certs",
    "authorization_endpoint": f"{ISSUER}/auth",
    "token_endpoint": f"{ISSUER}/token",
    "response_types_supported": ["id_token"],
    "subject_types_supported": ["public"],
    "id_token_signing_alg_values_supported": ["RS256"],
    "claims_supported": ["aud", "email", "email_verified", "exp", "iat", "iss", "sub"],
}
