"""The store's documents, in the JSON of Firestore's REST API, v1: parse and format. Pure.

    claims/KEY      {"tag": {"stringValue": "docker.io/library/alpine:3.16.0"}, "digest": {"stringValue": "sha256:686d…"}}
    sightings/KEY   {"tag": {"stringValue": "docker.io/library/alpine:3.16.0"}, "bundle": {"bytesValue": "eyJtZWRpYVR5…"}}

KEY is the lower-case hex sha256 of the canonical tag: tags hold slashes, and names that start alike would be one hot spot.
https://firebase.google.com/docs/firestore/reference/rest/v1/projects.databases.documents

Not here: how they are sent (`rest.py`), and when (`firestore.py`).
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Literal

from lib.errors import DigestInvalid
from lib.oci.digest import Digest
from lib.sighting.sighting import Bundle
from lib.store.store import BUNDLE_MAX_BYTES

if TYPE_CHECKING:
    from lib.config import FirestoreDatabase
    from lib.oci.reference import Tag


class DocumentInvalid(ValueError):
    """Not what we asked for, or not one of our documents. Never "there is none"."""


@dataclass(frozen=True, slots=True)
class Place:
    """One document of one tag, and the field that it has beside `tag`."""

    database: FirestoreDatabase
    tag: Tag
    collection: Literal["claims", "sightings"]
    field: Literal["digest", "bundle"]
    type: Literal["stringValue", "bytesValue"]

    @classmethod
    def claim(cls, database: FirestoreDatabase, tag: Tag) -> Place:
        """Where the claim of `tag` is."""
        return cls(database, tag, "claims", "digest", "stringValue")

    @classmethod
    def sighting(cls, database: FirestoreDatabase, tag: Tag) -> Place:
        """Where the sighting of `tag` is."""
        return cls(database, tag, "sightings", "bundle", "bytesValue")

    @property
    def key(self) -> str:
        """The document's id."""
        return sha256(str(self.tag).encode()).hexdigest()

    def __str__(self) -> str:
        """The document's name."""
        return f"{self.database}/documents/{self.collection}/{self.key}"

    def format(self, value: str) -> dict[str, object]:
        """The document to create."""
        return {"fields": {"tag": {"stringValue": str(self.tag)}, self.field: {self.type: value}}}

    def parse(self, document: object) -> str:
        """The value in the document. It must have exactly this name, this tag and our two fields.

        Raises DocumentInvalid.
        """
        if not isinstance(document, dict) or document.get("name") != str(self):
            msg = "it is another document"
            raise DocumentInvalid(msg)
        fields = document.get("fields")
        if not isinstance(fields, dict) or fields.keys() != {"tag", self.field}:
            msg = "its fields are not ours"
            raise DocumentInvalid(msg)
        if fields["tag"] != {"stringValue": str(self.tag)}:
            msg = "it names another tag"
            raise DocumentInvalid(msg)
        value = fields[self.field]
        if not isinstance(value, dict) or value.keys() != {self.type} or not isinstance(value[self.type], str):
            msg = f"its {self.field} is not a {self.type}"
            raise DocumentInvalid(msg)
        text: str = value[self.type]
        return text

    def parse_batch(self, answer: object) -> str | None:
        """The value in the answer of `documents:batchGet` to one name; None only if it says that this one is missing.

        Raises DocumentInvalid.
        """
        only = answer[0] if isinstance(answer, list) and len(answer) == 1 else None
        if not isinstance(only, dict) or not {"readTime"} < only.keys() <= {"readTime", "found", "missing"}:
            msg = "the answer is not about one document"
            raise DocumentInvalid(msg)
        if only.keys() == {"readTime", "found"}:
            return self.parse(only["found"])
        if only.get("missing") != str(self) or "found" in only:
            msg = "the answer is about another document"
            raise DocumentInvalid(msg)
        return None


def format_bundle(bundle: Bundle) -> str:
    """As a `bytesValue`."""
    return b64encode(bundle).decode()


def parse_bundle(text: str) -> Bundle:
    """The inverse; raises DocumentInvalid."""
    msg = "its bundle is not base64"
    try:
        bundle = Bundle(b64decode(text, validate=True))
    except ValueError as error:
        raise DocumentInvalid(msg) from error
    if format_bundle(bundle) != text:  # stray bits after the last byte
        raise DocumentInvalid(msg)
    if len(bundle) > BUNDLE_MAX_BYTES:
        msg = f"its bundle has {len(bundle)} bytes"
        raise DocumentInvalid(msg)
    return bundle


def parse_digest(text: str) -> Digest:
    """The digest of a claim; raises DocumentInvalid."""
    try:
        return Digest.parse(text)
    except DigestInvalid as error:
        msg = "its claim is not a digest"
        raise DocumentInvalid(msg) from error
