"""The contract of the messages: what is taken, what is refused and why, and that neighbours are not spoiled."""

import datetime as dt
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.message import (
    ELEMENTS_MAX,
    EVENT_DETAIL_MAX,
    PAYLOAD_BYTES_MAX,
    SEQ_MAX,
    Event,
    GatewayReading,
    Reading,
    Refusal,
    decode_message,
    element_bytes,
    instant_us,
)
from schemas.reject import OPERATOR_ACTIONS, RejectCode

READ_AT = 1_795_507_200
"""2026-11-24T08:00:00Z."""
GOOD = b'{"seq":1,"read_at":1795507200,"import_wh":5}'


def reading(**fields: Any) -> bytes:
    return json.dumps({"seq": 1, "read_at": READ_AT, "import_wh": 5} | fields).encode()


def raw_reading(field: bytes) -> bytes:
    """Return a reading with one more field, written out."""
    return GOOD[:-1] + b"," + field + b"}"


def refusal_of_one(payload: bytes, kind: Any = Reading) -> Refusal:
    good, refused = decode_message(kind, payload)
    assert good == []
    assert len(refused) == 1
    return refused[0]


# -- what is taken -----------------------------------------------------------------------------------------------


def test_a_reading_with_all_fields_is_taken() -> None:
    fields = {
        "seq": SEQ_MAX,
        "boot_id": 2**32 - 1,
        "read_at": "2026-11-24T08:00:00Z",
        "import_wh": 2**62,
        "export_wh": 0,
        "import_varh": 1,
        "export_varh": 2,
        "power_w": -3.5,
        "voltage_v": [230, 231.5, 229],
        "current_a": 4,
        "frequency_hz": 50.01,
        "interval_s": 900,
        "status": ["battery_low"],
        "unknown": {"kept": ["with", "the", "raw", "message"]},
    }
    ((place, item),), refused = decode_message(Reading, json.dumps(fields).encode())
    assert (place, refused) == (0, [])
    for name, value in fields.items():
        if name not in ("read_at", "unknown"):
            assert getattr(item, name) == value
    assert instant_us(item.read_at) == READ_AT * 1_000_000


@pytest.mark.parametrize(
    ("read_at", "us"),
    [
        ("1795507200", READ_AT * 10**6),
        ("1795507200.5", READ_AT * 10**6 + 500_000),
        ("1.7955072e9", READ_AT * 10**6),
        ('"2026-11-24T08:00:00Z"', READ_AT * 10**6),
        ('"2026-11-24T16:00:00+08:00"', READ_AT * 10**6),
        ('"2026-11-24T03:30:00-04:30"', READ_AT * 10**6),
        ('"2026-11-24t08:00:00.25z"', READ_AT * 10**6 + 250_000),
        ("0", 0),
        ("4102444800", 4_102_444_800 * 10**6),
    ],
)
def test_times_are_epoch_seconds_or_rfc_3339_with_offset(read_at: str, us: int) -> None:
    ((_, item),), _ = decode_message(Reading, GOOD.replace(b"1795507200", read_at.encode()))
    assert instant_us(item.read_at) == us


@pytest.mark.parametrize(
    "read_at",
    ["-1", "4102444801", "1e300", "1795507200000", '"1969-12-31T23:59:59Z"', '"9999-12-31T23:59:59-14:00"',
     '"0001-01-01T00:00:00+14:00"', '"2100-01-01T00:00:01Z"', "9223372036854775807"],
)  # fmt: skip
def test_times_that_no_clock_shows_have_no_instant(read_at: str) -> None:
    ((_, item),), _ = decode_message(Reading, GOOD.replace(b"1795507200", read_at.encode()))
    assert instant_us(item.read_at) is None


@given(st.datetimes(timezones=st.timezones()))
def test_an_instant_is_the_same_in_every_zone(moment: dt.datetime) -> None:
    assert instant_us(moment) == instant_us(moment.astimezone(dt.UTC))


def test_white_space_around_and_inside_is_json() -> None:
    for payload in (b" \t\r\n" + GOOD + b"\n", b" [ " + GOOD + b" , " + GOOD + b" ] "):
        good, refused = decode_message(Reading, payload)
        assert good
        assert not refused


