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

from vault.domain.access import Principal, Purpose, Role
from vault.domain.credentials import Lineage, Relation, relation
from vault.domain.documents import Kind
from vault.domain.regions import REGIONS
from vault.domain.text import is_reference
from vault.errors import ConflictError, ForbiddenError, InvalidRequestError


class Act(StrEnum):
    """What nobody does alone."""

    HOLD_RELEASE = "hold.release"
    POLICY_SHORTEN = "policy.shorten"
    DISCLOSURE = "disclosure"
    BREAK_GLASS = "break-glass"
    EXPIRY_RESUME = "expiry.resume"
    #: A document goes against its floor: it should never have come.
    MISTAKE = "document.mistake"
    #: A document is said to be of a kind whose floor is lower.
    CORRECT = "document.correct"


#: Who may ask for an act, and so do it once another has agreed.
REQUESTERS: dict[Act, frozenset[Role]] = {
    Act.HOLD_RELEASE: frozenset({Role.DPO}),
    Act.POLICY_SHORTEN: frozenset({Role.ADMIN}),
    Act.DISCLOSURE: frozenset({Role.DPO}),
    Act.BREAK_GLASS: frozenset({Role.ADMIN}),
    Act.EXPIRY_RESUME: frozenset({Role.DPO, Role.ADMIN}),
    Act.MISTAKE: frozenset({Role.PORTING, Role.DPO}),
    Act.CORRECT: frozenset({Role.PORTING, Role.DPO}),
}

#: Who may agree to it.
APPROVERS: dict[Act, frozenset[Role]] = {
    Act.HOLD_RELEASE: frozenset({Role.DPO, Role.COMPLIANCE}),
    Act.POLICY_SHORTEN: frozenset({Role.DPO, Role.COMPLIANCE}),
    Act.DISCLOSURE: frozenset({Role.DPO, Role.COMPLIANCE}),
    Act.BREAK_GLASS: frozenset({Role.DPO, Role.COMPLIANCE}),
    Act.EXPIRY_RESUME: frozenset({Role.DPO, Role.COMPLIANCE}),
    Act.MISTAKE: frozenset({Role.DPO, Role.COMPLIANCE}),
    Act.CORRECT: frozenset({Role.DPO, Role.COMPLIANCE}),
}


_UUID = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_REGION = f"({'|'.join(REGIONS)})"
#: What an act is upon: never free text, since it stands in the log for years.
SUBJECTS: dict[Act, tuple[re.Pattern[str], str]] = {
    Act.HOLD_RELEASE: (re.compile(_UUID), "the id of the hold"),
    Act.POLICY_SHORTEN: (
        re.compile(r"[0-9a-f]{64}"),
        "the SHA-256 of the policy, as `portvault retention effect` says it",
    ),
    Act.DISCLOSURE: (re.compile(_UUID), "the id of the document"),
    Act.BREAK_GLASS: (
        re.compile(f"({'|'.join(Role)})(/{_REGION})+"),
        "a role and every region that it will reach, as dpo/sg/uk",
    ),
    Act.EXPIRY_RESUME: (
        re.compile(r"\d{4}-\d\d-\d\d"),
        "the day (UTC) until whose end what is due may go, as 2026-11-28",
    ),
    Act.MISTAKE: (re.compile(_UUID), "the id of the document"),
    Act.CORRECT: (
        re.compile(f"{_UUID}/({'|'.join(Kind)})"),
        "the id of the document and its new kind, as ID/passport",
    ),
}

#: Why an act is asked for, where there is no case that has a number.
REASONS = (
    "authority",
    "case-closed",
    "counsel-advice",
    "court-order",
    "data-subject",
    "incident",
    "law-changed",
    "placed-by-mistake",
    "rotation",
    "sent-by-mistake",
    "wrong-kind",
    "yearly",
)
DAYS_MAX = 400


class State(StrEnum):
    """How far an approval has come."""

    REQUESTED = "requested"
    APPROVED = "approved"
    USED = "used"
    LAPSED = "lapsed"
    DECLINED = "declined"
    WITHDRAWN = "withdrawn"


#: How a request ends by somebody's word: by who might agree to it, or by who made it.
ENDINGS = (State.DECLINED, State.WITHDRAWN)


@dataclass(frozen=True, slots=True)
class Terms:
    """All that an approval is good for, and nothing else: what is done must match each of them."""

    act: Act
    subject: str
    region: str
    #: Why content is read, and for which case.
    purpose: str | None = None
    reference: str | None = None
    #: How long a credential can be opened.
    days: int | None = None

    def text(self) -> str:
        """Return what the log says of it."""
        days = None if self.days is None else f"{self.days} days"
        said = (self.act.value, self.subject, self.purpose, self.reference, days)
        return " ".join(part for part in said if part)


@dataclass(frozen=True, slots=True)
class Approval:
    """One request, the agreement to it, and its one use or its end."""

    id: UUID
    terms: Terms
    reason: str
    requested_by: str
    requested_at: datetime
    #: Of the request until it is approved, and of the approval from then on.
    expires_at: datetime
    approved_by: str | None = None
    approved_at: datetime | None = None
    used_at: datetime | None = None
    #: Who declined or withdrew it, which of both, and when.
    ended_by: str | None = None
    ended_as: State | None = None
    ended_at: datetime | None = None

    def state(self, now: datetime) -> State:
        """Return how far it has come."""
        if self.used_at is not None:
            return State.USED
        if self.ended_as is not None:
            return self.ended_as
        if self.expires_at <= now:
            return State.LAPSED
        return State.REQUESTED if self.approved_at is None else State.APPROVED


