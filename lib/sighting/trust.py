"""The trust configuration: which CA, CT log and transparency log are believed, and where to sign.

Public Sigstore starts from the trusted root and signing config shipped with the sigstore package (the floor), or a file
(ClientTrustConfig JSON) says everything. The floor is refreshed by TUF in the background (`keep_fresh`), and never on the
request path, with one exception: a record whose log or CA key is not in the trust root asks for one refresh, bounded in time
and rate (`refresh`).

Not here: what verifying means (`verifier.py`).
"""

from __future__ import annotations

import base64
import random
import threading
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cryptography import x509
from sigstore._internal.tuf import DEFAULT_TUF_URL
from sigstore._utils import read_embedded
from sigstore.errors import Error as SigstoreError
from sigstore.models import ClientTrustConfig, TrustedRoot
from sigstore.verify import Verifier as SigstoreVerifier
from sigstore_models.trustroot import v1 as trustroot

from lib.errors import ConfigInvalid

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from lib.config import TrustFile
    from lib.telemetry import Telemetry

REFRESH_S = 5.0  # seconds that one request may wait for a refresh
REFRESH_EVERY_S = 600.0  # seconds between refreshes: a bad record must not become a stream of fetches
FRESH_S = 43_200.0  # seconds between background refreshes, give or take a fifth: keys change a few times a year
REKOR_MAJOR = 1  # which Rekor API is written to; a refreshed signing config must never change the log by itself


@dataclass(frozen=True, slots=True)
class Window:
    """When a key was in use; `end` is None while it still is."""

    start: datetime
    end: datetime | None

    def contains(self, time: datetime) -> bool:
        """Both ends included, as in the trusted root's specification."""
        return self.start <= time and (self.end is None or time <= self.end)


@dataclass(frozen=True, slots=True)
class Trust:
    """One trust configuration, parsed: sigstore's verifier over it, and the keys it knows with their windows.

    `logs` is keyed by log id (32 bytes; v2's checkpoint key id likewise), `authorities` by the subject key id of each
    certificate in a CA's chain.
    """

    generation: int
    root: TrustedRoot
    verifier: SigstoreVerifier
    fulcio_url: str
    rekor_url: str
    logs: dict[bytes, tuple[Window, ...]]
    authorities: dict[bytes, tuple[Window, ...]]

    @classmethod
    def parse(cls, config: ClientTrustConfig, generation: int) -> Trust:
        """Raises sigstore's Error, or ValueError, if the configuration is not usable for signing to Rekor v1."""
        config.force_tlog_version = REKOR_MAJOR
        signing = config.signing_config
        root = config.trusted_root
        inner = root._inner  # noqa: SLF001 - sigstore-python has no public view of key ids and windows
        logs: dict[bytes, tuple[Window, ...]] = {}
        for log in inner.tlogs:
            for log_id in (log.log_id, log.checkpoint_key_id):
                if log_id is not None:
                    key_id = bytes(log_id.key_id)
                    valid = log.public_key.valid_for
                    window = Window(valid.start, valid.end) if valid is not None else None
                    if window is not None:
                        logs[key_id] = (*logs.get(key_id, ()), window)
        authorities: dict[bytes, tuple[Window, ...]] = {}
        for authority in inner.certificate_authorities:
            window = Window(authority.valid_for.start, authority.valid_for.end)
            for certificate in authority.cert_chain.certificates:
                key_id = _subject_key_id(x509.load_der_x509_certificate(certificate.raw_bytes))
                authorities[key_id] = (*authorities.get(key_id, ()), window)
        return cls(
            generation=generation,
            root=root,
            verifier=SigstoreVerifier(trusted_root=root),
            fulcio_url=signing.get_fulcio().url,
            rekor_url=signing._tlogs[0].url,  # noqa: SLF001 - get_tlogs() gives clients without time-outs
            logs=logs,
            authorities=authorities,
        )


def _subject_key_id(certificate: x509.Certificate) -> bytes:
    return certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest


