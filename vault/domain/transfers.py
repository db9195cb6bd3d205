"""
Transfers as data: on what basis content may be read in another region than its own.

A pair of regions that the table does not name has no basis. A basis that has expired is none.
"""

from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import Any

from vault.domain.regions import REGIONS
from vault.domain.tables import read_rows
from vault.errors import ConfigurationError

_FIELDS = {"from", "to", "basis", "version", "expires", "citation"}


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
    if set(row) != _FIELDS:
        raise ConfigurationError(f"{place} must have exactly {', '.join(sorted(_FIELDS))}")
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
