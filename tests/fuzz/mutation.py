"""Changes one case into another: bytes, words of the target's language, the structure of JSON. Seeded; no clock, no I/O."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

CASE_MAX = 16_384  # bytes; longer ones find nothing that these do not, and cost their length each time
CHANGES_MAX = 5
REPEATS_MAX = 3_000  # what a regex that backtracks shows itself at
DEPTH_MAX = 2_000  # beyond what Python's JSON follows
WORDS: tuple[bytes, ...] = (
    *(bytes([byte]) for byte in b"\x00\t\n\r\x0b\x1f \x7f\x80\x85\xa0\xff\"%'()*+,-./:;<=>?@[\\]^_`{|}~"),
    *(b"%2F", b"%2f", b"%00", b"%3A", b"%25", b"%2e%2e", b"..", b"//", b"/./", b"/../", b"\r\n", b"\\", b"#", b"?"),
    # one character in Unicode's eyes and another in ASCII's: folded, compatible, wide, other scripts' digits, half a character
    *(letter.encode() for letter in "\u0130\u0131\u017f\u212a\xe9\xdf\u0663\uff13\uff0e\uff0f\uff1a\uff20\u2026\ufffc"),
    *(letter.encode() for letter in "\u200b\u202e\u2028\ufeff"),
    b"\xed\xa0\x80",
    *(b"0", b"-1", b"+1", b"1_0", b"01", b"1e9", b"0x7f", b"2147483648", b"18446744073709551616", b"9" * 400),
    *(b"null", b"true", b"NaN", b"{}", b"[]", b'""', b"__proto__"),
)
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 2, 2.0, 1e308, 1 << 63, 10**400, "", "\x00", "\ud800", "é", "0", "2", "latest", "[]"),
    *([], {}, [None], [[]], {"": None}, [{}]),
)


def mutate(case: bytes, others: Sequence[bytes], words: Sequence[bytes], rng: random.Random) -> bytes:
    """One to CHANGES_MAX changes. `others` are cases to borrow from, `words` those of the target's language."""
    for _ in range(1 + min(int(rng.expovariate(0.9)), CHANGES_MAX - 1)):
        change = rng.choice(CHANGES)
        case = change(case, others, words, rng)[:CASE_MAX]
    return case


def mutate_json(case: bytes, others: Sequence[bytes], words: Sequence[bytes], rng: random.Random) -> bytes:
    """Most of the time a change of the document's structure, else, or if there is none, one of its bytes."""
    if rng.random() < 0.25:
        return mutate(case, others, words, rng)
    try:
        document = json.loads(case)
        for _ in range(1 + min(int(rng.expovariate(1.2)), CHANGES_MAX - 1)):
            document = _changed(document, words, rng)
        text = json.dumps(document, ensure_ascii=rng.random() < 0.5, separators=(",", ":"))
    except (ValueError, RecursionError):
        return mutate(case, others, words, rng)
    if rng.random() < 0.02:
        depth = rng.randrange(1, DEPTH_MAX)
        text = "[" * depth + text + "]" * depth
    return text.encode("utf-8", "surrogatepass")[: 4 * CASE_MAX]


def _spot(case: bytes, rng: random.Random) -> int:
    return rng.randrange(len(case) + 1)


def _range(case: bytes, rng: random.Random) -> tuple[int, int]:
    """A piece: mostly short."""
    start = _spot(case, rng)
    return start, min(len(case), start + 1 + int(rng.expovariate(0.15)))


def _flip(case: bytes, _: Sequence[bytes], __: Sequence[bytes], rng: random.Random) -> bytes:
    at = _spot(case, rng)
    return case[:at] + bytes([rng.randrange(256)]) + case[at + 1 :]


def _neighbour(case: bytes, _: Sequence[bytes], __: Sequence[bytes], rng: random.Random) -> bytes:
    """The next letter or digit: stays within most grammars."""
    if not case:
        return case
    at = rng.randrange(len(case))
    return case[:at] + bytes([(case[at] + rng.choice((-1, 1))) % 256]) + case[at + 1 :]


def _swap_case(case: bytes, _: Sequence[bytes], __: Sequence[bytes], rng: random.Random) -> bytes:
    start, end = _range(case, rng)
    return case[:start] + case[start:end].swapcase() + case[end:]


