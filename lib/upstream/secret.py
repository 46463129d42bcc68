"""Where the credentials are kept: a version of a secret in Secret Manager, or a file on a laptop.

    GET https://secretmanager.googleapis.com/v1/projects/PROJECT/secrets/NAME/versions/latest:access

Through google-cloud-secret-manager over REST: as fast as its gRPC transport here and 5 MB smaller, without threads of its
own, and its requests can go through the session that bounds time, bytes and redirects (docs/adr/0006). Imported on first use
only: it costs about 200 ms and 20 MB. Both give bytes; what is in them is `credentials.py`, how long they are believed is
`keyring.py`.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Any, Protocol

import requests

from lib.errors import Unavailable
from lib.http import BoundedSession
from lib.upstream.credentials import MAX_BYTES

if TYPE_CHECKING:
    from pathlib import Path

    from google.auth.credentials import Credentials
    from google.cloud.secretmanager_v1 import SecretManagerServiceClient

    from lib.config import BaseUrl, SecretName

CALL_S = 5.0  # seconds for one call, from its start to its last byte; it is answered within 100 ms
ANSWER_BYTES = 2 * MAX_BYTES  # the payload in base64, and its name
SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)
# Only what people can do something about; the rest is named by its class. Over REST the class is the status's.
REASONS = {
    "NotFound": "there is no such secret, or it has no version yet",
    "Forbidden": "permission denied: the service account needs roles/secretmanager.secretAccessor on it",
    "BadRequest": "this version is disabled or destroyed",  # FAILED_PRECONDITION; the name is one, or would not be here
    "DefaultCredentialsError": "no service account: this is not Google Cloud",
}


class SecretUnavailable(Unavailable):
    """The secret could not be read; the text says why, and holds nothing of it."""


class Secret(Protocol):
    """Something that holds the credentials. Read by one thread at a time."""

    def read(self) -> bytes:
        """The content as it is now, at most `MAX_BYTES` and a little; may block. Raises SecretUnavailable. Retries nothing."""
        ...

    def __str__(self) -> str:
        """What log lines call it."""
        ...


class SecretFile:
    """A file, which is read anew each time."""

    def __init__(self, path: Path) -> None:
        """It need not be there yet."""
        self._path = path

    def read(self) -> bytes:
        """See Secret. Only a regular file: a named pipe would never answer."""
        try:
            with open(self._path, "rb", opener=_not_waiting) as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    msg = "not a regular file"
                    raise SecretUnavailable(msg)
                return file.read(MAX_BYTES + 1)
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path
            msg = error.strerror if isinstance(error, OSError) and error.strerror else "no file can have this name"
            raise SecretUnavailable(msg) from error

    def __str__(self) -> str:
        """Its path."""
        return str(self._path)


def _not_waiting(path: str, flags: int) -> int:
    """To open a named pipe waits for its writer."""
    return os.open(path, flags | os.O_NONBLOCK)


class ManagedSecret:
    """A version in Secret Manager. Nothing is imported, made or connected before the first `read`."""

    def __init__(self, name: SecretName, endpoint: BaseUrl | None, call_s: float = CALL_S) -> None:
        """`endpoint` is an imitation on loopback, which needs no account; None for Google's own."""
        self._name = name
        self._endpoint = endpoint
        self._call_s = call_s
        self._client: SecretManagerServiceClient | None = None

    def read(self) -> bytes:
        """See Secret."""
        from google.api_core.exceptions import GoogleAPICallError  # noqa: PLC0415 - paid only when configured
        from google.auth.exceptions import GoogleAuthError  # noqa: PLC0415 - as above
        from google.protobuf.json_format import (  # type: ignore[import-untyped]  # noqa: PLC0415 - as above
            Error as FormatError,
        )

        try:
            if self._client is None:
                self._client = _client(self._endpoint)
            answer = self._client.access_secret_version(name=str(self._name), retry=None, timeout=self._call_s)
        except (
            GoogleAPICallError,
            GoogleAuthError,
            FormatError,
            requests.RequestException,
            OSError,
            ValueError,
        ) as error:
            kind = type(error).__name__
            raise SecretUnavailable(REASONS.get(kind, f"no answer from Secret Manager ({kind})")) from error
        return bytes(answer.payload.data)

    def __str__(self) -> str:
        """Its resource name."""
        return str(self._name)


class _Session(BoundedSession):
    """Google's AuthorizedSession in small: a token for each call, and limits on both."""

    def __init__(self, credentials: Credentials) -> None:
        super().__init__(CALL_S, ANSWER_BYTES)
        self._credentials = credentials

    def request(self, method: str | bytes, url: str | bytes, *args: Any, **kwargs: Any) -> requests.Response:  # noqa: ANN401 - requests' own signature
        from google.auth.transport.requests import Request  # noqa: PLC0415 - as in `read`

        headers = dict(kwargs.pop("headers", None) or {})
        self._credentials.before_request(  # type: ignore[no-untyped-call]
            Request(BoundedSession(CALL_S, ANSWER_BYTES)), method, url, headers
        )
        return super().request(method, url, *args, headers=headers, **kwargs)


def _client(endpoint: BaseUrl | None) -> SecretManagerServiceClient:
    """Over REST, through our session."""
    import google.auth  # noqa: PLC0415 - as in `read`
    from google.auth.credentials import AnonymousCredentials  # noqa: PLC0415 - as in `read`
    from google.auth.transport.requests import Request  # noqa: PLC0415 - as in `read`
    from google.cloud.secretmanager_v1 import SecretManagerServiceClient  # noqa: PLC0415 - as in `read`
    from google.cloud.secretmanager_v1.services.secret_manager_service.transports.rest import (  # noqa: PLC0415 - as in `read`
        DEFAULT_CLIENT_INFO,
        SecretManagerServiceRestTransport,
    )

    if endpoint is None:
        found, _project = google.auth.default(scopes=SCOPES, request=Request(BoundedSession(CALL_S, ANSWER_BYTES)))
        credentials: Credentials = found
        transport = SecretManagerServiceRestTransport(credentials=credentials)
    else:
        credentials = AnonymousCredentials()  # type: ignore[no-untyped-call]
        transport = SecretManagerServiceRestTransport(
            host=str(endpoint).partition("://")[2], url_scheme=endpoint.scheme, credentials=credentials
        )
    # Its own has no limit but a time-out, follows redirects, and lets the environment's proxies and netrc in.
    transport._session = _Session(credentials)  # type: ignore[assignment]  # noqa: SLF001 - there is no other way in
    transport._prep_wrapped_messages(DEFAULT_CLIENT_INFO)  # type: ignore[no-untyped-call]  # noqa: SLF001 - made for a session
    return SecretManagerServiceClient(transport=transport)
