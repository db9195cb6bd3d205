"""Telephone numbers in free text lose their last three digits; case numbers do not."""

import uuid

import pytest

from vault.domain.masking import mask_numbers


@pytest.mark.parametrize(
    "text, masked",
    [
        ("+442079460123", "+442079460***"),
        ("REQ-02079460123", "REQ-02079460***"),
        ("ticket 6591234567", "ticket 6591234***"),
        ("4155552671", "4155552***"),
        ("+64 21 123 4567", "+64 21 123 4***"),
        ("85291234567", "85291234***"),
        ("+61 412 345 678", "+61 412 345 ***"),
    ],
)
def test_a_number_is_masked(text: str, masked: str) -> None:
    """With a country code or without, alone or in a sentence, of each region."""
    assert mask_numbers(text) == masked


@pytest.mark.parametrize(
    "text",
    ["", "T-1", "INC0012345678", "2025-0317-001234", "A123456789", "CASE/2025/17", "12345678"],
)
def test_what_is_no_number_is_left(text: str) -> None:
    """Tickets, cases and dates stay whole: they are what a reference is for."""
    assert mask_numbers(text) == text


def test_an_id_is_left() -> None:
    """Whatever digits an id happens to have, it is none."""
    for number in range(300):
        text = f"approval {uuid.UUID(int=number * 7919**9 % 2**128)}"
        assert mask_numbers(text) == text
