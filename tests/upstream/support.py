"""What the upstream's tests share."""

from __future__ import annotations

import io
import json
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lib.config import BaseUrl
from lib.deadline import Deadline
from lib.oci.manifest import OCI_MANIFEST
from lib.oci.reference import Tag
from lib.telemetry import Telemetry
from lib.upstream.addresses import system_resolver
from lib.upstream.registry import Registries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from lib.upstream.addresses import Resolver
    from lib.upstream.limits import Limits
    from lib.upstream.secret import Secret
    from tests.fakes.registry import FakeRegistry

ALPINE = Tag.parse("alpine:3.16.0")
ALPINE_PATH = "/v2/library/alpine/manifests/3.16.0"
TYPE = OCI_MANIFEST


def soon(seconds: float = 5.0) -> Deadline:
    """A deadline on the real clock."""
    return Deadline.after(seconds, time.monotonic)


class Asking:
    """Registries, and what they logged."""

    def __init__(self, registries: Registries, lines: io.StringIO) -> None:
        self.registries = registries
        self._lines = lines

    @property
    def log(self) -> list[dict[str, object]]:
        """The log lines so far."""
        return [json.loads(line) for line in self._lines.getvalue().splitlines()]


@contextmanager
def asking(
    mapping: Mapping[str, FakeRegistry | str],
    *,
    resolver: Resolver = system_resolver,
    limits: Limits | None = None,
    clock: Callable[[], float] = time.monotonic,
    secret: Secret | None = None,
) -> Iterator[Asking]:
    """Registries with these base URLs. A fake's token server is mapped, too, under a name of its own."""
    urls: dict[str, BaseUrl] = {}
    for name, target in mapping.items():
        if isinstance(target, str):
            urls[name] = BaseUrl.parse(target)
        else:
            urls[name] = BaseUrl.parse(target.base_url)
            urls[f"token.{name}"] = BaseUrl.parse(target.token_url.removesuffix("/token"))
    lines = io.StringIO()
    registries = Registries(urls, clock, Telemetry("json", lines), resolver, limits, secret=secret)
    try:
        yield Asking(registries, lines)
    finally:
        registries.close()


class HeldSecret:
    """A secret in memory, which can be rotated, or made unreadable by an error."""

    def __init__(self, content: object) -> None:
        self.content = content  # an object becomes JSON; bytes are as they are; an exception is raised
        self.reads = 0

    def read(self) -> bytes:
        self.reads += 1
        if isinstance(self.content, Exception):
            raise self.content
        return self.content if isinstance(self.content, bytes) else json.dumps(self.content).encode()

    def __str__(self) -> str:
        return "a secret in memory"


def names(table: Mapping[str, list[str]]) -> Resolver:
    """A resolver that knows only these names."""

    def resolve(host: str, port: int) -> list[str]:
        del port
        if host not in table:
            raise OSError(host)
        return table[host]

    return resolve