def check_request(role: str, terms: Terms, reason: str) -> None:
    """Raise unless this role may ask for this act, upon something, and for a reason."""
    if role not in REQUESTERS[terms.act]:
        asks = ", ".join(sorted(REQUESTERS[terms.act]))
        raise ForbiddenError(f"the role {role} may not ask for {terms.act}; {asks} may")
    pattern, meant = SUBJECTS[terms.act]
    if not pattern.fullmatch(terms.subject):
        raise InvalidRequestError(f"the subject of {terms.act} is {meant}")
    if reason not in REASONS and not is_reference(reason):
        raise InvalidRequestError(
            f"the reason is the number of a case, or one of {', '.join(REASONS)}: it is kept, so "
            "it is no sentence"
        )
    if terms.reference is not None and not is_reference(terms.reference):
        raise InvalidRequestError(
            "reference must be the number of a case: letters, digits and . _ / # - only, with a "
            "digit"
        )
    _check_bounds(terms)


def _check_bounds(terms: Terms) -> None:
    """Raise unless an act says all that it is bound to, and nothing that means nothing for it."""
    reading, break_glass = terms.act is Act.DISCLOSURE, terms.act is Act.BREAK_GLASS
    if reading and terms.purpose not in list(Purpose):
        raise InvalidRequestError(
            f"{terms.act} needs the purpose of the read, one of {', '.join(Purpose)}"
        )
    if reading and terms.reference is None:
        raise InvalidRequestError(f"{terms.act} needs the reference of the read, its case's number")
    if break_glass and not (terms.days is not None and 1 <= terms.days <= DAYS_MAX):
        raise InvalidRequestError(f"{terms.act} needs days, 1 to {DAYS_MAX}")
    if terms.purpose is not None and not reading:
        raise InvalidRequestError(f"{terms.act} has no purpose")
    if terms.days is not None and not break_glass:
        raise InvalidRequestError(f"{terms.act} has no days")


def reach(approval: Approval, served: Collection[str]) -> frozenset[str]:
    """Return the regions, of those that are served, in which the act is felt."""
    terms = approval.terms
    match terms.act:
        case Act.POLICY_SHORTEN:
            # Its subject does not say which rows it changes.
            return frozenset(served)
        case Act.BREAK_GLASS:
            return frozenset({terms.region, *terms.subject.split("/")[1:]})
        case _:
            return frozenset({terms.region})


def check_approval(
    approval: Approval, who: Principal, served: Collection[str], lineage: Lineage, now: datetime
) -> None:
    """Raise unless this principal may agree to this request now."""
    _check_overseer(approval, who)
    _check_somebody_else(approval.requested_by, who.id, lineage)
    if others := sorted(reach(approval, served) - who.regions):
        raise ForbiddenError(
            f"it reaches {', '.join(others)}, too: somebody of all these regions has to agree"
        )
    if approval.state(now) is State.APPROVED:
        raise ConflictError("the request was approved before")
    _check_living(approval, now)


def _check_overseer(approval: Approval, who: Principal) -> None:
    act = approval.terms.act
    if who.role not in APPROVERS[act]:
        agrees = ", ".join(sorted(APPROVERS[act]))
        raise ForbiddenError(f"the role {who.role} may not approve {act}; {agrees} may")


def _check_somebody_else(asked: str, agrees: str, lineage: Lineage) -> None:
    """Raise unless they are two people: the one rule of every act that takes four eyes."""
    if asked == agrees:
        raise ForbiddenError("who asked for it cannot approve it; somebody else has to")
    match relation(asked, agrees, lineage):
        case Relation.MAKER:
            raise ForbiddenError(
                f"{asked} and {agrees} may be one person: one operator made both, and they do not "
                "name two people; make them again with `portvault token create`, each for the "
                "--person who holds it"
            )
        case Relation.HANDS:
            raise ForbiddenError(
                f"{asked} and {agrees} are or may be one person, by who made, sealed, opened or "
                "holds them; somebody else has to agree"
            )


def _check_living(approval: Approval, now: datetime) -> None:
    match approval.state(now):
        case State.LAPSED:
            raise ConflictError("the approval has lapsed; ask for another")
        case State.USED:
            raise ConflictError("the approval was used before; ask for another")
        case State.DECLINED | State.WITHDRAWN as ended:
            raise ConflictError(f"the request was {ended} by {approval.ended_by}; ask for another")
        case State.REQUESTED | State.APPROVED:
            return


def check_end(approval: Approval, who: Principal, ending: State, now: datetime) -> None:
    """Raise unless this principal may end a request, or an approval that was not used, now."""
    if ending is State.WITHDRAWN:
        if who.id != approval.requested_by:
            raise ForbiddenError("only who asked for it withdraws it; who oversees it declines it")
    else:
        _check_overseer(approval, who)
        if who.id == approval.requested_by:
            raise ForbiddenError("who asked for it does not decline it; withdraw it instead")
    _check_living(approval, now)


def check_use(
    approval: Approval, terms: Terms, principal: str, lineage: Lineage, now: datetime
) -> None:
    """Raise unless the approval is for exactly this, by this principal, now."""
    if principal != approval.requested_by:
        raise ForbiddenError("only who asked for the approval may use it")
    if terms != approval.terms:
        agreed = approval.terms
        raise ForbiddenError(f"the approval is for {agreed.text()} in {agreed.region} only")
    _check_living(approval, now)
    if approval.approved_by is None:
        raise ForbiddenError("nobody has approved the request yet")
    # What has come to light since, as who opened an envelope, counts.
    _check_somebody_else(principal, approval.approved_by, lineage)