def _insert(case: bytes, _: Sequence[bytes], words: Sequence[bytes], rng: random.Random) -> bytes:
    at = _spot(case, rng)
    return case[:at] + rng.choice(rng.choice((words or WORDS, WORDS))) + case[at:]


def _replace(case: bytes, _: Sequence[bytes], words: Sequence[bytes], rng: random.Random) -> bytes:
    start, end = _range(case, rng)
    return case[:start] + rng.choice(rng.choice((words or WORDS, WORDS))) + case[end:]


def _drop(case: bytes, _: Sequence[bytes], __: Sequence[bytes], rng: random.Random) -> bytes:
    start, end = _range(case, rng)
    return case[:start] + case[end:]


def _repeat(case: bytes, _: Sequence[bytes], __: Sequence[bytes], rng: random.Random) -> bytes:
    start, end = _range(case, rng)
    times = 2 + int(rng.expovariate(0.3)) if rng.random() < 0.9 else rng.randrange(REPEATS_MAX)
    return case[:start] + case[start:end] * times + case[end:]


def _encode(case: bytes, _: Sequence[bytes], __: Sequence[bytes], rng: random.Random) -> bytes:
    """Percent-encoding of what needs none."""
    start, end = _range(case, rng)
    pattern = rng.choice(("%{:02x}", "%{:02X}", "%25{:02x}", "\\u00{:02x}"))
    return case[:start] + "".join(pattern.format(byte) for byte in case[start:end][:8]).encode() + case[end:]


def _borrow(case: bytes, others: Sequence[bytes], _: Sequence[bytes], rng: random.Random) -> bytes:
    """A piece of another case in place of one of this."""
    other = rng.choice(others)
    start, end = _range(case, rng)
    first, last = _range(other, rng)
    return case[:start] + other[first:last] + case[end:]


def _cross(case: bytes, others: Sequence[bytes], _: Sequence[bytes], rng: random.Random) -> bytes:
    """The head of this case and the tail of another."""
    other = rng.choice(others)
    return case[: _spot(case, rng)] + other[_spot(other, rng) :]


def _cut(case: bytes, _: Sequence[bytes], __: Sequence[bytes], rng: random.Random) -> bytes:
    return case[: _spot(case, rng)]


CHANGES: tuple[Callable[[bytes, Sequence[bytes], Sequence[bytes], random.Random], bytes], ...] = (
    *(
        _flip,
        _neighbour,
        _swap_case,
        _insert,
        _insert,
        _replace,
        _replace,
        _drop,
        _repeat,
        _encode,
        _borrow,
        _cross,
        _cut,
    ),
)


def _changed(document: Any, words: Sequence[bytes], rng: random.Random) -> Any:
    """One value somewhere in it is another, gone, there twice, or deeper."""
    places = list(_places(document))
    if not places or rng.random() < 0.03:
        return copy.deepcopy(rng.choice(VALUES))
    holder, key = rng.choice(places)
    value = holder[key]
    match rng.randrange(7):
        case 0:
            holder[key] = copy.deepcopy(rng.choice(VALUES))
        case 1:
            del holder[key]
        case 2:
            holder[key] = [value] if rng.random() < 0.5 else {str(key): value}
        case 3:
            other, from_key = rng.choice(places)
            holder[key] = copy.deepcopy(other[from_key])
        case 4 if isinstance(holder, list):
            holder.insert(key, copy.deepcopy(value))
        case 4:
            holder[rng.choice(words or WORDS).decode("utf-8", "replace")] = copy.deepcopy(value)
        case 5 if isinstance(value, int):
            holder[key] = value + rng.choice((-1, 1, 1 << 31, 1 << 63))
        case _ if isinstance(value, str):
            changed = mutate(
                value.encode("utf-8", "surrogatepass"), [value.encode("utf-8", "surrogatepass")], words, rng
            )
            holder[key] = changed.decode("utf-8", "replace")
        case _:
            holder[key] = copy.deepcopy(rng.choice(VALUES))
    return document


def _places(document: Any) -> list[tuple[Any, Any]]:
    """Every value with who holds it and under what."""
    found: list[tuple[Any, Any]] = []
    waiting = [document]
    while waiting:
        holder = waiting.pop()
        items = holder.items() if isinstance(holder, dict) else enumerate(holder) if isinstance(holder, list) else ()
        for key, value in items:
            found.append((holder, key))
            waiting.append(value)
    return found
