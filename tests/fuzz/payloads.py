"""Hostile MQTT messages from a seed: damaged good ones, random bytes, and JSON that knows the contract's words."""

import json
import random
from collections.abc import Callable, Iterator
from typing import Any

ROOT = "gridtally/v1"
METERS = [f"fz-{number}" for number in range(20)]
NOW_S = 1_795_507_200
FIELDS = (
    "seq", "boot_id", "read_at", "import_wh", "export_wh", "import_varh", "export_varh", "power_w", "voltage_v", "current_a",
    "frequency_hz", "interval_s", "status", "meter_id", "at", "code", "detail", "x",
)  # fmt: skip
TOKENS = (
    b"NaN", b"-Infinity", b"1e400", b"-0", b"1e-400", b"0.1", b"null", b"true", b"{}", b"[]", b'""', b"[", b"]", b"{", b"}",
    b",", b":",
    b'"', b"\\", b"\0", b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xef\xbb\xbf", rb'"\ud800"', rb'"\u0000"', b"9" * 20, b"-1",
    b"18446744073709551615", b"18446744073709551616", b"4611686018427387905", b"9" * 4500, b"[" * 1100, b"]" * 1100,
    b'{"a":' * 500, b"1795507200", b'"2026-11-24T08:00:00Z"', b'"9999-12-31T23:59:59-14:00"', b"<!--", b"%s%n",
    b"'; drop table fact; --",
)  # fmt: skip
NUMBERS = (
    0,
    1,
    -1,
    2**31,
    2**32,
    2**53 + 1,
    2**62,
    2**63,
    2**64 - 1,
    2**64,
    10**30,
    0.5,
    1e308,
    -1e308,
    NOW_S,
    NOW_S * 1000,
    -0.0,
)
TEXTS = (
    "", "a", "\0", "\ud800", "台区", "m" * 65, "a/b", "+", "#", "2026-11-24T08:00:00Z", "2026-11-24T08:00:00",
    "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "\u202e", "x" * 300, "cover_open", "cover_open\n",
)  # fmt: skip


class Hostile:
    """Makes messages; the same seed makes the same."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self._kinds: list[tuple[Callable[[], bytes], int]] = [
            (self._damaged, 500),
            (self._structured, 350),
            (self._noise, 100),
            (self._large, 5),
        ]

    def messages(self) -> Iterator[tuple[str, bytes]]:
        """Yield topic and payload, for ever."""
        makers, weights = zip(*self._kinds, strict=True)
        while True:
            yield self._topic(), self.random.choices(makers, weights)[0]()

    def _topic(self) -> str:
        chance, meter = self.random.random(), self.random.choice(METERS)
        if chance < 0.6:
            return f"{ROOT}/meters/{meter}/readings"
        if chance < 0.75:
            return f"{ROOT}/gateways/g-{self.random.randrange(3)}/readings"
        if chance < 0.9:
            return f"{ROOT}/meters/{meter}/events"
        if chance < 0.95:
            return f"{ROOT}/meters/unknown-{self.random.randrange(9)}/readings"
        other = [
            "",
            "a",
            f"{ROOT}/meters//readings",
            f"{ROOT}/meters/é/readings",
            f"{ROOT}/meters/a b/events",
            "a/" * 50,
        ]
        return self.random.choice(other) + "x" * self.random.randrange(3)

    # -- damaged good ones ---------------------------------------------------------------------------------------

    def _good(self) -> bytes:
        draw = self.random
        one: dict[str, Any] = {"seq": draw.randrange(10**6), "read_at": NOW_S, "import_wh": draw.randrange(10**9)}
        if draw.random() < 0.3:
            one |= {"power_w": 5.5, "voltage_v": [230, 231, 229], "status": ["ok"], "interval_s": 900}
        if draw.random() < 0.3:
            one = {"seq": 1, "at": NOW_S, "code": "cover_open", "detail": {"why": ["台", None]}}
        if draw.random() < 0.5:
            one["meter_id"] = draw.choice(METERS)
        many = draw.random() < 0.4
        return json.dumps([one] * draw.randrange(1, 6) if many else one, ensure_ascii=draw.random() < 0.5).encode()

    def _damaged(self) -> bytes:
        draw, data = self.random, bytearray(self._good())
        for _ in range(draw.choice((1, 1, 1, 2, 3, 8))):
            place = draw.randrange(len(data) + 1)
            how = draw.randrange(6)
            if how == 0 and data:
                data[place % len(data)] ^= 1 << draw.randrange(8)
            elif how == 1:
                data[place:place] = draw.choice(TOKENS)
            elif how == 2:
                end = place + draw.randrange(1, 30)
                data[place:end] = draw.choice(TOKENS)
            elif how == 3:
                del data[place : place + draw.randrange(1, 20)]
            elif how == 4:
                data[place:place] = self._good()[: draw.randrange(60)]
            else:
                del data[place:]
        return bytes(data)

    # -- JSON that knows the words -------------------------------------------------------------------------------

    def _value(self, depth: int = 0) -> Any:
        draw = self.random
        chance = draw.random()
        if chance < 0.45:
            return draw.choice(NUMBERS)
        if chance < 0.7 or depth > 3:
            return draw.choice(TEXTS)
        if chance < 0.8:
            return draw.choice((None, True, False, float("nan"), float("inf")))
        if chance < 0.9:
            return [self._value(depth + 1) for _ in range(draw.randrange(5))]
        return {draw.choice(TEXTS): self._value(depth + 1) for _ in range(draw.randrange(4))}

    def _element(self) -> Any:
        draw = self.random
        if draw.random() < 0.15:
            return self._value()
        one: dict[str, Any] = {
            "seq": 5,
            "read_at": NOW_S,
            "import_wh": 7,
            "at": NOW_S,
            "code": "cover_open",
            "meter_id": draw.choice(METERS),
        }
        for name in draw.sample(FIELDS, draw.randrange(4)):
            if draw.random() < 0.3:
                one.pop(name, None)
            else:
                one[name] = self._value()
        return one

    def _structured(self) -> bytes:
        draw = self.random
        value = (
            self._element()
            if draw.random() < 0.5
            else [self._element() for _ in range(draw.choice((0, 1, 2, 3, 5, 12)))]
        )
        separators = draw.choice(((",", ":"), (", ", ": "), (" ,\n", "\t:\r")))
        return json.dumps(value, separators=separators).encode()

    # -- the rest ------------------------------------------------------------------------------------------------

    def _noise(self) -> bytes:
        draw = self.random
        if draw.random() < 0.5:
            return draw.randbytes(draw.randrange(200))
        return bytes(draw.choices(b'[]{}",:\\ 0123456789eE.-+tnulfasNI\n', k=draw.randrange(120)))

    def _large(self) -> bytes:
        draw = self.random
        kind = draw.randrange(4)
        if kind == 0:
            return b"[" + b",".join([b"0"] * draw.choice((1000, 1001, 5000))) + b"]"
        if kind == 1:
            return self._good() + b" " * draw.choice((65_000, 65_536, 70_000))
        if kind == 2:
            return b"[" * draw.randrange(1, 60_000)
        depth = draw.randrange(900, 1100)
        return b'[{"seq":1,"at":1,"code":"x","read_at":1,"import_wh":1,"detail":' + b"[" * depth + b"]" * depth + b"}]"
