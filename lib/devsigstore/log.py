"""The transparency log: Rekor v1's append, proofs, promises and search over a growing RFC 6962 tree."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import secrets
import threading
import time
from typing import TYPE_CHECKING, Any

import rfc8785
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from lib.devsigstore.authority import load_key, spki
from lib.devsigstore.merkle import Tree, leaf_hash
from lib.devsigstore.state import Row

if TYPE_CHECKING:
    from lib.devsigstore.entries import Proposed
    from lib.devsigstore.faults import Faults
    from lib.devsigstore.state import State

ORIGIN = "tlogistry-dev-log.NOT-FOR-PRODUCTION.invalid"


class Exists(Exception):
    """The same bytes are in the log already, as this UUID."""


class Log:
    """Appends one at a time, durable before the answer. Safe from any thread."""

    def __init__(self, state: State, faults: Faults) -> None:
        """Load the tree and the key, or make them."""
        self._state = state
        self._faults = faults
        self.key = load_key(state, "log-key")
        self.log_id = hashlib.sha256(spki(self.key)).digest()
        self.tree_id = int(state.setting("tree-id", lambda: str(1 << 61 | secrets.randbits(61)).encode()))
        self._tree = Tree(state.leaves())
        self._lock = threading.Lock()

    def append(self, proposed: Proposed) -> tuple[str, dict[str, Any], int]:
        """The new entry's UUID, its answer and its position. Not searchable yet: `index` is the request's last act.

        Raises Exists.
        """
        leaf = leaf_hash(proposed.body)
        with self._lock:
            if self._state.position(leaf) is not None:
                raise Exists(self.uuid(leaf))
            row = Row(len(self._tree), proposed.body, int(time.time()))
            self._state.append(row, leaf, proposed.attestation)
            self._tree.append(leaf)
        return self.uuid(leaf), self._answer(row, attestation=False), row.position

    def index(self, position: int, keys: tuple[str, ...]) -> None:
        """Make the entry found."""
        if "index:lossy" not in self._faults:
            self._state.index(position, list(keys))

    def search(self, keys: list[str], *, every: bool) -> list[str]:
        """The UUIDs under any of the keys, or under every one; in no order."""
        found = [self._state.search(key) for key in keys]
        if not found:
            return []
        uuids = [self.uuid(leaf) for leaf in (set.intersection(*found) if every else set.union(*found))]
        random.shuffle(uuids)
        return uuids

    def by_uuid(self, uuid: str) -> dict[str, Any] | None:
        """The entry of a UUID of 64 or 80 hex digits, keyed by the whole one."""
        if len(uuid) == 80 and int(uuid[:16], 16) != self.tree_id:  # noqa: PLR2004 - tree id and leaf
            return None
        return self.by_leaf(bytes.fromhex(uuid[-64:]))

    def by_leaf(self, leaf: bytes) -> dict[str, Any] | None:
        """The entry with a leaf hash."""
        position = self._state.position(leaf)
        return self.by_position(position) if position is not None else None

    def by_position(self, position: int) -> dict[str, Any] | None:
        """The entry at a log index; not before the tree has it, because a proof must be of a place under the root."""
        row = self._state.row(position) if position < len(self._tree) else None
        return {self.uuid(leaf_hash(row.body)): self._answer(row)} if row is not None else None

    def uuid(self, leaf: bytes) -> str:
        """Tree id and leaf hash."""
        return f"{self.tree_id:016x}{leaf.hex()}"

    def info(self) -> dict[str, Any]:
        """GET /api/v1/log."""
        size = len(self._tree)
        return {
            "inactiveShards": None,
            "rootHash": self._tree.root(size).hex(),
            "signedTreeHead": self._checkpoint(size),
            "treeID": str(self.tree_id),
            "treeSize": size,
        }

    def proof(self, first: int, last: int) -> dict[str, Any] | None:
        """GET /api/v1/log/proof; None if there never were such sizes."""
        if not 0 < first <= last <= len(self._tree):
            return None
        hashes_ = [node.hex() for node in self._tree.consistency(first, last)]
        return {"hashes": hashes_, "rootHash": self._tree.root(last).hex()}

    def _answer(self, row: Row, *, attestation: bool = True) -> dict[str, Any]:
        """A log entry as every answer shows it: with a fresh proof against the tree as it is now."""
        size = len(self._tree)
        path = [node.hex() for node in self._tree.inclusion(row.position, size)]
        root = self._tree.root(size)
        if "proof:bad" in self._faults:
            path = [*path[:-1], "00" * 32] if path else ["00" * 32]
        body = base64.b64encode(row.body).decode()
        entry: dict[str, Any] = {
            "body": body,
            "integratedTime": row.time,
            "logID": self.log_id.hex(),
            "logIndex": row.position,
            "verification": {
                "inclusionProof": {
                    "checkpoint": self._checkpoint(size),
                    "hashes": path,
                    "logIndex": row.position,
                    "rootHash": root.hex(),
                    "treeSize": size,
                },
                "signedEntryTimestamp": self._promise(body, row),
            },
        }
        kept = self._attestation(row.body) if attestation else None
        if kept is not None:
            entry["attestation"] = {"data": base64.b64encode(kept).decode()}
        return entry

    def _attestation(self, body: bytes) -> bytes | None:
        """An intoto entry shows whatever is kept under its payload's hash; a dsse entry never does."""
        said = json.loads(body)
        if said["kind"] != "intoto":
            return None
        return self._state.attestation(said["spec"]["content"]["payloadHash"]["value"])

    def _promise(self, body: str, row: Row) -> str:
        """The signed entry timestamp."""
        promised: dict[str, Any] = {
            "body": body,
            "integratedTime": row.time,
            "logID": self.log_id.hex(),
            "logIndex": row.position,
        }
        signature = self.key.sign(rfc8785.dumps(promised), ec.ECDSA(hashes.SHA256()))
        if "set:bad" in self._faults:
            signature = self.key.sign(b"something else", ec.ECDSA(hashes.SHA256()))
        return base64.b64encode(signature).decode()

    def _checkpoint(self, size: int) -> str:
        """A signed note (C2SP tlog-checkpoint) with Rekor v1's origin, which ends in the tree id."""
        root = base64.b64encode(self._tree.root(size)).decode()
        note = f"{ORIGIN} - {self.tree_id}\n{size}\n{root}\n"
        signature = self.key.sign(note.encode(), ec.ECDSA(hashes.SHA256()))
        return f"{note}\n\u2014 {ORIGIN} {base64.b64encode(self.log_id[:4] + signature).decode()}\n"
