"""Credentials: what a token is made good for, which are in one person's hands, and break-glass."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from vault.domain.access import Principal, Role
from vault.domain.documents import Kind
from vault.domain.orders import check_customer
from vault.domain.people import OPERATOR, PERSON, PERSON_PATTERN
from vault.domain.regions import REGIONS
from vault.errors import InvalidRequestError

# ---- Grants: what a token is made good for, checked before it is made. --------------------------


@dataclass(frozen=True, slots=True)
class Grant:
    """A role, where it counts, and how it is narrowed; None is not narrowed."""

    role: str
    regions: frozenset[str]
    customers: frozenset[str] | None = None
    kinds: frozenset[str] | None = None
    located: str | None = None
    #: SHA-256 of the only client certificate (DER) with which the token is taken.
    certificate: bytes | None = None
    #: The id of the person who holds it, where that was said.
    person: str | None = None


@dataclass(frozen=True, slots=True)
class Known:
    """Whom a token stands for, and the certificate that it is bound to."""

    principal: Principal
    certificate: bytes | None


def check_grant(grant: Grant, served: Collection[str]) -> Grant:
    """Return the grant, or raise `InvalidRequestError` that says what is wrong with it."""
    if grant.role not in list(Role):
        raise InvalidRequestError(f"role must be one of {', '.join(Role)}")
    if not grant.regions or not grant.regions <= set(served):
        raise InvalidRequestError(f"regions must be some of {', '.join(served)}")
    if grant.located is not None and grant.located not in REGIONS:
        raise InvalidRequestError(f"located must be one of {', '.join(REGIONS)}")
    narrowed = grant.customers is not None or grant.kinds is not None
    if narrowed and grant.role != Role.PORTING:
        raise InvalidRequestError(
            "only a token of the porting role is narrowed by customer or kind"
        )
    if grant.customers is not None:
        if not grant.customers:
            raise InvalidRequestError("name at least one customer")
        for customer in sorted(grant.customers):
            check_customer(customer)
    if grant.kinds is not None and (not grant.kinds or not grant.kinds <= set(Kind)):
        raise InvalidRequestError(f"kinds must be some of {', '.join(Kind)}")
    if grant.certificate is not None and len(grant.certificate) != 32:
        raise InvalidRequestError("certificate must be the SHA-256 of a certificate")
    if grant.person is not None and not PERSON_PATTERN.fullmatch(grant.person):
        raise InvalidRequestError("person must be a person's id, as the console shows it")
    return grant


# ---- Lineage: which credentials are in the hands of one person, for every act that takes somebody
# else.
#
# Pure. A credential is a token, an envelope, a session's person or the account of an operator, by
# the id under which it stands in the log. It belongs to whoever *holds* it: who sealed an envelope
# knows its secret, so does who opened it, and a token may name its person. Who *made* a token and
# handed it on is the same person as the token. Two tokens of one maker are one person, too, unless
# each names its person and they name different ones.


class Relation(StrEnum):
    """Why two credentials are, or cannot be told from, one person's."""

    #: One of them is in the hands of the other, or was made by it, or may be anybody's.
    HANDS = "hands"
    #: One operator made both, and they do not name two people.
    MAKER = "maker"


@dataclass(frozen=True, slots=True)
class Link:
    """That `other` holds a credential itself, or, where it does not, made it for somebody."""

    credential: str
    other: str
    held: bool


@dataclass(frozen=True, slots=True)
class Lineage:
    """All links of the credentials in question, and those that may be in anybody's hands."""

    links: frozenset[Link] = frozenset()
    #: Envelopes that were opened, and tokens that were made, by nobody knows whom.
    strangers: frozenset[str] = frozenset()

    def holders(self, credential: str) -> frozenset[str]:
        """Return the credential and all that are in the same hands for certain."""
        return self._closure(credential, held_only=True)

    def origins(self, credential: str) -> frozenset[str]:
        """Return the credential, its holders and makers, their makers, and so on."""
        return self._closure(credential, held_only=False)

    def is_named(self, credential: str) -> bool:
        """Whether it is a person's who is named, and in nobody else's hands that is known."""
        ends = [one for one in self.holders(credential) if not self._held_by(one)]
        return all(one.startswith(PERSON) for one in ends)

    def _held_by(self, credential: str) -> list[str]:
        return [link.other for link in self.links if link.credential == credential and link.held]

    def _closure(self, credential: str, *, held_only: bool) -> frozenset[str]:
        found, waiting = {credential}, [credential]
        while waiting:
            known = waiting.pop()
            fresh = set(self._known_to(known, held_only=held_only)) - found
            found |= fresh
            waiting.extend(fresh)
        return frozenset(found)

    def _known_to(self, credential: str, *, held_only: bool) -> Iterator[str]:
        account, _, login = credential.removeprefix(OPERATOR).partition("/")
        if credential.startswith(OPERATOR) and login:
            # Somebody who logged in as one account and acts as another is both.
            yield OPERATOR + account
            yield OPERATOR + login
        for link in self.links:
            if link.credential == credential and (link.held or not held_only):
                yield link.other


def relation(one: str, other: str, lineage: Lineage) -> Relation | None:
    """
    Return why two principals are, or cannot be told from, one person; None when they are two.

    A token of an envelope that was opened by nobody knows whom is told from nobody. Whoever made
    a token is the same person as the token even where it names another.
    """
    ours, theirs = lineage.holders(one), lineage.holders(other)
    if (ours | theirs) & lineage.strangers:
        return Relation.HANDS
    makers, others = lineage.origins(one), lineage.origins(other)
    if makers & theirs or ours & others:
        return Relation.HANDS
    if makers & others and not (lineage.is_named(one) and lineage.is_named(other)):
        return Relation.MAKER
    return None


def same_person(one: str, other: str, lineage: Lineage) -> bool:
    """Whether two principals are, or cannot be told from, one person."""
    return relation(one, other, lineage) is not None


# ---- Break-glass: a credential that is sealed ahead, for the day the identity provider is down.


class State(StrEnum):
    """Whether a sealed credential can be opened, or why it cannot."""

    SEALED = "sealed"
    OPENED = "opened"
    EXPIRED = "expired"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class Envelope:
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
