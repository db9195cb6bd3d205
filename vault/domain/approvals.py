"""
Four eyes: what one principal may do only after another has agreed to that very thing.

Pure. Who asks, who may agree and what an approval is good for stand here; keeping and recording it
is the business of `actions/approvals.py`.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from vault.domain.access import Principal, Role
from vault.errors import ConflictError, ForbiddenError, InvalidRequestError

SUBJECT_LENGTH_MAX = 128
REASON_LENGTH_MAX = 200
_SUBJECT = re.compile(rf"[A-Za-z0-9._:/#-]{{1,{SUBJECT_LENGTH_MAX}}}")


class Act(StrEnum):
    """What nobody does alone."""

    HOLD_RELEASE = "hold.release"
    POLICY_SHORTEN = "policy.shorten"
    DISCLOSURE = "disclosure"
    BREAK_GLASS = "break-glass"


#: Who may ask for an act, and so do it once another has agreed.
REQUESTERS: dict[Act, frozenset[Role]] = {
    Act.HOLD_RELEASE: frozenset({Role.DPO}),
    Act.POLICY_SHORTEN: frozenset({Role.ADMIN}),
    Act.DISCLOSURE: frozenset({Role.DPO}),
    Act.BREAK_GLASS: frozenset({Role.ADMIN}),
}

#: Who may agree to it.
APPROVERS: dict[Act, frozenset[Role]] = {
    Act.HOLD_RELEASE: frozenset({Role.DPO, Role.COMPLIANCE}),
    Act.POLICY_SHORTEN: frozenset({Role.DPO, Role.COMPLIANCE}),
    Act.DISCLOSURE: frozenset({Role.DPO, Role.COMPLIANCE}),
    Act.BREAK_GLASS: frozenset({Role.DPO, Role.COMPLIANCE}),
}


class State(StrEnum):
    """How far an approval has come."""

    REQUESTED = "requested"
    APPROVED = "approved"
    USED = "used"
    LAPSED = "lapsed"


@dataclass(frozen=True, slots=True)
class Approval:
    """One request, the agreement to it, and its one use; `subject` is what it is about."""

    id: UUID
    act: Act
    subject: str
    region: str
    reason: str
    requested_by: str
    requested_at: datetime
    #: Of the request until it is approved, and of the approval from then on.
    expires_at: datetime
    approved_by: str | None = None
    approved_at: datetime | None = None
    used_at: datetime | None = None

    def state(self, now: datetime) -> State:
        """Return how far it has come."""
        if self.used_at is not None:
            return State.USED
        if self.expires_at <= now:
            return State.LAPSED
        return State.REQUESTED if self.approved_at is None else State.APPROVED


def check_request(role: str, act: Act, subject: str, reason: str) -> None:
    """Raise unless this role may ask for this act, about something and for a reason."""
    if role not in REQUESTERS[act]:
        asks = ", ".join(sorted(REQUESTERS[act]))
        raise ForbiddenError(f"the role {role} may not ask for {act}; {asks} may")
    if not _SUBJECT.fullmatch(subject):
        raise InvalidRequestError(
            f"subject must be an id or a code of 1 to {SUBJECT_LENGTH_MAX} characters"
        )
    if not reason.strip() or len(reason) > REASON_LENGTH_MAX or not reason.isprintable():
        raise InvalidRequestError(
            f"give a reason of 1 to {REASON_LENGTH_MAX} printable characters, without names"
        )


def reach(approval: Approval, served: Collection[str]) -> frozenset[str]:
    """Return the regions, of those that are served, in which the act is felt."""
    match approval.act:
        case Act.POLICY_SHORTEN:
            # Its subject does not say which rows it changes.
            return frozenset(served)
        case Act.BREAK_GLASS:
            return frozenset({approval.region, *approval.subject.split("/")[1:]})
        case _:
            return frozenset({approval.region})


def check_approval(
    approval: Approval, who: Principal, served: Collection[str], now: datetime
) -> None:
    """Raise unless this principal may agree to this request now."""
    if who.role not in APPROVERS[approval.act]:
        agrees = ", ".join(sorted(APPROVERS[approval.act]))
        raise ForbiddenError(f"the role {who.role} may not approve {approval.act}; {agrees} may")
    if who.id == approval.requested_by:
        raise ForbiddenError("who asked for it cannot approve it; somebody else has to")
    if others := sorted(reach(approval, served) - who.regions):
        raise ForbiddenError(
            f"it reaches {', '.join(others)}, too: somebody of all these regions has to agree"
        )
    match approval.state(now):
        case State.LAPSED:
            raise ConflictError("the request has lapsed; it has to be made again")
        case State.USED | State.APPROVED:
            raise ConflictError("the request was approved before")
        case State.REQUESTED:
            return


def check_use(
    approval: Approval, act: Act, subject: str, region: str, principal: str, now: datetime
) -> None:
    """Raise unless the approval is for this act upon this subject by this principal, now."""
    if principal != approval.requested_by:
        raise ForbiddenError("only who asked for the approval may use it")
    if (act, subject, region) != (approval.act, approval.subject, approval.region):
        raise ForbiddenError(
            f"the approval is for {approval.act} of {approval.subject} in {approval.region}"
        )
    match approval.state(now):
        case State.REQUESTED:
            raise ForbiddenError("nobody has approved the request yet")
        case State.LAPSED:
            raise ConflictError("the approval has lapsed; ask for another")
        case State.USED:
            raise ConflictError("the approval was used before; ask for another")
        case State.APPROVED:
            return
