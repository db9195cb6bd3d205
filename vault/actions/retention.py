"""Say why a document is here and until when, and what will go until a date."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

from vault.actions.access import own_regions, recorded
from vault.actions.policy import InForce, in_force
from vault.context import Vault
from vault.domain.access import ALLOWED, Action, Principal
from vault.domain.documents import Custody, Document
from vault.domain.holds import Hold, Restriction
from vault.domain.retention import Verdict, judge
from vault.errors import InvalidRequestError, NotFoundError
from vault.sql import documents as documents_sql
from vault.sql import holds as holds_sql
from vault.sql import retention as retention_sql
from vault.sql.connection import Connection, connection

# ---- How a document stands: its retention, and the holds and the restriction that are on it.
#
# Why a thing is held or restricted is for those who may read holds. Others learn that it is, no
# more, whatever the entrance: a reason may say of what somebody is suspected.


@dataclass(frozen=True, slots=True)
class Standing:
    """`verdict` is None once the document is shredded: then nothing is left to be kept."""

    verdict: Verdict | None
    held: bool
    #: Empty where the principal may not read holds.
    holds: tuple[Hold, ...]
    #: Without its reason and its author in that case.
    restriction: Restriction | None


async def standings(
    vault: Vault, conn: Connection, principal: Principal, documents: Sequence[UUID]
) -> dict[UUID, Standing]:
    """
    Return how documents stand now, by their ids, as far as the principal may know it.

    Asks the rule, not what it said before.
    """
    knows_why = Action.HOLD_READ in ALLOWED.get(principal.role, frozenset())
    current = await in_force(vault, conn)
    judged = await retention_sql.judged(conn, documents)
    named = {hold for item in judged.values() for hold in item.facts.holds} if knows_why else set()
    holds = {hold.id: hold for hold in await holds_sql.find_many(conn, named)}
    restricted = [key for key, item in judged.items() if item.document.restricted_at is not None]
    restrictions = await holds_sql.living_restrictions(conn, restricted)
    return {
        identity: Standing(
            verdict=judge(item.facts, current.policy, current.grace)
            if item.document.custody is Custody.STORED
            else None,
            held=bool(item.facts.holds),
            holds=tuple(holds[hold] for hold in item.facts.holds if hold in holds),
            restriction=_shown(restrictions.get(identity), knows_why=knows_why),
        )
        for identity, item in judged.items()
    }


def _shown(restriction: Restriction | None, *, knows_why: bool) -> Restriction | None:
    if restriction is None or knows_why:
        return restriction
    return replace(restriction, reason=None, placed_by=None)


async def standing_of(vault: Vault, principal: Principal, document: Document) -> Standing:
    """Return how one document stands."""
    async with connection(vault.pool) as conn:
        return (await standings(vault, conn, principal, [document.id]))[document.id]


# ---- Retention. ---------------------------------------------------------------------------------

AHEAD_MAX = timedelta(days=36_500)


@dataclass(frozen=True, slots=True)
class Explained:
    """A document and how it stands."""

    document: Document
    standing: Standing

    @property
    def sentence(self) -> str:
        """Say it in a sentence or two."""
        document, verdict = self.document, self.standing.verdict
        if verdict is not None:
            restricted = (
                " Nobody reads it meanwhile: it is restricted." if self.standing.restriction else ""
            )
            return f"{verdict.sentence}{restricted} Source: {verdict.citation}"
        beyond = document.shredded_at.date() if document.shredded_at else "an unknown day"
        sealed = (
            f"irrecoverable since {document.sealed_at.date()}"
            if document.sealed_at
            else "irrecoverable at the next seal"
        )
        return f"It is gone: beyond use since {beyond} ({document.shred_reason}), {sealed}."


async def explain_retention(vault: Vault, principal: Principal, identity: UUID) -> Explained:
    """Say why a document is here, until when, under which clause, and which holds keep it."""
    async with connection(vault.pool) as conn:
        document = await documents_sql.find(conn, identity)
    async with recorded(
        vault,
        principal,
        Action.DOCUMENT_DESCRIBE,
        region=document.region if document else None,
        document=identity,
        order=document.order_id if document else None,
        kind=document.kind.value if document else None,
    ):
        if document is None:
            raise NotFoundError
        async with connection(vault.pool) as conn:
            return Explained(
                document, (await standings(vault, conn, principal, [identity]))[identity]
            )


@dataclass(frozen=True, slots=True)
class Planned:
    """A document that will go, and why."""

    document: Document
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Plan:
    """A page of what will go; `unjudged` documents wait for the worker to look at them."""

    items: list[Planned]
    unjudged: int


async def plan_retention(
    vault: Vault,
    principal: Principal,
    until: datetime,
    after: tuple[datetime, UUID] | None,
    limit: int,
) -> Plan:
    """List what will go until a time of what the principal may know of, soonest first."""
    if until > vault.clock() + AHEAD_MAX:
        raise InvalidRequestError("until is more than a hundred years ahead")
    mine = own_regions(vault, principal)
    theirs = None if principal.customers is None else sorted(principal.customers)
    async with (
        recorded(vault, principal, Action.RETENTION_PLAN, region=mine),
        connection(vault.pool) as conn,
    ):
        current = await in_force(vault, conn)
        found = await retention_sql.planned(conn, mine, theirs, until, after, limit)
        waiting = await retention_sql.unjudged(conn, mine, current.version)
        items = [
            Planned(item.document, judge(item.facts, current.policy, current.grace))
            for item in found
        ]
        return Plan(items, waiting)


async def show_policy(vault: Vault, principal: Principal) -> tuple[InForce, str | None]:
    """Return the policy in force and its text; None where nothing was put in force yet."""
    async with (
        recorded(vault, principal, Action.POLICY_READ, region=vault.config.regions),
        connection(vault.pool) as conn,
    ):
        applied = await retention_sql.newest_policy(conn)
        return await in_force(vault, conn), applied.text if applied else None
