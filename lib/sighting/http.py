"""The HTTP session for Sigstore's services and the metadata server: requests, made safe in one place.

requests and sigstore-python put no time-out, no cap and no rule on redirects on these calls, and let `~/.netrc` and proxy
variables in (sigstore-facts 3.5, gcp-facts 10). The hosts are the deployer's choice, not a stranger's, so there is no address
guard here; that is `lib/upstream/transport.py`.
"""

from __future__ import annotations

import time
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import requests
from requests.adapters import HTTPAdapter

CONNECT_S = 5.0  # seconds; a loopback or regional service answers in milliseconds
CHUNK_BYTES = 65_536
POOL_SIZE = 32  # connections kept for each host: as many as first sightings run at once


class TooLarge(requests.RequestException):
    """An answer over the byte cap; `prefix` is what was read of it."""

    def __init__(self, url: str, prefix: bytes) -> None:
        """Keep the prefix: an over-long index answer is a flood, of which some is looked at."""
        super().__init__(f"the answer of {url} is longer than {len(prefix)} bytes")
        self.prefix = prefix


class BoundedSession(requests.Session):
    """A session whose every call has a connect time-out, a read time-out, a total limit and a byte cap, and no redirects.

    `total_s` bounds one call from its start to its last byte, in seconds, so that a drip of one byte a second ends.
    Safe from several threads: no cookies are kept, and urllib3's pool is locked.
    """

    def __init__(self, total_s: float, max_bytes: int) -> None:
        """No environment: no proxies, no netrc, no CA bundle by variable."""
        super().__init__()
        self.trust_env = False
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self.headers["Accept-Encoding"] = "identity"
        adapter = HTTPAdapter(pool_maxsize=POOL_SIZE, max_retries=0)
        self.mount("http://", adapter)
        self.mount("https://", adapter)
        self._total_s = total_s
        self._max_bytes = max_bytes

    def request(self, method: str | bytes, url: str | bytes, *args: Any, **kwargs: Any) -> requests.Response:  # noqa: ANN401 - requests' own signature
        """As requests' own, with limits; a `timeout` argument may only make them smaller."""
        asked = kwargs.pop("timeout", None)
        total = min(self._total_s, asked) if isinstance(asked, (int, float)) else self._total_s
        started = time.monotonic()
        kwargs.update(timeout=(min(CONNECT_S, total), total), allow_redirects=False, stream=True)
        response = super().request(method, url, *args, **kwargs)
        with response:
            content = bytearray()
            for chunk in response.iter_content(CHUNK_BYTES):
                content += chunk
                if len(content) > self._max_bytes:
                    raise TooLarge(str(url), bytes(content[: self._max_bytes]))
                if time.monotonic() - started > total:
                    msg = f"no whole answer from {url!s} within {total:g} s"
                    raise requests.ReadTimeout(msg)
        response._content = bytes(content)  # noqa: SLF001 - where requests itself keeps a body that was read
        return response
