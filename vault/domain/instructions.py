"""What customers ask for, between the policy's floor and its ceiling."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from vault.domain.documents import parse_kind
from vault.domain.policy import Rule, parse_duration
from vault.errors import InvalidRequestError


@dataclass(frozen=True, slots=True)
class GivenInstruction:
    """One instruction of a customer, for one kind or for all that have none of their own."""

    id: UUID
    region: str
    customer: str
    kind: str | None
    keep: timedelta
    reference: str | None
    given_by: str
    given_at: datetime
    #: Who resolved its conflicts: it is followed as nearly as the policy allows.
    nearest_by: str | None = None
    nearest_at: datetime | None = None
    withdrawn_by: str | None = None
    withdrawn_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class InstructionView:
    """An instruction and the rules that it contradicts; resolved or withdrawn, it has none."""

    instruction: GivenInstruction
    conflicts: tuple[Rule, ...]


def check_keep(text: str) -> timedelta:
    """Return how long to keep; "0" and the like are ambiguous and refused."""
    try:
        return parse_duration(text)
    except ValueError as error:
        raise InvalidRequestError(f"keep: {error}") from None


def check_kind(text: str | None) -> str | None:
    """Return the kind by its name or an alias; None stands for all kinds."""
    if text is None:
        return None
    kind = parse_kind(text)
    if kind is None:
        raise InvalidRequestError(f"there is no kind {text[:40]!r}")
    return kind.value
