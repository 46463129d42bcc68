"""Searching Rekor v1 for what we have said about a tag: what an index that anyone can write to proves, and what not.

The index is best effort and unordered, and anyone can put entries under a tag's key. So each
answer is sorted into

    forgeable   kind, shape, certificate, SCT, identity, issuer, more than one signature: skipped
    the log's   a UUID that it named and does not return, a body that is not that UUID's, a signed entry timestamp, inclusion
                proof or checkpoint that does not verify: the search fails, because the log lies or is broken
    ours        everything else

An entry of ours is *explained* if its payload hash is that of the statement of (tag, a candidate digest), or if the bytes of
any readable copy hash to it and are the statement of exactly this tag, and the bundle rebuilt from it verifies. The earliest
explained entry gives the log's digest. An entry of ours that nothing explains and that is older than every explained one is
LogUnavailable: never skipped, never "first seen".

Limits, counted: 1 index call and at most RETRIEVE_CALLS calls of RETRIEVE_SIZE entries. More is a flood, which costs an
attacker nothing, so it must not block: that many are looked at, the rest is counted, and the store decides.

Not here: writing (`signer.py`). Rekor v2 has no search (`NotSearchable`).
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import requests
from cryptography import x509
from sigstore._internal.trust import KeyringPurpose
from sigstore._utils import base64_encode_pem_cert
from sigstore.dsse import Envelope
from sigstore.errors import Error as SigstoreError
from sigstore.errors import VerificationError
from sigstore.models import Bundle as SigstoreBundle
from sigstore.models import TransparencyLogEntry
from sigstore_models.intoto import Envelope as EnvelopeModel
from sigstore_models.intoto import Signature as SignatureModel

from lib.errors import LogUnavailable, RecordInvalid
from lib.http import BoundedSession, TooLarge
from lib.sighting.sighting import Bundle, Found, NothingFound, NotSearchable, Record
from lib.sighting.statement import PAYLOAD_TYPE, digest_in, statement, tag_key

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lib.deadline import Deadline
    from lib.oci.digest import Digest
    from lib.oci.reference import Tag
    from lib.sighting.trust import Trust, TrustSource
    from lib.sighting.verifier import SightingVerifier
    from lib.telemetry import Telemetry

CALL_TOTAL_S = 10.0  # seconds for one call of the search
RETRIEVE_CALLS = 5
RETRIEVE_SIZE = 10  # Rekor's own limit for one call
ANSWER_MAX_BYTES = 4_194_304  # ten entries with the largest attestations (100 KiB) are under 2 MiB
UUID = re.compile(r"[0-9a-fA-F]{64}|[0-9a-fA-F]{80}", re.ASCII)  # without or with the tree id


@dataclass(frozen=True, slots=True)
class _Entry:
    """One entry as the log returned it; `body` hashes to `uuid`, the rest is unverified."""

    uuid: str
    raw: dict[str, Any]
    body: bytes


@dataclass(frozen=True, slots=True)
class _Ours:
    """A dsse entry that only our identity can have made, and whose place in the log is proven."""

    uuid: str
    log_index: int
    payload_hash: str
    signature: bytes
    certificate: x509.Certificate
    entry: TransparencyLogEntry

    def bundle(self, payload: bytes) -> SigstoreBundle:
        """The bundle as it was when it was made, with `payload` put back in."""
        envelope = EnvelopeModel(
            payload=base64.b64encode(payload),
            payload_type=PAYLOAD_TYPE,
            signatures=[SignatureModel(sig=base64.b64encode(self.signature))],
        )
        return SigstoreBundle._from_parts(self.certificate, Envelope(envelope), self.entry)  # noqa: SLF001 - no public builder


class RekorSearch:
    """The read side of Rekor v1. Safe from any thread; keeps nothing."""

    def __init__(self, trust: TrustSource, verifier: SightingVerifier, telemetry: Telemetry, *, enabled: bool) -> None:
        """`enabled` is the operator's brake for a day on which the public index is down (TLOGISTRY_LOG_SEARCH)."""
        self._trust = trust
        self._verifier = verifier
        self._telemetry = telemetry
        self._enabled = enabled
        self._http = BoundedSession(CALL_TOTAL_S, ANSWER_MAX_BYTES)

    def search(
        self, tag: Tag, candidates: tuple[Digest, ...], deadline: Deadline
    ) -> Found | NothingFound | NotSearchable:
        """See `lib.sighting.sighting.TransparencyLog`."""
        if not self._enabled:
            return NotSearchable()
        trust = self._trust.current()
        uuids = self._index(trust, tag, deadline)
        looked_at = uuids[: RETRIEVE_CALLS * RETRIEVE_SIZE]
        entries: list[_Entry] = []
        skipped = len(uuids) - len(looked_at)
        for start in range(0, len(looked_at), RETRIEVE_SIZE):
            batch = looked_at[start : start + RETRIEVE_SIZE]
            answer = self._retrieve(trust, batch, deadline)
            if answer is None:
                skipped += len(batch)
            else:
                entries.extend(answer)
        if skipped:
            self._telemetry.count("log_flood")
            self._telemetry.log("WARNING", "flood under a tag's key in the log's index", tag=tag, notLookedAt=skipped)
        return self._judge(trust, tag, candidates, entries)

    def answers(self, deadline: Deadline) -> str:
        """For people: "ok", or that it is not searched. Raises LogUnavailable if it does not answer."""
        url = f"{self._trust.current().rekor_url}/api/v1/log"
        try:
            with self._http.within(deadline):
                response = self._http.get(url, headers={"Accept": "application/json"})
        except (requests.RequestException, OSError) as error:
            msg = f"the transparency log does not answer ({type(error).__name__})"
            raise LogUnavailable(msg) from error
        if response.status_code != requests.codes.ok:
            msg = f"the transparency log answers with {response.status_code}"
            raise LogUnavailable(msg)
        return "ok" if self._enabled else "ok, but not searched (TLOGISTRY_LOG_SEARCH=off)"

    def _judge(
        self, trust: Trust, tag: Tag, candidates: tuple[Digest, ...], entries: Sequence[_Entry]
    ) -> Found | NothingFound:
        ours = sorted(
            (mine for entry in entries if (mine := self._ours(trust, entry)) is not None),
            key=lambda mine: mine.log_index,
        )
        payloads = {sha256(payload).hexdigest(): payload for payload in _attestations(entries)}
        payloads.update((sha256(said).hexdigest(), said) for said in (statement(tag, digest) for digest in candidates))
        for mine in ours:
            payload = payloads.get(mine.payload_hash)
            record = self._explained(mine, payload, tag) if payload is not None else None
            if record is None:
                msg = (
                    f"the log holds an entry of ours for {tag.familiar} that cannot be explained: "
                    f"log index {mine.log_index}, uuid {mine.uuid}"
                )
                raise LogUnavailable(msg)
            return Found(record)
        return NothingFound()

    def _explained(self, mine: _Ours, payload: bytes, tag: Tag) -> Record | None:
        """The record, if `payload` is a statement of exactly this tag and the rebuilt bundle verifies like any other."""
        try:
            digest_in(payload, tag)
            bundle = Bundle(mine.bundle(payload).to_json().encode())
            return Record(self._verifier.verify(bundle, tag, may_refresh=False), bundle)
        except (RecordInvalid, SigstoreError) as error:
            self._telemetry.log(
                "WARNING", "an entry of ours does not explain itself", uuid=mine.uuid, reason=str(error)
            )
            return None

    def _ours(self, trust: Trust, entry: _Entry) -> _Ours | None:
        """None for what anyone can forge. Raises LogUnavailable for what only the log can get wrong."""
        parsed = _dsse(entry.body)
        if parsed is None:
            return None
        payload_hash, signature, certificate = parsed
        try:
            log_entry = TransparencyLogEntry._from_v1_response({entry.uuid: entry.raw})  # noqa: SLF001 - the only parser
            log_entry._verify(trust.root.rekor_keyring(KeyringPurpose.VERIFY))  # noqa: SLF001 - SET, inclusion proof, checkpoint
            if not log_entry._inner.inclusion_promise or not log_entry._inner.integrated_time:  # noqa: SLF001
                msg = "no signed entry timestamp"
                raise VerificationError(msg)
        except (SigstoreError, ValueError, KeyError, TypeError, AttributeError) as error:
            msg = f"the transparency log returned an entry that does not verify (uuid {entry.uuid}: {type(error).__name__})"
            raise LogUnavailable(msg) from error
        mine = _Ours(
            uuid=entry.uuid,
            log_index=log_entry._inner.log_index,  # noqa: SLF001 - bound by the SET verified above
            payload_hash=payload_hash,
            signature=signature,
            certificate=certificate,
            entry=log_entry,
        )
        return mine if self._certified(trust, mine) else None

    def _certified(self, trust: Trust, mine: _Ours) -> bool:
        """Whether the entry's certificate came from the CA for one of our identities: the steps that need no payload.

        sigstore-python has them only in a private method; this is the one place that calls it, pinned by a test.
        """
        try:
            trust.verifier._verify_common_signing_cert(mine.bundle(b""), self._verifier.policy)  # noqa: SLF001
        except (SigstoreError, ValueError, KeyError, TypeError, x509.ExtensionNotFound, x509.DuplicateExtension):
            return False
        return True

    def _index(self, trust: Trust, tag: Tag, deadline: Deadline) -> list[str]:
        """The UUIDs under the tag's key, each once; of an over-long answer those in the part that was read."""
        try:
            answer = self._post(trust, "index/retrieve", {"hash": f"sha256:{tag_key(tag)}"}, deadline)
        except TooLarge as flood:
            answer = _cut_list(flood.prefix)
        if not isinstance(answer, list) or not all(isinstance(uuid, str) and UUID.fullmatch(uuid) for uuid in answer):
            msg = "the transparency log's index answered with something that is no list of entries"
            raise LogUnavailable(msg)
        return _once(answer)

    def _retrieve(self, trust: Trust, uuids: list[str], deadline: Deadline) -> list[_Entry] | None:
        """The named entries, all of them; None if the answer is over the byte cap (a flood of large entries)."""
        try:
            answer = self._post(trust, "log/entries/retrieve", {"entryUUIDs": uuids}, deadline)
        except TooLarge as flood:
            if flood.prefix.lstrip()[:1] != b"[":
                msg = "the transparency log answered a retrieve call with something that is no list of entries"
                raise LogUnavailable(msg) from flood
            return None
        by_leaf: dict[str, _Entry] = {}
        if isinstance(answer, list):
            for item in answer:
                for uuid, raw in item.items() if isinstance(item, dict) else ():
                    entry = _bound(uuid, raw)
                    if entry is not None:
                        by_leaf[_leaf(uuid)] = entry
        missing = [uuid for uuid in uuids if _leaf(uuid) not in by_leaf]
        if missing:
            msg = f"the transparency log does not return an entry that its index names (uuid {missing[0]})"
            raise LogUnavailable(msg)
        return [by_leaf[_leaf(uuid)] for uuid in uuids]

    def _post(self, trust: Trust, path: str, body: dict[str, Any], deadline: Deadline) -> Any:  # noqa: ANN401 - JSON
        deadline.check("searching the transparency log")
        try:
            response = self._http.post(
                f"{trust.rekor_url}/api/v1/{path}",
                json=body,
                headers={"Accept": "application/json"},
                timeout=min(CALL_TOTAL_S, deadline.left()),
            )
        except TooLarge as flood:
            if flood.status == requests.codes.ok:
                raise
            msg = f"the transparency log answered the search with {flood.status}"
            raise LogUnavailable(msg) from flood
        except (requests.RequestException, OSError) as error:
            msg = f"the transparency log could not be searched ({type(error).__name__})"
            raise LogUnavailable(msg) from error
        if response.status_code != requests.codes.ok:
            msg = f"the transparency log answered the search with {response.status_code}"
            raise LogUnavailable(msg)
        try:
            return json.loads(response.content)
        except (ValueError, RecursionError) as error:
            msg = "the transparency log answered the search with something that is not JSON"
            raise LogUnavailable(msg) from error


