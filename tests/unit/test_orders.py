"""Porting orders: the carrier's axis, and what is taken for a number."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vault.domain.orders import (
    CARRIER_LENGTH_MAX,
    ENDED,
    NUMBERS_MAX,
    REFERENCE_LENGTH_MAX,
    TRANSITIONS,
    Details,
    PortType,
    Status,
    check_customer,
    check_details,
    decode_details,
    encode_details,
    index_key_id,
)
from vault.errors import InvalidRequestError


def test_every_status_has_its_transitions() -> None:
    """The table is complete, no status leads to itself, and cancelled is final."""
    assert set(TRANSITIONS) == set(Status)
    assert all(status not in allowed for status, allowed in TRANSITIONS.items())
    assert not TRANSITIONS[Status.CANCELLED]
    assert frozenset({"ported", "cancelled"}) == ENDED


def test_every_status_can_be_reached_from_draft() -> None:
    """No status is a dead letter."""
    reached, edge = set(), {Status.DRAFT}
    while edge:
        reached |= edge
        edge = {new for old in edge for new in TRANSITIONS[old]} - reached
    assert reached == set(Status)


def test_limits_of_an_order() -> None:
    """The most numbers and the longest reference are taken, one more is not."""
    number = "+442079460123"
    check_details([number] * NUMBERS_MAX, "x" * REFERENCE_LENGTH_MAX)
    for numbers, reference in (
        ([], None),
        ([number] * (NUMBERS_MAX + 1), None),
        ([number], ""),
        ([number], "x" * (REFERENCE_LENGTH_MAX + 1)),
        ([number], "R-1\nR-2"),
        ([number], "R-1\x1b[2J"),
    ):
        with pytest.raises(InvalidRequestError):
            check_details(numbers, reference)


@pytest.mark.parametrize("customer", ["", "-acme", "acme corp", "a" * 65, "a/b", "a\n"])
def test_a_customer_is_an_opaque_id(customer: str) -> None:
    """What looks like a name or a path is refused."""
    with pytest.raises(InvalidRequestError):
        check_customer(customer)
    assert check_customer("a" * 64)


@given(
    st.lists(st.text(), min_size=1),
    st.none() | st.text(),
    st.none() | st.sampled_from(PortType),
    st.none() | st.text(),
)
def test_details_survive_encoding(
    numbers: list[str], reference: str | None, port_type: PortType | None, carrier: str | None
) -> None:
    """Decoding gives back what was encoded."""
    details = Details(tuple(numbers), reference, port_type, carrier, carrier)
    assert decode_details(encode_details(details)) == details


def test_details_of_before_open() -> None:
    """What was sealed before orders had a type and carriers is read as having none."""
    details = decode_details(b'{"numbers": ["+442079460123"], "customer_reference": null}')
    assert details == Details(("+442079460123",), None)


@pytest.mark.parametrize(
    "change", [{"port_type": "half"}, {"losing_carrier": ""}, {"gaining_carrier": "x" * 101}]
)
def test_type_and_carriers_are_checked(change: dict[str, str]) -> None:
    """Full or partial, and carriers that can be named."""
    with pytest.raises(InvalidRequestError):
        check_details(["+442079460123"], None, **change)
    check_details(["+442079460123"], None, port_type="partial", losing_carrier="x" * 100)


@pytest.mark.parametrize("said", ["", "both", "FULL", "full "])
def test_a_type_of_port_is_one_of_two(said: str) -> None:
    """Whatever else is said is refused, an empty word, too; the two are kept."""
    for known in PortType:
        assert check_details(["+442079460123"], None, port_type=known.value).type is known
    assert check_details(["+442079460123"], None).type is None
    with pytest.raises(InvalidRequestError, match="full, partial"):
        check_details(["+442079460123"], None, port_type=said)


@pytest.mark.parametrize("which", ["losing_carrier", "gaining_carrier"])
def test_a_carrier_is_named_in_one_line(which: str) -> None:
    """The longest name is taken; none at all, one letter more or a second line is refused."""
    for name in ("x", "x" * CARRIER_LENGTH_MAX):
        assert getattr(check_details(["+442079460123"], None, **{which: name}), which) == name
    for name in ("", "x" * (CARRIER_LENGTH_MAX + 1), "a\nb"):
        with pytest.raises(InvalidRequestError, match=which):
            check_details(["+442079460123"], None, **{which: name})


def test_a_number_that_is_wrong_is_told_by_its_place() -> None:
    """The first is number 0, as in JSON; the number itself is not repeated."""
    with pytest.raises(InvalidRequestError, match=r"numbers\[1\]") as refused:
        check_details(["+442079460123", "+4420"], None)
    assert "+4420" not in str(refused.value)


@pytest.mark.parametrize("number", [0, (1 << 128) - 1, 0x1234_5678_9ABC_4DEF_8123_4567_89AB_CDEF])
def test_the_id_of_an_index_key_differs_in_its_version_only(number: int) -> None:
    """It is of version 8, and else what it was made from."""
    made = index_key_id(UUID(int=number))
    assert (made.int >> 76) & 0xF == 8
    assert made.int | 0xF << 76 == number | 0xF << 76