def test_of_a_key_that_comes_twice_the_last_counts() -> None:
    ((_, item),), _ = decode_message(Reading, raw_reading(b'"import_wh":6'))
    assert item.import_wh == 6


@pytest.mark.parametrize("count", [1, 2, ELEMENTS_MAX])
def test_arrays_of_up_to_1000_are_taken_in_order(count: int) -> None:
    payload = b"[" + b",".join(b'{"seq":%d,"read_at":1,"import_wh":0}' % n for n in range(count)) + b"]"
    good, refused = decode_message(Reading, payload)
    assert [(place, item.seq) for place, item in good] == [(n, n) for n in range(count)]
    assert not refused


def test_an_event_keeps_its_detail_as_text_that_the_database_can_hold() -> None:
    def detail(value: Any) -> Any:
        payload = json.dumps({"seq": 1, "at": READ_AT, "code": "cover_open", "detail": value}).encode()
        ((_, item),), _ = decode_message(Event, payload)
        return item.detail

    assert detail(None) is None
    assert detail("plain") == "plain"
    assert json.loads(detail({"a": [1, None, "台"]})) == {"a": [1, None, "台"]}
    assert detail("a\0b") == "a�b"
    assert "\0" not in detail({"a\0": "\0"})
    assert len(detail("x" * 5000)) == len(detail(["x" * 5000])) == EVENT_DETAIL_MAX


# -- what is refused ---------------------------------------------------------------------------------------------