def _cut_list(prefix: bytes) -> Any:  # noqa: ANN401 - JSON
    """The items before the last comma of a JSON list that was cut; None if it is none: an outage page is no flood."""
    try:
        return json.loads(prefix[: prefix.rindex(b",")] + b"]")
    except (ValueError, RecursionError):
        return None


def _once(uuids: list[str]) -> list[str]:
    """Each entry once, whether named with its tree id or without."""
    return list({_leaf(uuid): uuid for uuid in uuids}.values())


def _leaf(uuid: str) -> str:
    return uuid[-64:].lower()


def _bound(uuid: object, raw: object) -> _Entry | None:
    """The entry, if its body is the one that the UUID is the leaf hash of: else the log could hide an entry of ours."""
    if not isinstance(uuid, str) or not isinstance(raw, dict) or not isinstance(raw.get("body"), str):
        return None
    try:
        body = base64.b64decode(raw["body"], validate=True)
    except (binascii.Error, ValueError):
        return None
    if sha256(b"\x00" + body).hexdigest() != _leaf(uuid):
        return None
    return _Entry(uuid.lower(), raw, body)


def _dsse(body: bytes) -> tuple[str, bytes, x509.Certificate] | None:
    """Payload hash, signature and certificate of a dsse 0.0.1 body with exactly one signature; None for anything else."""
    try:
        parsed = json.loads(body)
        if (parsed["kind"], parsed["apiVersion"]) != ("dsse", "0.0.1"):
            return None
        spec = parsed["spec"]
        payload_hash = spec["payloadHash"]
        (signature,) = spec["signatures"]
        if payload_hash["algorithm"] != "sha256" or not re.fullmatch(r"[0-9a-f]{64}", payload_hash["value"], re.ASCII):
            return None
        certificate = x509.load_pem_x509_certificate(base64.b64decode(signature["verifier"], validate=True))
        if base64_encode_pem_cert(certificate) != signature["verifier"]:
            return None  # our certificate with more behind it: anyone can log our envelope again like that
        return payload_hash["value"], base64.b64decode(signature["signature"], validate=True), certificate
    except (ValueError, KeyError, TypeError, RecursionError, x509.InvalidVersion):
        return None


def _attestations(entries: Sequence[_Entry]) -> list[bytes]:
    """What the log gives back as payloads. Nobody vouches for them: the hash in a verified entry does."""
    payloads = []
    for entry in entries:
        attestation = entry.raw.get("attestation")
        data = attestation.get("data") if isinstance(attestation, dict) else None
        if isinstance(data, str):
            try:
                payloads.append(base64.b64decode(data, validate=True))
            except (binascii.Error, ValueError):
                continue
    return payloads
