"""The ClientTrustConfig of the local Sigstore, for stock tools and for us: written to `trust-config.json`."""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.serialization import Encoding

from lib.devsigstore.authority import spki

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec

    from lib.devsigstore.authority import Authority
    from lib.devsigstore.log import Log

OPERATOR = "tlogistry-dev NOT FOR PRODUCTION"


def client_trust_config(url: str, authority: Authority, log: Log) -> dict[str, Any]:
    """What `sigstore --trust-config` takes; `url` is where all services are."""
    start = authority.root.not_valid_before_utc.strftime("%Y-%m-%dT%H:%M:%SZ")
    service = {"url": url, "majorApiVersion": 1, "validFor": {"start": start}, "operator": OPERATOR}
    chain = [authority.intermediate, authority.root]
    return {
        "mediaType": "application/vnd.dev.sigstore.clienttrustconfig.v0.1+json",
        "trustedRoot": {
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": [_instance(url, log.key, start)],
            "certificateAuthorities": [
                {
                    "subject": {"organization": OPERATOR, "commonName": "dev root"},
                    "uri": url,
                    "certChain": {
                        "certificates": [{"rawBytes": _b64(one.public_bytes(Encoding.DER))} for one in chain]
                    },
                    "validFor": {"start": start},
                }
            ],
            "ctlogs": [_instance(url, authority.ct_key, start)],
            "timestampAuthorities": [],
        },
        "signingConfig": {
            "mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json",
            "caUrls": [service],
            "oidcUrls": [service],
            "rekorTlogUrls": [service],
            "tsaUrls": [],
            "rekorTlogConfig": {"selector": "ANY"},
            "tsaConfig": {"selector": "ANY"},
        },
    }


def _instance(url: str, key: ec.EllipticCurvePrivateKey, start: str) -> dict[str, Any]:
    der = spki(key)
    return {
        "baseUrl": url,
        "hashAlgorithm": "SHA2_256",
        "publicKey": {"rawBytes": _b64(der), "keyDetails": "PKIX_ECDSA_P256_SHA_256", "validFor": {"start": start}},
        "logId": {"keyId": _b64(hashlib.sha256(der).digest())},
    }


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()