REFUSED: list[tuple[str, RejectCode, str, bytes]] = [
    # name, code, words of the detail, payload
    ("oversize", RejectCode.OVERSIZE, "65537 bytes, at most 65536", b" " * (PAYLOAD_BYTES_MAX + 1)),
    ("empty", RejectCode.BAD_JSON, "truncated", b""),
    ("blank", RejectCode.BAD_JSON, "truncated", b" \n"),
    ("cut off", RejectCode.BAD_JSON, "truncated", GOOD[:-1]),
    ("cut off in an array", RejectCode.BAD_JSON, "truncated", b"[" + GOOD + b"," + GOOD[:-5]),
    ("trailing garbage", RejectCode.BAD_JSON, "trailing", GOOD + b"x"),
    ("two objects", RejectCode.BAD_JSON, "trailing", GOOD + GOOD),
    ("two arrays", RejectCode.BAD_JSON, "trailing", b"[" + GOOD + b"][" + GOOD + b"]"),
    ("NUL after it", RejectCode.BAD_JSON, "trailing", GOOD + b"\0"),
    ("byte order mark", RejectCode.BAD_JSON, "invalid character", b"\xef\xbb\xbf" + GOOD),
    ("UTF-16", RejectCode.BAD_JSON, "invalid character", GOOD.decode().encode("utf-16")),
    ("NaN", RejectCode.BAD_JSON, "invalid character", raw_reading(b'"power_w":NaN')),
    ("Infinity", RejectCode.BAD_JSON, "invalid character", raw_reading(b'"power_w":-Infinity')),
    ("half a surrogate pair", RejectCode.BAD_JSON, "", raw_reading(rb'"status":["\udc00"]')),
    ("control sign in a text", RejectCode.BAD_JSON, "", raw_reading(b'"status":["\x01"]')),
    ("nested too deep", RejectCode.BAD_JSON, "recursion", raw_reading(b'"x":' + b"[" * 30_000 + b"]" * 30_000)),
    ("never closed", RejectCode.BAD_JSON, "recursion", b"[" * 60_000),
    ("trailing comma", RejectCode.BAD_JSON, "trailing comma", b"[" + GOOD + b",]"),
    ("leading zero", RejectCode.BAD_JSON, "invalid number", raw_reading(b'"seq":01')),
    ("XML", RejectCode.BAD_JSON, "invalid character", b"<reading/>"),
    ("null", RejectCode.WRONG_TYPE, "got `null`", b"null"),
    ("number", RejectCode.WRONG_TYPE, "got `int`", b"5"),
    ("empty array", RejectCode.WRONG_TYPE, "the array is empty", b"[]"),
    ("empty object", RejectCode.WRONG_TYPE, "`seq`", b"{}"),
    ("register missing", RejectCode.WRONG_TYPE, "`import_wh`", b'{"seq":1,"read_at":1}'),
    ("time missing", RejectCode.WRONG_TYPE, "`read_at`", b'{"seq":1,"import_wh":1}'),
    ("text for a register", RejectCode.WRONG_TYPE, "import_wh", reading(import_wh="5")),
    ("fraction for a register", RejectCode.WRONG_TYPE, "import_wh", reading(import_wh=5.5)),
    ("null for a register", RejectCode.WRONG_TYPE, "import_wh", reading(import_wh=None)),
    ("negative register", RejectCode.WRONG_TYPE, "import_wh", reading(import_wh=-1)),
    ("register beyond 2^62", RejectCode.WRONG_TYPE, "import_wh", reading(import_wh=2**62 + 1)),
    ("400 digits", RejectCode.WRONG_TYPE, "import_wh", reading(import_wh=10**400)),
    ("5000 digits", RejectCode.WRONG_TYPE, "import_wh", raw_reading(b'"import_wh":' + b"9" * 5000)),
    ("1e400", RejectCode.WRONG_TYPE, "power_w", raw_reading(b'"power_w":1e400')),
    ("true for a number", RejectCode.WRONG_TYPE, "power_w", reading(power_w=True)),
    ("negative sequence number", RejectCode.WRONG_TYPE, "seq", reading(seq=-1)),
    ("boot beyond 32 bits", RejectCode.WRONG_TYPE, "boot_id", reading(boot_id=2**32)),
    ("no offset", RejectCode.WRONG_TYPE, "read_at", reading(read_at="2026-11-24T08:00:00")),
    ("no such day", RejectCode.WRONG_TYPE, "read_at", reading(read_at="2026-02-30T08:00:00Z")),
    ("leap second", RejectCode.WRONG_TYPE, "read_at", reading(read_at="2026-12-31T23:59:60Z")),
    ("four phases", RejectCode.WRONG_TYPE, "voltage_v", reading(voltage_v=[1, 2, 3, 4])),
    ("no phase", RejectCode.WRONG_TYPE, "current_a", reading(current_a=[])),
    ("interval of 0", RejectCode.WRONG_TYPE, "interval_s", reading(interval_s=0)),
    ("status no list", RejectCode.WRONG_TYPE, "status", reading(status="x")),
    ("1001 elements", RejectCode.TOO_MANY_ELEMENTS, "1001 elements", b"[" + b",".join([GOOD] * 1001) + b"]"),
    ("1001 elements, a bad one", RejectCode.TOO_MANY_ELEMENTS, "1001 elements", b"[NaN" + b",0" * 1000 + b"]"),
    ("32,000 elements", RejectCode.TOO_MANY_ELEMENTS, "32000 elements", b"[" + b",".join([b"0"] * 32_000) + b"]"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("code", "words", "payload"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED]
)
def test_what_breaks_the_contract_is_refused_whole_with_its_bytes(code: RejectCode, words: str, payload: bytes) -> None:
    refusal = refusal_of_one(payload)
    assert refusal.code is code
    assert words in refusal.detail
    assert refusal.payload == payload
    assert refusal.element == 0
    assert OPERATOR_ACTIONS[code]


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        (b'{"seq":1,"at":1,"code":""}', "code"),
        (b'{"seq":1,"at":1,"code":"a b"}', "code"),
        (b'{"seq":1,"at":1,"code":"open\\n"}', "code"),
        (b'{"seq":1,"at":1,"code":"' + b"x" * 65 + b'"}', "code"),
        (b'{"seq":1,"code":"x"}', "at"),
    ],
)
def test_events_break_the_contract_too(payload: bytes, words: str) -> None:
    refusal = refusal_of_one(payload, Event)
    assert refusal.code is RejectCode.WRONG_TYPE
    assert words in refusal.detail


@pytest.mark.parametrize("depth", [*range(900, 1000, 7), *range(960, 1000)])
def test_an_event_nested_near_the_limit_is_taken_or_refused_but_never_raises(depth: int) -> None:
    payload = b'{"seq":1,"at":1,"code":"x","detail":' + b"[" * depth + b"]" * depth + b"}"
    good, refused = decode_message(Event, payload)
    assert len(good) + len(refused) == 1


