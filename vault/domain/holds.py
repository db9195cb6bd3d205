"""
Holds and restrictions: what keeps a document, and what keeps it from being read.

A hold is a case: it has a reason, an authority, and what it covers, now and in future. It stops
shredding, purging and the customer's instruction, and nothing else. A restriction (GDPR art. 18)
stops reading, and nothing else.
"""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from vault.domain.text import REFERENCE_LENGTH_MAX, is_reference
from vault.errors import InvalidRequestError

TEXT_LENGTH_MAX = 200
TARGETS_MAX = 500
#: What a hold covers of which a restore could not tell what it covers: all of its region.
EVERY_CUSTOMER = "*"


@dataclass(frozen=True, slots=True)
class Targets:
    """What a hold covers: documents, whole orders, whole customers, whatever is yet to come."""

    documents: tuple[UUID, ...] = ()
    orders: tuple[UUID, ...] = ()
    customers: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.documents) + len(self.orders) + len(self.customers)


@dataclass(frozen=True, slots=True)
class Hold:
    """One case; who released it needed somebody to agree."""

    id: UUID
    region: str
    reason: str
    authority: str
    reference: str | None
    placed_by: str
    placed_at: datetime
    released_by: str | None = None
    release_reason: str | None = None
    approved_by: str | None = None
    released_at: datetime | None = None
    #: When a restore placed it anew by what the log says, and what of it is not known since.
    recovered_at: datetime | None = None
    not_known: list[str] | None = None


@dataclass(frozen=True, slots=True)
class Restriction:
    """Why a document is not read for the time being; None is not shown to who asks."""

    id: UUID
    document: UUID
    reason: str | None
    placed_by: str | None
    placed_at: datetime


def covers(count: int) -> str:
    """Return what the outcome of a hold says in the log: how many things it covers."""
    return f"covers {count}"


def check_targets(targets: Targets) -> None:
    """Raise unless a hold covers something, and not too much to be named."""
    if not 1 <= len(targets) <= TARGETS_MAX:
        raise InvalidRequestError(
            f"a hold covers 1 to {TARGETS_MAX} documents, orders and customers"
        )


def check_text(name: str, text: str) -> str:
    """Return a reason or an authority, trimmed; raises `InvalidRequestError`."""
    if not text.strip() or len(text) > TEXT_LENGTH_MAX or not text.isprintable():
        raise InvalidRequestError(
            f"{name} must have 1 to {TEXT_LENGTH_MAX} printable characters, without names"
        )
    return text.strip()


def check_reference(reference: str | None) -> str | None:
    """Return the number of a case; raises when it may be something else, as a name."""
    if reference is not None and not is_reference(reference):
        raise InvalidRequestError(
            f"reference must be a case number: 1 to {REFERENCE_LENGTH_MAX} letters, digits and "
            ". _ / # -, with a digit"
        )
    return reference
