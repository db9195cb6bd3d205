"""Where an order may lie: what is shipped, that a wrong file stops the start, and each verdict."""

from pathlib import Path

import pytest

from vault.config.policies import read_rules
from vault.domain.access import Principal
from vault.domain.placement import (
    Elsewhere,
    Given,
    PlacementError,
    Placements,
    check_placement,
    parse_placements,
)
from vault.domain.regions import REGIONS
from vault.errors import ConfigurationError

#: One of the country of each region.
NUMBERS = {
    "uk": "+442079460123",
    "us": "+12125550123",
    "nz": "+6493001234",
    "au": "+61290001234",
    "sg": "+6561234567",
    "hk": "+85223456789",
}
ROW = {
    "given": '"number"',
    "of": '["us"]',
    "also": '["uk"]',
    "elsewhere": '"refuse"',
    "citation": '"law"',
}
DESK = Principal("token:1", "porting", frozenset(REGIONS))


def rows(*changes: dict[str, str | None]) -> str:
    """Return rows of a file, each changed; None leaves a field out."""
    text = ""
    for changed in changes:
        fields = {name: value for name, value in {**ROW, **changed}.items() if value is not None}
        text += "[[placements]]\n" + "".join(
            f"{name} = {value}\n" for name, value in fields.items()
        )
    return text


def codes(
    placements: Placements,
    region: str,
    *numbers: str,
    customer: str = "acme",
    at: str | None = None,
) -> list[str]:
    """Return the codes of what an order is warned of; raises when it is refused."""
    desk = Principal(DESK.id, DESK.role, DESK.regions, located=at)
    warned = check_placement(placements, region, numbers=numbers, customer=customer, principal=desk)
    assert all(number not in said.detail for said in warned for number in numbers)
    return [said.code for said in warned]


@pytest.fixture
def shipped(tmp_path: Path) -> Placements:
    """Give the rows that are shipped."""
    return read_rules(tmp_path).placements


@pytest.mark.parametrize("country", REGIONS)
@pytest.mark.parametrize("region", REGIONS)
def test_a_number_lies_in_its_own_country(shipped: Placements, country: str, region: str) -> None:
    """Of the six, each number is refused everywhere but at home, and the number is not said."""
    if country == region:
        assert codes(shipped, region, NUMBERS[country]) == []
        return
    with pytest.raises(PlacementError, match=f"of {country}, belongs in {country}") as refused:
        codes(shipped, region, NUMBERS[region], NUMBERS[country])
    assert "numbers[1]" in str(refused.value)
    assert NUMBERS[country] not in str(refused.value)


@pytest.mark.parametrize("number", ["+33142685300", "+14165550123", "+80012345678"])
@pytest.mark.parametrize("region", REGIONS)
def test_a_number_of_another_country_may_lie_anywhere(
    shipped: Placements, number: str, region: str
) -> None:
    """France, Canada and the international freephone have no row."""
    assert codes(shipped, region, number) == []


def test_a_desk_elsewhere_is_warned(shipped: Placements) -> None:
    """Who is located in London and opens an order in Singapore is told so; who is nowhere, not."""
    assert codes(shipped, "sg", NUMBERS["sg"], at="uk") == ["principal-elsewhere"]
    assert codes(shipped, "sg", NUMBERS["sg"], at="sg") == []
    assert codes(shipped, "sg", NUMBERS["sg"]) == []


def test_a_row_decides() -> None:
    """Where else a number may lie, and what happens in any other region."""
    for elsewhere in Elsewhere:
        table = parse_placements(rows({"elsewhere": f'"{elsewhere}"'}))
        assert codes(table, "uk", NUMBERS["us"]) == codes(table, "us", NUMBERS["us"]) == []
        assert codes(table, "sg", NUMBERS["uk"]) == []
        if elsewhere is Elsewhere.REFUSE:
            with pytest.raises(PlacementError, match="law"):
                codes(table, "sg", NUMBERS["us"])
        else:
            warned = ["number-elsewhere"] if elsewhere is Elsewhere.WARN else []
            assert codes(table, "sg", NUMBERS["us"], NUMBERS["us"]) == warned


def test_a_customer_belongs_where_a_row_says() -> None:
    """A customer's row names all of its regions; other customers are free."""
    table = parse_placements(rows({"given": '"customer"', "of": '["acme"]', "elsewhere": '"warn"'}))
    assert set(table) == {(Given.CUSTOMER, "acme")}
    assert codes(table, "uk") == codes(table, "sg", customer="other") == []
    assert codes(table, "sg") == ["customer-elsewhere"]


@pytest.mark.parametrize(
    "changed",
    [
        {"given": '"fax"'},
        {"of": '["fr"]'},
        {"of": "[]"},
        {"of": "[7]"},
        {"also": '["fr"]'},
        {"elsewhere": '"maybe"'},
        {"citation": '" "'},
        {"citation": None},
        {"more": '"x"'},
        {"of": '"us"'},
        {"given": '"customer"', "of": '["a b"]'},
        {"given": '"customer"', "of": '["acme"]', "also": "[]"},
    ],
)
def test_a_wrong_row_stops_the_start(changed: dict[str, str | None]) -> None:
    """It is refused with its place."""
    with pytest.raises(ConfigurationError, match="placement row 1"):
        parse_placements(rows(changed))


def test_two_rows_for_one_thing_are_refused() -> None:
    """What counts is never a matter of their order."""
    with pytest.raises(ConfigurationError, match="placement row 2 speaks of number us again"):
        parse_placements(rows({}, {"of": '["uk", "us"]'}))
