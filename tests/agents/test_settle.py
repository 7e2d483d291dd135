"""What of the settle agent needs no broker."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from agents.consumer import Record, split_by_bytes


@given(st.lists(st.integers(0, 50), max_size=40), st.integers(1, 60))
def test_parts_of_a_batch_are_bounded_and_lose_nothing(sizes: list[int], bytes_max: int) -> None:
    records = [Record("t", 0, offset, bytes(size)) for offset, size in enumerate(sizes)]
    parts = [list(part) for part in split_by_bytes(records, bytes_max)]
    assert list(itertools.chain(*parts)) == records
    assert all(parts)
    for part in parts:
        assert len(part) == 1 or sum(len(record.value) for record in part) <= bytes_max
