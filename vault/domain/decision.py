"""
The decision: one pure function from who asks, what for and the circumstances to allow or deny.

It knows nothing of HTTP and makes no record; `actions/access.py` records what it says. What is not
allowed here happens nowhere, whatever the entrance.
"""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from vault.domain.access import (
    ALLOWED,
    APPROVED_ONLY,
    BRINGING,
    BY_CUSTOMER,
    BY_KIND,
    CONTENT,
    OPENING,
    PURPOSED,
    READERS,
    REGIONAL,
    Action,
    Principal,
    Role,
)
from vault.domain.documents import FAX, Custody
from vault.domain.placement import Placements, Transfers, basis_for
from vault.domain.purposes import Purposes, stated_by
from vault.domain.text import is_reference


class Reason(StrEnum):
    """Why a decision is as it is: the code in the record."""

    ALLOWED = "allowed"
    ROLE = "role-may-not"
    APPROVAL = "approval-missing"
    REGION = "outside-own-regions"
    CUSTOMER = "outside-own-customers"
    KIND = "outside-own-kinds"
    UNKNOWN = "no-such-thing"
    PURPOSE_MISSING = "purpose-missing"
    PURPOSE = "purpose-not-for-role"
    PURPOSE_KIND = "purpose-not-for-kind"
    REFERENCE_MISSING = "reference-missing"
    REFERENCE = "reference-not-a-code"
    SHREDDED = "shredded"
    NOT_STORED = "not-stored"
    RESTRICTED = "restricted"
    TRANSFER = "no-transfer-basis"
    LIMIT = "limit-reached"
    RECORDS = "records-unavailable"
    #: The token was revoked or ran out, or the session ended, while a stream was open.
    ENDED = "principal-ended"
    AGE = "stream-too-old"


#: What looks from outside as if there were no such thing, but to who brought it.
HIDDEN = frozenset({Reason.UNKNOWN, Reason.REGION, Reason.CUSTOMER, Reason.KIND})


