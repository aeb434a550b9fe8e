"""Damaged documents by the hundred thousand: a parser may accept or refuse each in its own words, and nothing else.

Damage is done to bytes, or to values that are then written as properly as before, so that it reaches what lies behind the first check; in an envelope
either happens to the payload too, which is wrapped again.
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

TOKENS = (
    *(b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1e999", b"1E-999", b"-0", b"-0.0", b"9" * 400, b"9007199254740993", b"0x1", b"01", b"1_0"),
    *(b"null", b"true", b'""', b"{}", b"[]", b'{"a":1,"a":2}', b"[" * 200, b'{"a":' * 80 + b"1" + b"}" * 80, b"[" * 3000, b"]" * 9, b"}", b'"', b","),
    *(rb'"\ud800"', rb"\u0000", b"\x00", b"\xff\xfe", "é".encode(), "\u2028".encode(), "\U0001f600".encode(), b"//", b"\r\n", b" ", b"=", b"=="),
)
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 1.5, 1e308, 2**53, 2**53 + 2, 10**30, "", " ", "a" * 64, "A" * 64, "é", "\x00", "=", "AA==", [], {}, [[]], [{}]),
    *("owner", "2026-11-24T18:00:00Z", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z", "2026-11-24", "2026-02-30T00:00:00Z", {"a": {"a": 1}}),
)
Damage = Callable[[Random, bytes], bytes]


def fuzz(parser: Callable[[bytes], object], seeds: Sequence[bytes], count: int, seed: int, refusals: tuple[type[Exception], ...]) -> Counter[str]:
    """How often a parser accepted, or refused with each of its own errors.

    Args:
        parser: raises one of `refusals`, or returns.
        seeds: valid documents.
        count: inputs tried.
        seed: of the damage.
        refusals: what a parser may raise.

    Raises:
        AssertionError: something else was raised; the input is in the message.
    """
    draws, answers = Random(seed), Counter[str]()
    for _ in range(count):
        raw = _damaged(draws, draws.choice(seeds))
        try:
            parser(raw)
        except refusals as error:
            answers[type(error).__name__] += 1
        except Exception as error:
            raise AssertionError(f"{type(error).__name__} ({error}) on {raw[:4000]!r}") from error
        else:
            answers["accepted"] += 1
    return answers


def _damaged(draws: Random, raw: bytes) -> bytes:
    depth = draws.random()
    if depth < 0.5 and (envelope := _envelope(raw)) is not None:
        payload = base64.b64decode(envelope["payload"])
        payload = _values(draws, payload) if depth < 0.3 else _bytes(draws, payload)
        return _written(envelope | {"payload": base64.b64encode(payload).decode()})
    return _values(draws, raw) if depth < 0.65 else _bytes(draws, raw)


def _envelope(raw: bytes) -> dict[str, Any] | None:
    found = json.loads(raw)
    return found if isinstance(found, dict) and "payload" in found else None


def _bytes(draws: Random, raw: bytes) -> bytes:
    for _ in range(draws.choice((1, 1, 1, 2, 5))):
        raw = draws.choice(_DAMAGES)(draws, raw)
    return raw


def _flipped(draws: Random, raw: bytes) -> bytes:
    place = draws.randrange(len(raw) or 1)
    return raw[:place] + bytes([draws.randrange(256)]) + raw[place + 1 :]


def _cut(draws: Random, raw: bytes) -> bytes:
    return raw[: draws.randrange(len(raw) + 1)]


def _dropped(draws: Random, raw: bytes) -> bytes:
    place = draws.randrange(len(raw) or 1)
    return raw[:place] + raw[place + draws.randrange(1, 40) :]


def _repeated(draws: Random, raw: bytes) -> bytes:
    place = draws.randrange(len(raw) or 1)
    return raw[:place] + raw[max(0, place - draws.randrange(1, 200)) :]


def _with_token(draws: Random, raw: bytes) -> bytes:
    place = draws.randrange(len(raw) or 1)
    return raw[:place] + draws.choice(TOKENS) + raw[place + draws.choice((0, 0, 1, 8)) :]


def _noise(draws: Random, raw: bytes) -> bytes:
    return draws.randbytes(draws.randrange(min(len(raw), 64) + 1))


_DAMAGES: tuple[Damage, ...] = (_flipped, _flipped, _cut, _dropped, _repeated, _with_token, _with_token, _noise)


def _values(draws: Random, raw: bytes) -> bytes:
    """One value, or one key, of a JSON document exchanged, dropped or doubled."""
    document = json.loads(raw)
    places = list(_places(document))
    if not places:
        return raw
    holder, key = draws.choice(places)
    what = draws.random()
    if what < 0.6:
        holder[key] = draws.choice(VALUES)
    elif what < 0.75:
        del holder[key]
    elif isinstance(holder, dict):
        holder[draws.choice(("a", "schema", "", "é", f"{key} "))] = holder.pop(key)
    else:
        holder.append(holder[key])
    return _written(document)


def _places(value: Any) -> Any:
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from _places(value[key])


def _written(document: Any) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
