"""Records as bytes: one encoding, which comes back, and nothing else does."""

import json
from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vault.domain.records import Record, canonical_bytes, mask_number, parse

ZONES = st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
# Two days from either end, so that no zone leads past it.
FIRST, LAST = datetime.fromisoformat("0001-01-03"), datetime.fromisoformat("9999-12-29")
RECORDS = st.builds(
    Record,
    id=st.uuids(),
    region=TEXTS,
    at=st.datetimes(FIRST, LAST, timezones=ZONES),
    phase=st.sampled_from(["intent", "outcome"]),
    principal=TEXTS,
    role=TEXTS,
    action=TEXTS,
    **dict.fromkeys(("intent", "document", "order"), st.none() | st.uuids()),
    **dict.fromkeys(
        ("kind", "purpose", "reference", "region_to", "basis", "decision", "reason", "result"),
        st.none() | TEXTS,
    ),
    size_bytes=st.none() | st.integers(0, 2**63 - 1),
)
ID = UUID("01234567-89ab-4def-8123-456789abcdef")
AT = datetime(2025, 3, 1, 9, 30, 0, 42, tzinfo=timezone(timedelta(hours=1)))
SMALL = Record(
    id=ID,
    region="uk",
    at=AT,
    phase="intent",
    principal="token:é",
    role="porting",
    action="document.read",
    size_bytes=0,
)
SMALL_BYTES = (
    '{"action":"document.read","at":"2025-03-01T08:30:00.000042Z",'
    f'"id":"{ID}","phase":"intent","principal":"token:é","region":"uk","role":"porting",'
    '"size_bytes":0,"v":1}'
).encode()


def test_the_encoding_is_the_written_one() -> None:
    """Sorted keys, no white space, UTC with microseconds, what is None left out, 0 is not."""
    assert canonical_bytes(SMALL) == SMALL_BYTES


@given(RECORDS)
def test_a_record_comes_back(record: Record) -> None:
    """Parsing what was encoded gives the same record."""
    assert parse(canonical_bytes(record)) == record


@given(RECORDS, RECORDS)
def test_two_records_never_share_their_bytes(one: Record, other: Record) -> None:
    """Different records are different bytes."""
    assert (canonical_bytes(one) == canonical_bytes(other)) == (one == other)


@pytest.mark.parametrize(
    "old, new",
    [
        ("{", "{ "),
        ('"v":1', '"v":2'),
        (',"v":1', ""),
        ('"id":"0', '"id":"A'),
        ("-89ab-", "89ab"),
        ("-89ab-", "-89AB-"),
        ("000042Z", "000042+00:00"),
        ("T08", " 08"),
        (".000042", ""),
        ('"2025-03-01T08:30:00.000042Z"', "5"),
        ('"2025-03-01T08:30:00.000042Z"', '"0001-01-01T00:00:00.000000+23:00"'),
        ('"2025-03-01T08:30:00.000042Z"', '"2025-03-01T08:30:00.000042"'),
        ("é", "\\u00e9"),
        ('"uk"', "7"),
        ('"uk"', '["uk"]'),
        ('"uk"', '"uk","region":"uk"'),
        ('"intent"', '"later"'),
        ('"size_bytes":0', '"size_bytes":"0"'),
        ('"size_bytes":0', '"size_bytes":0.0'),
        ('"size_bytes":0', '"size_bytes":false'),
        ('"size_bytes":0', '"size_bytes":null'),
        ('"role"', '"rule"'),
        ('"phase":"intent",', ""),
    ],
)
def test_other_bytes_are_no_record(old: str, new: str) -> None:
    """What means the same but is written differently, or means nothing, is refused."""
    changed = SMALL_BYTES.decode().replace(old, new, 1).encode()
    assert changed != SMALL_BYTES
    with pytest.raises(ValueError, match="record"):
        parse(changed)


@pytest.mark.parametrize("data", [b"", b"null", b"[]", b"7", b'"v"', b"{}", b'{"v":1}', b"\xff"])
def test_what_is_no_object_is_no_record(data: bytes) -> None:
    """Anything at all may be handed to the parser."""
    with pytest.raises(ValueError):
        parse(data)


@given(st.binary(max_size=60) | st.recursive(st.none() | st.text(), st.lists).map(json.dumps))
def test_the_parser_raises_nothing_else(data: bytes | str) -> None:
    """Whatever comes in, it is a record or a ValueError."""
    with pytest.raises(ValueError):
        parse(data if isinstance(data, bytes) else data.encode())


def test_deep_nesting_is_no_record() -> None:
    """Not even brackets without end do more than raise ValueError."""
    with pytest.raises(ValueError):
        parse(b"[" * 200_000)


def test_a_time_without_a_zone_is_refused() -> None:
    """A record never depends on where the process thinks it is."""
    naive = Record(
        id=ID,
        region="uk",
        at=AT.replace(tzinfo=None),
        phase="intent",
        principal="p",
        role="r",
        action="a",
    )
    with pytest.raises(ValueError, match="time zone"):
        canonical_bytes(naive)
    assert AT.astimezone(UTC).hour == 8


@pytest.mark.parametrize(
    "number, masked",
    [("+442079460123", "+442079460***"), ("+6561234567", "+6561234***"), ("123", "***")],
)
def test_numbers_lose_their_last_three_digits(number: str, masked: str) -> None:
    """A masked number names a place, not a line."""
    assert mask_number(number) == masked
