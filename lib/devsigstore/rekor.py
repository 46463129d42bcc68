"""Rekor v1's HTTP API over the log: create, read, search; its limits and refusals are in its words.

Two ways to refuse, as in Rekor: what its framework finds wrong with a request (`Refused`) has no newline after the
JSON, what its own code finds wrong (`_failed`) has one.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from lib.devsigstore import entries
from lib.devsigstore.log import Exists
from lib.devsigstore.merkle import leaf_hash
from lib.devsigstore.reply import Reply

if TYPE_CHECKING:
    from lib.devsigstore.faults import Calls, Faults
    from lib.devsigstore.log import Log
    from lib.devsigstore.reply import Request

ENTRIES_MAX = 10  # in one retrieve call
METHODS = {
    "/api/v1/log": "GET",
    "/api/v1/log/publicKey": "GET",
    "/api/v1/log/proof": "GET",
    "/api/v1/log/entries": "GET,POST",
    "/api/v1/log/entries/retrieve": "POST",
    "/api/v1/index/retrieve": "POST",
}
BODY_NAMES = {
    "/api/v1/log/entries": "proposedEntry",
    "/api/v1/log/entries/retrieve": "entry",
    "/api/v1/index/retrieve": "query",
}
ENTRY = re.compile(r"/api/v1/log/entries/([^/]+)", re.ASCII)
UUID = re.compile(r"[0-9a-fA-F]{64}|[0-9a-fA-F]{80}", re.ASCII)
UUID_RULE = "^([0-9a-fA-F]{64}|[0-9a-fA-F]{80})$"
HASH = re.compile(r"(?:sha512:)?[0-9a-fA-F]{128}|(?:sha256:)?[0-9a-fA-F]{64}|(?:sha1:)?[0-9a-fA-F]{40}", re.ASCII)
HASH_RULE = "^(sha512:)?[0-9a-fA-F]{128}$|^(sha256:)?[0-9a-fA-F]{64}$|^(sha1:)?[0-9a-fA-F]{40}$"
NUMBER = re.compile(r"[0-9]{1,18}", re.ASCII)
VARY = {"Vary": "Origin"}
NEVER_KEPT = {
    "Cache-Control": "no-cache, no-store, no-transform, must-revalidate, private, max-age=0",
    "Expires": "Thu, 01 Jan 1970 00:00:00 GMT",
    "Pragma": "no-cache",
    "X-Accel-Expires": "0",
}


class Refused(Exception):
    """What the framework finds wrong with a request; `code` is its own, finer than the status."""

    def __init__(self, status: int, message: str, code: int | None = None, **headers: str) -> None:
        """Keep the answer."""
        super().__init__(message)
        reply = Reply.json(status, {"code": code or status, "message": message}, **headers)
        self.reply = reply._replace(body=reply.body.rstrip(b"\n"))


class RekorApi:
    """Answers for the log."""

    def __init__(self, log: Log, faults: Faults, calls: Calls) -> None:
        """Keep the collaborators."""
        self._log = log
        self._faults = faults
        self._calls = calls

    def answer(self, request: Request) -> Reply:
        """Route one request under /api/v1/."""
        try:
            reply = self._route(request.path.removesuffix("/"), request)
        except Refused as refused:
            reply = refused.reply
        return reply.plus(VARY)

    def _route(self, path: str, request: Request) -> Reply:
        allowed = METHODS.get(path) or ("GET" if ENTRY.fullmatch(path) else None)
        if allowed is None:
            raise Refused(404, f"path {path} was not found")
        if request.method not in allowed.split(","):
            raise Refused(405, f"method {request.method} is not allowed, but [{allowed}] are", Allow=allowed)
        if request.method == "POST":
            return self._post(path, request)
        try:
            reply = self._read(path, request.query)
        except Refused as refused:
            reply = refused.reply
        return reply.plus(NEVER_KEPT)

    def _post(self, path: str, request: Request) -> Reply:
        kind = (request.headers.get("Content-Type") or "application/octet-stream").partition(";")[0].strip()
        if kind != "application/json":
            raise Refused(415, f'unsupported media type "{kind}", only [application/json] are allowed')
        try:
            asked = json.loads(request.body) if request.body else None
        except (ValueError, RecursionError) as error:
            raise Refused(400, f'parsing {BODY_NAMES[path]} body from "" failed, because unexpected EOF') from error
        if not isinstance(asked, dict):
            raise Refused(422, f"{BODY_NAMES[path]} in body is required", 602)
        match path:
            case "/api/v1/index/retrieve":
                return self._search(asked)
            case "/api/v1/log/entries/retrieve":
                return self._retrieve(asked)
        return self._append(asked, request)

    def _read(self, path: str, query_text: str) -> Reply:
        self._calls.add("read")
        query = parse_qs(query_text)
        match path:
            case "/api/v1/log":
                return Reply.json(200, self._log.info())
            case "/api/v1/log/publicKey":
                pem = self._log.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
                return Reply.text(200, pem, "application/x-pem-file")
            case "/api/v1/log/proof":
                return self._proof(_number(query, "firstSize", "1"), _number(query, "lastSize"))
            case "/api/v1/log/entries":
                found = self._log.by_position(_number(query, "logIndex"))
            case _:
                uuid = path.rpartition("/")[2]
                if UUID.fullmatch(uuid) is None:
                    raise Refused(422, f"entryUUID in path should match '{UUID_RULE}'", 605)
                found = self._log.by_uuid(uuid.lower())
        return Reply.json(200, found) if found is not None else Reply.empty(404)

    def _proof(self, first: int, last: int) -> Reply:
        found = self._log.proof(first, last)
        if found is None:
            return _failed(400, f"firstSize({first}) and lastSize({last}) are not sizes of this log, in this order")
        return Reply.json(200, found)

    def _search(self, asked: dict[str, Any]) -> Reply:
        self._calls.add("index")
        if "index:before" in self._faults:
            return _failed(500, "error searching the index")
        keys = []
        if "hash" in asked:
            if not isinstance(asked["hash"], str) or HASH.fullmatch(asked["hash"]) is None:
                raise Refused(422, f"hash in body should match '{HASH_RULE}'", 605)
            text = asked["hash"].lower()
            keys.append(text if ":" in text else {64: "sha256:", 128: "sha512:", 40: "sha1:"}[len(text)] + text)
        keys.extend(str(asked[name]).lower() for name in ("email", "subject") if name in asked)
        return Reply.json(200, self._log.search(keys, every=asked.get("operator") == "and"))

    def _retrieve(self, asked: dict[str, Any]) -> Reply:
        """Whole UUIDs first, then what is looked up by its leaf hash, then indexes; what is missing is left out."""
        self._calls.add("retrieve")
        uuids = _items(asked, "entryUUIDs", str)
        proposed = _items(asked, "entries", dict)
        indexes = _items(asked, "logIndexes", int)
        if len(uuids) + len(proposed) + len(indexes) > ENTRIES_MAX:
            return _failed(422, f"more than max allowed {ENTRIES_MAX} entries in request")
        for number, uuid in enumerate(uuids):
            if UUID.fullmatch(uuid) is None:
                raise Refused(422, f"entryUUIDs.{number} in body should match '{UUID_RULE}'", 605)
        if "retrieve:missing" in self._faults:
            return Reply.json(200, [])
        whole_first = sorted(uuids, key=len, reverse=True)
        found = [self._log.by_uuid(uuid.lower()) for uuid in whole_first]
        try:
            found += [self._log.by_leaf(leaf_hash(_parse(entry).body)) for entry in proposed]
        except entries.EntryInvalid as error:
            return _failed(400, str(error))
        found += [self._log.by_position(index) for index in indexes if 0 <= index < 1 << 63]
        return Reply.json(200, [entry for entry in found if entry is not None])

    def _append(self, asked: dict[str, Any], request: Request) -> Reply:
        for name in ("kind", "apiVersion", "spec"):
            if name not in asked:
                raise Refused(422, f"{name} in body is required", 602)
        kind = asked["kind"]
        if kind not in ("dsse", "intoto"):
            raise Refused(422, f'invalid kind value: "{kind}"')
        self._calls.add("append" if kind == "dsse" else "copy")
        copy = ("copy:before", "copy:late") if kind == "intoto" else ()
        if "log:before" in self._faults or ("copy:before" in self._faults and copy):
            return _failed(500, "error communicating with the log backend")
        try:
            proposed = _parse(asked)
            uuid, entry, position = self._log.append(proposed)
        except entries.EntryInvalid as error:
            return _failed(400, str(error))
        except Exists as known:
            message = f"an equivalent entry already exists in the transparency log with UUID {known}"
            return _failed(409, message).plus({"Location": f"/api/v1/log/entries/{known}"})
        if self._faults.hold("log:late", *copy[1:]) and request.given_up():
            return Reply.lost()  # Rekor indexes in the request that added the leaf, and it is gone
        self._log.index(position, proposed.keys)
        if "log:after" in self._faults:
            return Reply.lost()
        return Reply.json(201, {uuid: entry}, Location=f"/api/v1/log/entries/{uuid}", Etag=uuid)


def _parse(asked: dict[str, Any]) -> entries.Proposed:
    return entries.parse(str(asked.get("kind")), str(asked.get("apiVersion")), asked.get("spec") or {})


def _items(asked: dict[str, Any], name: str, kind: type) -> list[Any]:
    """An optional array of at least one and at most ENTRIES_MAX of one JSON type."""
    items = asked.get(name)
    if items is None:
        return []
    if not isinstance(items, list) or not all(type(item) is kind for item in items):
        raise Refused(400, f'parsing entry body from "" failed, because {name} is of another type')
    if not items:
        raise Refused(422, f"{name} in body should have at least 1 items", 612)
    if len(items) > ENTRIES_MAX:
        raise Refused(422, f"{name} in body should have at most {ENTRIES_MAX} items", 611)
    return items


def _number(query: dict[str, list[str]], name: str, default: str | None = None) -> int:
    text = query.get(name, [default])[0]
    if text is None:
        raise Refused(422, f"{name} in query is required", 602)
    if NUMBER.fullmatch(text) is None:
        raise Refused(422, f'{name} in query must be of type int64: "{text}"', 601)
    return int(text)


def _failed(status: int, message: str) -> Reply:
    return Reply.json(status, {"code": status, "message": message})
