"""The error tree of tlogistry.

    TlogistryError
    ├── InputInvalid            what the client sent cannot be parsed           wire
    │   ├── NameInvalid         repository, registry or ns                      400 NAME_INVALID
    │   ├── TagSyntaxInvalid    a tag that no registry can have                 404 MANIFEST_UNKNOWN
    │   ├── DigestInvalid       a malformed digest                              400 DIGEST_INVALID
    │   ├── ParameterInvalid    n, last, artifactType, or a query               400 UNSUPPORTED
    │   └── PathInvalid         an unknown path, or a refused spelling of one   404 NAME_UNKNOWN
    ├── UpstreamAnswer          the upstream answered, and has no content for us
    │   ├── NotFound            it does not have the manifest or blob           404 MANIFEST_UNKNOWN, BLOB_UNKNOWN
    │   ├── NotPublic           it does not serve this anonymously              404 NAME_UNKNOWN
    │   ├── NoReferrers         it has no referrers API                         its own 4xx
    │   ├── ManifestInvalid     a manifest that is not served: schema 1, two shapes, two types   400 MANIFEST_INVALID
    │   └── RateLimited         it asks us to wait                              429 TOOMANYREQUESTS
    ├── TooManyNew              a limit of ours on new tags is reached          429 TOOMANYREQUESTS + Retry-After
    ├── Loop                    the request came through this service already   508 UNSUPPORTED
    ├── Unavailable             could not tell: nothing is served               503 UNAVAILABLE + Retry-After
    │   ├── UpstreamUnavailable     no usable answer from the upstream
    │   │   └── NoManifest          a 200 that is no manifest at all
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

from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Mapping

RETRY_AFTER_S = 5  # seconds; long enough for a sequencer's hiccup, short enough for a waiting `docker pull`


class TlogistryError(Exception):
    """The root: everything that this program raises on purpose."""

    def again(self) -> Self:
        """The same error for another thread: one exception object must not be raised in two."""
        fresh = self.__class__.__new__(self.__class__, *self.args)
        fresh.__dict__.update(self.__dict__)
        return fresh


class InputInvalid(TlogistryError):
    """What the client sent cannot be parsed."""


class NameInvalid(InputInvalid):
    """A repository name, registry host or namespace that is not allowed."""


class TagSyntaxInvalid(InputInvalid):
    """Not a tag by the grammar. No registry can have it, so the wire says 404 (conformance suite)."""


class DigestInvalid(InputInvalid):
    """Not a digest by the grammar, or of an algorithm that is not registered."""


class ParameterInvalid(InputInvalid):
    """A query, or a parameter of one, that no registry understands."""


class PathInvalid(InputInvalid):
    """A path that this service does not have, or a second spelling of one that it has."""


class UpstreamAnswer(TlogistryError):
    """The upstream gave a definite answer without content."""


class NotFound(UpstreamAnswer):
    """The upstream does not have it."""


class NotPublic(UpstreamAnswer):
    """The upstream refuses an anonymous client: not public, or not there (many registries do not say which)."""


class NoReferrers(UpstreamAnswer):
    """The upstream answered a request for referrers with `status`, a 4xx; clients look at the fall-back tag then."""

    def __init__(self, message: str, status: int, *, name_unknown: bool = False) -> None:
        """`name_unknown`: the upstream says that it is the repository that is not there."""
        super().__init__(message)
        self.status = status
        self.name_unknown = name_unknown


class ManifestInvalid(UpstreamAnswer):
    """The upstream answered with a manifest that is not served: of schema 1, of two shapes, of two types, too large."""


class RateLimited(UpstreamAnswer):
    """The upstream asks us to wait; `retry_after` is in seconds, None when it did not say.

    `limits` holds the headers in which it said how much is left.
    """

    def __init__(self, message: str, retry_after: int | None = None, limits: Mapping[str, str] | None = None) -> None:
        """Keep the upstream's Retry-After and limits beside the message."""
        super().__init__(message)
        self.retry_after = retry_after
        self.limits = dict(limits or {})


class TooManyNew(TlogistryError):
    """A tag that was never recorded is not recorded now, because too many were; `retry_after` is in seconds."""

    def __init__(self, message: str, retry_after: int) -> None:
        """Keep when to try again beside the message."""
        super().__init__(message)
        self.retry_after = retry_after


class Loop(TlogistryError):
    """The request came through this service, or another instance of it, already."""


class Unavailable(TlogistryError):
    """Could not tell. Nothing is served, nothing is called "first seen"; `retry_after` is in seconds."""

    def __init__(self, message: str, retry_after: int = RETRY_AFTER_S) -> None:
        """Keep when to try again beside the message."""
        super().__init__(message)
        self.retry_after = retry_after


class UpstreamUnavailable(Unavailable):
    """The upstream could not be reached, or gave no usable answer."""


class NoManifest(UpstreamUnavailable):
    """The upstream answered 200 with something that is no manifest at all: an outage page, half a document."""


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
