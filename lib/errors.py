"""The error tree of tlogistry.

    TlogistryError
    ├── InputInvalid            what the client sent cannot be parsed           wire
    │   ├── NameInvalid         repository, registry or ns                      400 NAME_INVALID
    │   ├── TagSyntaxInvalid    a tag that no registry can have                 404 MANIFEST_UNKNOWN
    │   ├── DigestInvalid       a malformed digest                              400 DIGEST_INVALID
    │   └── PathInvalid         an unknown path, or a refused spelling of one   404 NAME_UNKNOWN
    ├── UpstreamAnswer          the upstream answered, and has no content for us
    │   ├── NotFound            it does not have the manifest or blob           404 MANIFEST_UNKNOWN, BLOB_UNKNOWN
    │   ├── NotPublic           it does not serve this anonymously              404 NAME_UNKNOWN
    │   └── RateLimited         it asks us to wait                              429 TOOMANYREQUESTS
    ├── Unavailable             could not tell: nothing is served               503 UNAVAILABLE + Retry-After
    │   ├── UpstreamUnavailable     no usable answer from the upstream
    │   │   └── ManifestInvalid     a 200 that is no manifest
    │   ├── LogUnavailable          the transparency log: no answer, or one that does not verify
    │   ├── SignerUnavailable       no identity token or certificate
    │   ├── StoreUnavailable        the record store
    │   ├── RecordInvalid           a record that does not verify
    │   ├── DeadlineExceeded        out of time
    │   └── Overloaded              a waiting room is full
    └── ConfigInvalid           the settings, all problems at once              exit code 2

*Could not tell* is always an exception here and never a verdict (`lib/recorder.py`). The wire form of each is made in one
place, `lib/handlers/response.py`. Messages are for people and reach clients: no tokens, no internals.
"""

from __future__ import annotations

RETRY_AFTER_S = 5  # seconds; long enough for a sequencer's hiccup, short enough for a waiting `docker pull`


class TlogistryError(Exception):
    """The root: everything that this program raises on purpose."""


class InputInvalid(TlogistryError):
    """What the client sent cannot be parsed."""


class NameInvalid(InputInvalid):
    """A repository name, registry host or namespace that is not allowed."""


class TagSyntaxInvalid(InputInvalid):
    """Not a tag by the grammar. No registry can have it, so the wire says 404 (conformance suite)."""


class DigestInvalid(InputInvalid):
    """Not a digest by the grammar, or of an algorithm that is not registered."""


class PathInvalid(InputInvalid):
    """A path that this service does not have, or a second spelling of one that it has."""


class UpstreamAnswer(TlogistryError):
    """The upstream gave a definite answer without content."""


class NotFound(UpstreamAnswer):
    """The upstream does not have it."""


class NotPublic(UpstreamAnswer):
    """The upstream refuses an anonymous client: not public, or not there (many registries do not say which)."""


class RateLimited(UpstreamAnswer):
    """The upstream asks us to wait; `retry_after` is in seconds, None when it did not say."""

    def __init__(self, message: str, retry_after: int | None = None) -> None:
        """Keep the upstream's Retry-After beside the message."""
        super().__init__(message)
        self.retry_after = retry_after


class Unavailable(TlogistryError):
    """Could not tell. Nothing is served, nothing is called "first seen"; `retry_after` is in seconds."""

    def __init__(self, message: str, retry_after: int = RETRY_AFTER_S) -> None:
        """Keep when to try again beside the message."""
        super().__init__(message)
        self.retry_after = retry_after


class UpstreamUnavailable(Unavailable):
    """The upstream could not be reached, or gave no usable answer."""


class ManifestInvalid(UpstreamUnavailable):
    """The upstream answered 200 with something that is no manifest: an outage page, a schema-1 document, a lie."""


class LogUnavailable(Unavailable):
    """The transparency log could not be reached, or what it answered does not verify."""


class SignerUnavailable(Unavailable):
    """No identity token or no certificate, or not for the identity that is configured."""


class StoreUnavailable(Unavailable):
    """The record store could not be read or written."""


class RecordInvalid(Unavailable):
    """A record that does not verify; the message says which check failed."""


class DeadlineExceeded(Unavailable):
    """The time for this request is over."""


class Overloaded(Unavailable):
    """A waiting room is full; refused at once instead of queueing."""


class ConfigInvalid(TlogistryError):
    """The settings are not usable; `problems` lists every one, a line each."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        """Keep the list; the message is its lines."""
        super().__init__("; ".join(problems))
        self.problems = problems