def test_a_gateways_reading_must_name_its_meter() -> None:
    assert "meter_id" in refusal_of_one(b"[" + GOOD + b"]", GatewayReading).detail
    ((_, item),), _ = decode_message(GatewayReading, b"[" + raw_reading(b'"meter_id":"m"') + b"]")
    assert item.meter_id == "m"


# -- what a refusal keeps ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "payload",
    [
        b'{"seq":7,"boot_id":3,"meter_id":"m","import_wh":"x"}',
        b'{"seq":7,"boot_id":3,"meter_id":"m","import_wh":NaN}',
        b'{"seq":7,"boot_id":3,"meter_id":"m","status":["\\ud800"]}',
        b'[{"seq":7,"boot_id":3,"meter_id":"m","import_wh":1e400}]',
    ],
    ids=["wrong type", "NaN", "half a surrogate pair", "1e400"],
)
def test_a_refusal_still_tells_sequence_number_boot_and_meter(payload: bytes) -> None:
    refusal = refusal_of_one(payload)
    assert (refusal.seq, refusal.boot_id, refusal.meter_id) == (7, 3, "m")


@pytest.mark.parametrize("seq", ["-1", "18446744073709551616", "true", "1.5", '"1"', "null", "[1]"])
def test_a_sequence_number_that_is_none_is_not_told(seq: str) -> None:
    refusal = refusal_of_one(b'{"import_wh":"x","seq":' + seq.encode() + b"}")
    assert refusal.seq is None


def test_a_meter_id_that_cannot_be_written_is_not_told() -> None:
    assert refusal_of_one(b'{"seq":1,"meter_id":"\\ud800","import_wh":NaN}').meter_id is None


# -- neighbours --------------------------------------------------------------------------------------------------

BAD_ELEMENTS = [
    b"null", b"5", b'"a,]"', b"[]", b"{}", b'{"seq":1}', b'{"import_wh":-1}', b"NaN", b'{"seq":1,"power_w":Infinity}',
    b'{"status":["\\ud800"]}', b"1e400", b'{"seq":}', b'{"a":1]', b'"\\""', b'{"x":"],[\\\\"}', b"[" * 1200 + b"]" * 1200,
    b"9" * 5000, b"nul", b'"\xff"', b'{"seq":1,"read_at":1,"import_wh":1}x', b"\x00",
]  # fmt: skip


@pytest.mark.parametrize("bad", BAD_ELEMENTS, ids=[bad[:20].decode(errors="replace") for bad in BAD_ELEMENTS])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_one_bad_element_does_not_spoil_its_neighbours(bad: bytes, place: int) -> None:
    elements = [b'{"seq":%d,"read_at":1,"import_wh":5}' % n for n in range(3)]
    elements[place] = bad
    payload = b" [" + b" ,\n".join(elements) + b"]\n"
    good, refused = decode_message(Reading, payload)
    assert [(at, item.seq) for at, item in good] == [(n, n) for n in range(3) if n != place]
    assert [(refusal.element, refusal.payload) for refusal in refused] == [(place, bad)]
    assert refused[0].code in (RejectCode.WRONG_TYPE, RejectCode.BAD_JSON)
    assert [element_bytes(payload, n) for n in range(3)] == elements


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(json_values | st.just({"seq": 1, "read_at": 1, "import_wh": 5}), min_size=1, max_size=8))
def test_every_element_has_exactly_one_outcome(elements: list[Any]) -> None:
    good, refused = decode_message(Reading, json.dumps(elements).encode())
    outcomes = sorted([place for place, _ in good] + [refusal.element for refusal in refused])
    assert outcomes == list(range(len(elements)))
    assert {place for place, _ in good} >= {
        n for n, element in enumerate(elements) if element == json.loads(GOOD) | {"read_at": 1}
    }


@given(st.binary(max_size=400) | st.text(alphabet='[]{}",:\\ 0eE.-tnulfasNI\n', max_size=200).map(str.encode))
def test_whatever_the_bytes_decoding_never_raises(payload: bytes) -> None:
    for kind in (Reading, GatewayReading, Event):
        good, refused = decode_message(kind, payload)
        assert good or refused
        for place in [place for place, _ in good] + [refusal.element for refusal in refused]:
            assert element_bytes(payload, place) in payload
