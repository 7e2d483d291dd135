"""The fuzzers as tests: a new seed each time, printed; a planted fault must be seen."""

import dataclasses
import os
import secrets
from typing import Any

import pytest

from agents.validate import Validated, Validator
from schemas.reject import RejectCode
from tests.fuzz import frames, validator
from tests.fuzz.validator import FuzzError

COUNT = 100_000


@pytest.fixture
def seed(capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest) -> int:
    """Return a new seed, or FUZZ_SEED, printed whether the test passes or not."""
    chosen = int(os.environ.get("FUZZ_SEED") or secrets.randbelow(2**32))
    with capsys.disabled():
        print(f"\n{request.node.name}: seed {chosen}")
    return chosen


def test_a_hundred_thousand_hostile_payloads_leave_their_neighbours_unharmed(seed: int) -> None:
    tally = validator.run(seed, COUNT)
    assert tally.messages == COUNT
    assert tally.good == COUNT // validator.GOOD_EVERY
    assert tally.readings > 1000, "sometimes: damage that leaves a reading a reading"
    assert tally.events > 100
    decoding = {code.word for code in RejectCode if code <= RejectCode.IMPOSSIBLE_TIME}
    assert set(tally.refused) == decoding, "sometimes: each code of decoding and identifying"


def test_twenty_thousand_damaged_frames_are_refused_or_readable(seed: int) -> None:
    tally = frames.run(seed, 20_000)
    assert tally.refused > 10_000
    assert tally.usable > 200, "sometimes: damage that leaves a frame a frame"


def test_a_seed_gives_the_same_messages() -> None:
    assert dataclasses.asdict(validator.run(5, 2000)) == dataclasses.asdict(validator.run(5, 2000))


class _Raises(Validator):
    def _take_message(self, out: Validated, lineage: Any, payload: bytes) -> None:
        if b"Infinity" in payload:
            raise ValueError("planted")
        super()._take_message(out, lineage, payload)


class _Forgets(Validator):
    def take_record(self, out: Validated, record: Any) -> None:
        super().take_record(out, record)
        out.refused[:] = [one for one in out.refused if b"null" not in one[1].payload]


class _TakesTwice(Validator):
    def take_record(self, out: Validated, record: Any) -> None:
        super().take_record(out, record)
        out.events += out.events


class _SpoilsTheNext(Validator):
    def take_record(self, out: Validated, record: Any) -> None:
        super().take_record(out, record)
        out.readings[-1].item.import_wh += 1


class _CutsDeadLetters(Validator):
    def take_record(self, out: Validated, record: Any) -> None:
        super().take_record(out, record)
        lineage, refusal, *rest = out.refused[0]
        out.refused[0] = (lineage, dataclasses.replace(refusal, payload=b"cut" + refusal.payload), *rest)


@pytest.mark.parametrize("planted", [_Raises, _Forgets, _TakesTwice, _SpoilsTheNext, _CutsDeadLetters])
def test_a_planted_fault_is_seen(planted: type[Validator]) -> None:
    with pytest.raises(FuzzError, match=r"seed 3, frame \d+: "):
        validator.run(3, 2000, planted)
