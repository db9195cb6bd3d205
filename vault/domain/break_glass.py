"""Break-glass: a credential that is sealed ahead, for the day the identity provider is down."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID


class State(StrEnum):
    """Whether a sealed credential can be opened, or why it cannot."""

    SEALED = "sealed"
    OPENED = "opened"
    EXPIRED = "expired"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class Sealed:
    """One credential: who sealed it, who opened it for which token, and who revoked it."""

    id: UUID
    role: str
    regions: tuple[str, ...]
    sealed_by: str
    sealed_at: datetime
    expires_at: datetime
    opened_at: datetime | None = None
    #: None where it was opened by somebody who did not show a credential of their own.
    opened_by: str | None = None
    token: UUID | None = None
    revoked_at: datetime | None = None
    revoked_by: str | None = None

    def state(self, now: datetime) -> State:
        """Return how far it has come."""
        if self.revoked_at is not None:
            return State.REVOKED
        if self.opened_at is not None:
            return State.OPENED
        return State.EXPIRED if self.expires_at <= now else State.SEALED


def subject_of(role: str, regions: list[str]) -> str:
    """Return what is agreed to: a role with every region that it will reach, as `dpo/sg/uk`."""
    return "/".join([role, *sorted(set(regions))])
