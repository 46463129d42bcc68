"""What tests need to run the real recorder against a local Sigstore: one process, real HTTP, real keys."""

from __future__ import annotations

import base64
import io
import json
import time
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import requests
from sigstore.oidc import IdentityError, IdentityToken

from lib.config import Identity, TrustFile
from lib.deadline import Deadline
from lib.errors import SignerUnavailable
from lib.oci.digest import Digest
from lib.recorder import Recorder, Threads
from lib.sighting.rekor import RekorSearch
from lib.sighting.signer import KeylessSigner
from lib.sighting.statement import digest_in, statement, tag_key
from lib.sighting.trust import TrustSource
from lib.sighting.verifier import SightingVerifier
from lib.store.sqlite import SqliteStore
from lib.telemetry import Telemetry

if TYPE_CHECKING:
    from collections.abc import Callable

    from lib.devsigstore.server import DevSigstore
    from lib.oci.reference import Tag
    from lib.recorder import Runtime
    from lib.sighting.sighting import Signer, TransparencyLog
    from lib.sighting.signer import IdentitySource
    from lib.store.store import RecordStore


def seconds(number: float) -> Deadline:
    return Deadline.after(number, time.monotonic)


class DevIdentity:
    """Tokens from one metadata server's HTTP API. google-auth reads where it is only once in a process, at import."""

    def __init__(self, url: str, email: str | None = None) -> None:
        """`email` is another identity than the usual one."""
        server = f"{url}/__dev__/as/{email}" if email else url
        self._url = f"{server}/computeMetadata/v1/instance/service-accounts/default/identity"

    def token(self, deadline: Deadline) -> IdentityToken:
        try:
            answer = requests.get(
                self._url,
                params={"audience": "sigstore", "format": "full"},
                headers={"Metadata-Flavor": "Google"},
                timeout=max(0.001, min(5.0, deadline.left())),
            )
            answer.raise_for_status()
            return IdentityToken(answer.text)
        except (requests.RequestException, IdentityError) as error:
            msg = f"no identity token from the metadata server ({type(error).__name__})"
            raise SignerUnavailable(msg) from error


class Parts:
    """The collaborators of one instance, each real; a test may put another in place of one before `recorder()`."""

    def __init__(
        self,
        dev: DevSigstore,
        store: Path | Callable[[], RecordStore],
        *,
        search: bool = True,
        email: str | None = None,
        runtime: Runtime | None = None,
        identity: IdentitySource | None = None,
    ) -> None:
        """`email` is another identity than the usual one: who signs, and who is accepted."""
        settings = dev.environment(email)
        path = Path(settings["TLOGISTRY_TRUST"])
        self.runtime: Runtime = runtime or Threads()
        self.lines: list[str] = []
        self.telemetry = Telemetry("line", _Lines(self.lines))
        self.identities = tuple(Identity(**item) for item in json.loads(settings["TLOGISTRY_IDENTITIES"]))
        self.trust = TrustSource(TrustFile(path, path.read_text()), self.runtime.now, self.telemetry)
        self.verifier = SightingVerifier(self.trust, self.identities)
        self.identity: IdentitySource = identity or DevIdentity(dev.url, email)
        self.store: RecordStore = store() if callable(store) else SqliteStore(store)
        self.log: TransparencyLog = RekorSearch(self.trust, self.verifier, self.telemetry, enabled=search)
        self.signer: Signer = KeylessSigner(
            trust=self.trust,
            identity=self.identity,
            verifier=self.verifier,
            telemetry=self.telemetry,
            clock=self.runtime.now,
            start=self.runtime.start,
        )

    def recorder(self) -> Recorder:
        return Recorder(
            store=self.store,
            log=self.log,
            signer=self.signer,
            verifier=self.verifier,
            runtime=self.runtime,
            telemetry=self.telemetry,
        )


class _Lines(io.StringIO):
    """A text stream that keeps lines; what Telemetry writes to."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__()
        self._lines = lines

    def write(self, text: str) -> int:
        self._lines.append(text.rstrip("\n"))
        return len(text)


def logged(url: str, tag: Tag) -> list[tuple[str, str]]:
    """(kind, digest) of every entry that the log's index has under the tag's key; for a dsse entry "dsse" and its payload hash.

    Asked over the log's own API, as anybody could.
    """
    uuids = requests.post(f"{url}/api/v1/index/retrieve", json={"hash": f"sha256:{tag_key(tag)}"}, timeout=10).json()
    found = []
    for uuid in uuids:
        (entry,) = requests.get(f"{url}/api/v1/log/entries/{uuid}", timeout=10).json().values()
        body = json.loads(_b64(entry["body"]))
        if body["kind"] == "intoto":
            found.append(("intoto", str(digest_in(_b64(entry["attestation"]["data"]), tag))))
        else:
            found.append(("dsse", body["spec"]["payloadHash"]["value"]))
    return found


def digests_logged(url: str, tag: Tag) -> set[str]:
    """How many digests the log holds for the tag, by payload: an element for each."""
    found = logged(url, tag)
    return {value for kind, value in found if kind == "dsse"} | {
        sha256(statement(tag, Digest.parse(value))).hexdigest() for kind, value in found if kind == "intoto"
    }


def _b64(text: str) -> bytes:
    return base64.b64decode(text)
