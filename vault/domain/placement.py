"""
Placement as data: in which region an order may lie, by its numbers, its customer and its desk.

Pure. The caller names a region; what is known of the order says whether that is plausible. A row
allows it, warns or refuses; what no row speaks of is allowed.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from vault.domain.access import Principal
from vault.domain.fax_numbers import region_of
from vault.domain.orders import CUSTOMER_PATTERN
from vault.domain.regions import REGIONS
from vault.domain.tables import read_rows
from vault.errors import ConfigurationError, InvalidRequestError

_FIELDS = {"given": str, "of": list, "also": list, "elsewhere": str, "citation": str}


class Given(StrEnum):
    """What is known of an order that says where it belongs."""

    NUMBER = "number"
    CUSTOMER = "customer"
    PRINCIPAL = "principal"


class Elsewhere(StrEnum):
    """What happens to an order in a region where it does not belong."""

    ALLOW = "allow"
    WARN = "warn"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class Placement:
    """Where one thing belongs, and what happens elsewhere."""

    regions: frozenset[str]
    elsewhere: Elsewhere
    citation: str


Placements = dict[tuple[Given, str], Placement]


@dataclass(frozen=True, slots=True)
class Warned:
    """Why a region is likely a mistake: what said so, and a sentence without any number."""

    code: str
    detail: str


class PlacementError(InvalidRequestError):
    """The order does not belong in this region."""

    ground = "misplaced"


def check_placement(
    placements: Placements,
    region: str,
    *,
    numbers: tuple[str, ...],
    customer: str,
    principal: Principal,
) -> tuple[Warned, ...]:
    """Return what is likely a mistake; raises `PlacementError` for what a row refuses."""
    warnings: dict[str, Warned] = {}
    for given, what, said in _known(numbers, customer, principal):
        rule = placements.get((given, what))
        if rule is None or region in rule.regions or rule.elsewhere is Elsewhere.ALLOW:
            continue
        belongs = ", ".join(sorted(rule.regions))
        sentence = f"{said} belongs in {belongs}, not in {region}: {rule.citation}"
        if rule.elsewhere is Elsewhere.REFUSE:
            raise PlacementError(sentence)
        warnings.setdefault(f"{given}-elsewhere", Warned(f"{given}-elsewhere", sentence))
    return tuple(warnings.values())


def _known(
    numbers: tuple[str, ...], customer: str, principal: Principal
) -> Iterator[tuple[Given, str, str]]:
    for position, number in enumerate(numbers):
        if country := region_of(number):
            yield Given.NUMBER, country, f"numbers[{position}], a number of {country},"
    yield Given.CUSTOMER, customer, f"the customer {customer}"
    if principal.located is not None:
        yield Given.PRINCIPAL, principal.located, f"what a desk in {principal.located} opens"


def parse_placements(text: str) -> Placements:
    """Return the table; raises `ConfigurationError` naming the row that is wrong."""
    table: Placements = {}
    for position, row in enumerate(read_rows(text, "placements"), start=1):
        place = f"placement row {position}"
        given, elsewhere = _check_row(place, row)
        for what in row["of"]:
            if (given, what) in table:
                raise ConfigurationError(f"{place} speaks of {given} {what} again")
            own = set() if given is Given.CUSTOMER else {what}
            regions = frozenset(own | set(row["also"]))
            table[given, what] = Placement(regions, elsewhere, row["citation"].strip())
    return table


def _check_row(place: str, row: dict[str, Any]) -> tuple[Given, Elsewhere]:
    if set(row) != set(_FIELDS) or any(type(row[name]) is not _FIELDS[name] for name in row):
        raise ConfigurationError(f"{place} must have exactly {', '.join(sorted(_FIELDS))}")
    if row["given"] not in list(Given) or row["elsewhere"] not in list(Elsewhere):
        raise ConfigurationError(
            f"{place}: given is one of {', '.join(Given)}, elsewhere of {', '.join(Elsewhere)}"
        )
    given = Given(row["given"])
    if not row["citation"].strip():
        raise ConfigurationError(f"{place} must say its source")
    for what in row["of"]:
        known = isinstance(what, str) and (
            CUSTOMER_PATTERN.fullmatch(what) if given is Given.CUSTOMER else what in REGIONS
        )
        if not known:
            raise ConfigurationError(f"{place}: {what!r} is no {_KIND[given]}")
    if strange := [region for region in row["also"] if region not in REGIONS]:
        raise ConfigurationError(f"{place}: {strange[0]!r} is no region")
    if not row["of"] or (given is Given.CUSTOMER and not row["also"]):
        raise ConfigurationError(f"{place} must say of what, and for a customer where it belongs")
    return given, Elsewhere(row["elsewhere"])


_KIND = {Given.NUMBER: "region", Given.CUSTOMER: "customer's id", Given.PRINCIPAL: "region"}