class Relation(StrEnum):
    """How the order that a thing belongs to stands to the principal."""

    #: It belongs to no order.
    NONE = "none"
    #: Its customer is among theirs.
    OWN = "own"
    #: Its customer is somebody else's, or unknown.
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Rules:
    """The policy that decides: replaceable by the operator, validated at the start."""

    purposes: Purposes
    transfers: Transfers
    placements: Placements = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What is asked about, and how: `region` is None when there is no such thing."""

    region: str | None
    at: datetime
    kind: str | None = None
    relation: Relation = Relation.NONE
    custody: Custody | None = None
    restricted: bool = False
    #: Whether this reaches documents of every kind, though it names none of them.
    every_kind: bool = False
    purpose: str | None = None
    reference: str | None = None
    #: Whether somebody else has agreed to this very thing.
    approved: bool = False
    #: Why the approval that was named does not do, in a sentence.
    unapproved: str | None = None
    #: How the thing ended, in a sentence, where its content is gone and more is known than that.
    gone: str | None = None
    #: Where what is asked for would be read.
    to: str | None = None
    #: The limit that this would be past, in a sentence.
    exceeded: str | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """Allow, or deny with the reason, which `detail` says to a person."""

    allow: bool
    reason: Reason
    detail: str | None = None
    #: The transfer basis that content goes on, where it is handed out.
    basis: str | None = None


def relation_of(principal: Principal, customer: str | None) -> Relation:
    """Return how an order of this customer stands to the principal."""
    mine = principal.customers is None or customer in principal.customers
    return Relation.OWN if mine else Relation.OTHER


def decide(
    rules: Rules, principal: Principal, action: Action, circumstances: Circumstances
) -> Decision:
    """
    Decide whether the principal may do this, here and now.

    First what the role may do at all, then what the principal may know of, then what content takes:
    a purpose, a document that is there to be read, a basis where it leaves its region, and that it
    is not past a limit.
    """
    denial = _role(rules, principal, action, circumstances) or _need_to_know(
        principal, action, circumstances
    )
    if denial:
        return denial
    if action in PURPOSED:
        denial = _purpose(rules, principal, action, circumstances)
        if denial:
            return denial
    if action in CONTENT:
        denial = _state(rules, circumstances)
        if denial:
            return denial
    made = Decision(True, Reason.ALLOWED)
    if action in OPENING:
        made = _transfer(rules, circumstances)
    if made.allow and circumstances.exceeded:
        return _deny(Reason.LIMIT, circumstances.exceeded)
    return made


def sees_names(rules: Rules, principal: Principal, circumstances: Circumstances) -> bool:
    """Whether file names, which are personal, are shown: only to who may read such content here."""
    return (
        principal.role in READERS
        and not circumstances.restricted
        and _transfer(rules, circumstances).allow
    )


def _role(
    rules: Rules, principal: Principal, action: Action, case: Circumstances
) -> Decision | None:
    by_customer = principal.customers is None or action in BY_CUSTOMER
    if not (by_customer and (principal.kinds is None or action in BY_KIND)):
        return _deny(Reason.ROLE, "this is not for who is narrowed to some customers or kinds")
    if action in ALLOWED.get(principal.role, frozenset()):
        return None
    if action in APPROVED_ONLY.get(principal.role, frozenset()):
        if case.approved:
            return None
        if action in PURPOSED and (lacking := _reference(rules, case)):
            return lacking
        return _deny(
            Reason.APPROVAL,
            case.unapproved
            or f"the role {principal.role} does this only once somebody else has agreed: ask with "
            "`portvault approval request`, and name the approval in Access-Approval, together with "
            "the purpose and reference that were agreed to",
        )
    may = [role.value for role in Role if action in ALLOWED.get(role, ())]
    agreed = [role.value for role in Role if action in APPROVED_ONLY.get(role, ())]
    who = "; ".join(
        f"{said} {', '.join(roles)}"
        for said, roles in (("this is for", may), ("with an approval", agreed))
        if roles
    )
    return _deny(Reason.ROLE, f"the role {principal.role} may not do this; {who}".rstrip("; "))


def _need_to_know(principal: Principal, action: Action, case: Circumstances) -> Decision | None:
    # Who brings something said himself what it is: there is nothing to hide.
    said = action in BRINGING
    if case.region not in principal.regions and action in REGIONAL:
        theirs = ", ".join(sorted(principal.regions))
        must = f"the region must be one of yours: {theirs}"
        return _deny(Reason.REGION, must if theirs else "no region is yours")
    if case.region is None:
        return _deny(Reason.UNKNOWN)
    if case.region not in principal.regions:
        return _deny(Reason.REGION)
    if case.relation is Relation.OTHER:
        theirs = ", ".join(sorted(principal.customers or ()))
        return _deny(Reason.CUSTOMER, f"this is for the customers {theirs} only" if said else None)
    if principal.kinds is not None and case.every_kind:
        return _deny(
            Reason.KIND,
            "this ends or reopens the order for documents of every kind; it takes a token that is "
            "not narrowed to some kinds",
        )
    if principal.kinds is not None and case.kind is not None and case.kind not in principal.kinds:
        theirs = ", ".join(sorted(principal.kinds))
        return _deny(Reason.KIND, f"this is for the kinds {theirs} only" if said else None)
    return None


def _purpose(
    rules: Rules, principal: Principal, action: Action, case: Circumstances
) -> Decision | None:
    if not case.purpose:
        return _deny(Reason.PURPOSE_MISSING)
    rule = rules.purposes.get(case.purpose or "")
    if rule is None or principal.role not in rule.roles:
        mine = ", ".join(stated_by(rules.purposes, principal.role)) or "no purpose"
        return _deny(Reason.PURPOSE, f"the role {principal.role} may read for {mine} only")
    if rule.approval and action not in CONTENT:
        return _deny(Reason.APPROVAL, f"{rule.name} takes an approval, which is of a document only")
    if rule.approval and not case.approved:
        return _reference(rules, case) or _deny(
            Reason.APPROVAL,
            case.unapproved or f"{rule.name} takes an approval; name it in Access-Approval",
        )
    if action in CONTENT and case.kind not in rule.kinds:
        return _deny(Reason.PURPOSE_KIND, f"{rule.name} does not open a {case.kind}")
    if action not in CONTENT and rule.kinds <= {FAX}:
        return _deny(Reason.PURPOSE_KIND, f"{rule.name} opens faxes, and no order")
    if lacking := _reference(rules, case):
        return lacking
    if case.reference and not is_reference(case.reference):
        return _deny(
            Reason.REFERENCE,
            "Access-Reference must be the number of a case: letters, digits and . _ / # - only",
        )
    return None


def _reference(rules: Rules, case: Circumstances) -> Decision | None:
    """Deny a purpose that takes a reference where none is named, whatever the thing is."""
    rule = rules.purposes.get(case.purpose or "")
    if rule is None or not rule.reference or case.reference:
        return None
    return _deny(
        Reason.REFERENCE_MISSING, f"{rule.name} needs {rule.reference} in Access-Reference"
    )


def _state(rules: Rules, case: Circumstances) -> Decision | None:
    if case.custody in (Custody.SHREDDED, Custody.SEALED):
        return _deny(Reason.SHREDDED, case.gone)
    if case.custody is not Custody.STORED:
        return _deny(Reason.NOT_STORED, "the document is not stored")
    rule = rules.purposes.get(case.purpose or "")
    if case.restricted and not (rule and rule.restricted):
        still = ", ".join(name for name, one in rules.purposes.items() if one.restricted)
        return _deny(
            Reason.RESTRICTED,
            "its processing is restricted: it is kept, but not read"
            f"{f', other than for {still}' if still else ''}, until the dpo lifts that with "
            "`portvault unrestrict ID --reason WHY`",
        )
    return None


def _transfer(rules: Rules, case: Circumstances) -> Decision:
    origin, to = case.region, case.to
    found = basis_for(rules.transfers, origin, to, case.at) if origin and to else None
    if found is None:
        return _deny(
            Reason.TRANSFER,
            f"it lies in {origin}, and nothing is documented on which it may be read in {to}",
        )
    return Decision(True, Reason.ALLOWED, basis=found.text())


def _deny(reason: Reason, detail: str | None = None) -> Decision:
    return Decision(False, reason, detail)
