"""
Placement as data: in which region an order may lie, by its numbers, its customer and its desk.

Pure. The caller names a region; what is known of the order says whether that is plausible. A row
allows it, warns or refuses; what no row speaks of is allowed.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import Any

from vault.domain.access import Principal
from vault.domain.faxes import region_of
from vault.domain.orders import CUSTOMER_PATTERN
from vault.domain.regions import REGIONS
from vault.domain.text import read_rows
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


# ---- Transfers as data: on what basis content may be read in another region than its own. -------
#
# A pair of regions that the table does not name has no basis. A basis that has expired is none.

_TRANSFERS_FIELDS = {"from", "to", "basis", "version", "expires", "citation"}


class Basis(StrEnum):
    """What lets content leave its region."""

    SAME_REGION = "same-region"
    ADEQUACY = "adequacy"
    SCC = "scc"
    IDTA = "idta"
    DEROGATION = "derogation"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Transfer:
    """One pair's basis: which version of it, and the day from which it counts no more."""

    basis: Basis
    version: str
    expires: date | None
    citation: str

    def text(self) -> str:
        """Return how it stands in an access record."""
        until = f" until {self.expires}" if self.expires else ""
        return f"{self.basis} {self.version}".strip() + until


Transfers = dict[tuple[str, str], Transfer]

_WITHIN = Transfer(Basis.SAME_REGION, "", None, "It stays where it is.")


def basis_for(transfers: Transfers, origin: str, to: str, now: datetime) -> Transfer | None:
    """Return what lets content of `origin` be read in `to` now; None when nothing does."""
    if origin == to:
        return _WITHIN
    found = transfers.get((origin, to))
    if found is None or found.basis is Basis.NONE:
        return None
    if found.expires is not None and found.expires <= now.date():
        return None
    return found


def parse_transfers(text: str) -> Transfers:
    """Return the table; raises `ConfigurationError` naming the row that is wrong."""
    table: Transfers = {}
    for position, row in enumerate(read_rows(text, "transfers"), start=1):
        place = f"transfer row {position}"
        transfer = _parse_row(place, row)
        for to in row["to"]:
            if to not in REGIONS or to == row["from"]:
                raise ConfigurationError(f"{place} names {to!r}, which is no other region")
            if (row["from"], to) in table:
                raise ConfigurationError(f"{place} speaks of {row['from']} to {to} again")
            table[row["from"], to] = transfer
    return table


def _parse_row(place: str, row: dict[str, Any]) -> Transfer:
    if set(row) != _TRANSFERS_FIELDS:
        raise ConfigurationError(
            f"{place} must have exactly {', '.join(sorted(_TRANSFERS_FIELDS))}"
        )
    if row["from"] not in REGIONS or not isinstance(row["to"], list) or not row["to"]:
        raise ConfigurationError(f"{place} must say from which region, and to which list of them")
    texts = [row[name] for name in ("basis", "version", "expires", "citation")]
    if not all(isinstance(value, str) for value in texts) or not row["citation"].strip():
        raise ConfigurationError(f"{place} must have its values in quotes, and its source")
    if row["basis"] not in set(Basis) - {Basis.SAME_REGION}:
        raise ConfigurationError(f"{place}: basis is not one of {', '.join(list(Basis)[1:])}")
    basis = Basis(row["basis"])
    if basis is not Basis.NONE and not row["version"].isprintable():
        raise ConfigurationError(f"{place}: version must be printable")
    if basis is not Basis.NONE and not row["version"].strip():
        raise ConfigurationError(f"{place} must say which version of the {basis} it relies on")
    return Transfer(basis, row["version"].strip(), _day(place, row["expires"]), row["citation"])


def _day(place: str, text: str) -> date | None:
    try:
        return date.fromisoformat(text) if text else None
    except ValueError:
        raise ConfigurationError(f'{place}: write expires as "2027-01-31", or ""') from None