def _production_floor() -> ClientTrustConfig:
    """Public Sigstore as shipped with the installed sigstore package; no network, no files of the user's."""
    return ClientTrustConfig(
        trustroot.ClientTrustConfig(
            media_type=ClientTrustConfig.ClientTrustConfigType.CONFIG_0_1.value,
            trusted_root=trustroot.TrustedRoot.from_json(read_embedded("trusted_root.json", DEFAULT_TUF_URL)),
            signing_config=trustroot.SigningConfig.from_json(
                read_embedded("signing_config.v0.2.json", DEFAULT_TUF_URL)
            ),
        )
    )


class TrustSource:
    """Holds the current Trust; replaces it as a whole. Safe from any thread."""

    def __init__(
        self,
        file: TrustFile | None,
        clock: Callable[[], float],
        telemetry: Telemetry,
        fetch_production: Callable[[], ClientTrustConfig] = ClientTrustConfig.production,
    ) -> None:
        """Parse the floor or the file. Raises ConfigInvalid if it cannot be used."""
        self._file = file
        self._clock = clock
        self._telemetry = telemetry
        self._fetch_production = fetch_production
        self._lock = threading.Lock()
        self._waiting = threading.Lock()
        self._refreshed_at: float | None = None
        self._stale_at = float("-inf")
        self._refreshed = file is not None
        try:
            config = _production_floor() if file is None else ClientTrustConfig.from_json(file.text)
            self._trust = Trust.parse(config, generation=1)
        except (SigstoreError, ValueError, x509.ExtensionNotFound) as error:
            where = "production" if file is None else str(file.path)
            msg = f"TLOGISTRY_TRUST: {where} is not a usable ClientTrustConfig for Rekor v{REKOR_MAJOR}: {error}"
            raise ConfigInvalid((" ".join(msg.split()),)) from error

    def current(self) -> Trust:
        """The trust configuration now; never blocks."""
        return self._trust

    def state(self) -> str:
        """For people: how current it is."""
        return "ok" if self._refreshed else "ok, as shipped: not refreshed since the start"

    def keep_fresh(self, start: Callable[[str, Callable[[], None]], None]) -> None:
        """Begin a refresh, if the last one is long ago; never waits. Called by requests: between them there may be no CPU."""
        if self._file is not None or self._clock() < self._stale_at:
            return
        with self._lock:
            if self._clock() < self._stale_at:
                return
            self._stale_at = self._clock() + FRESH_S * random.uniform(0.8, 1.2)  # noqa: S311 - spreads load, hides nothing
        with suppress(RuntimeError):  # no thread to be had: another request will try, in half a day
            start("trust-fresh", self._replace)

    def refresh(self) -> Trust:
        """Fetch it once more, waiting at most REFRESH_S and at most every REFRESH_EVERY_S; on failure the old one stays."""
        with self._waiting:
            now = self._clock()
            if self._refreshed_at is not None and now - self._refreshed_at < REFRESH_EVERY_S:
                return self._trust
            self._refreshed_at = now
            worker = threading.Thread(target=self._replace, name="trust-refresh", daemon=True)
            worker.start()
            worker.join(REFRESH_S)
            return self._trust

    def _replace(self) -> None:
        """Put a new one in place of the old one, if it can be had."""
        try:
            if self._file is None:
                config = self._fetch_production()
            else:
                config = ClientTrustConfig.from_json(self._file.path.read_text("utf-8"))
            fetched = Trust.parse(config, generation=0)
        except (SigstoreError, ValueError, OSError, x509.ExtensionNotFound) as error:
            self._telemetry.log("WARNING", "trust root not refreshed", source=self._source(), reason=str(error))
            return
        with self._lock:
            self._trust = replace(fetched, generation=self._trust.generation + 1)
            self._refreshed = True

    def _source(self) -> str:
        return "production" if self._file is None else str(self._file.path)


def key_id_text(key_id: bytes) -> str:
    """How a log id is shown: base64, as in a trusted root."""
    return base64.b64encode(key_id).decode()
