"""
How a document stands: its retention, and the holds and the restriction that are on it.

Why a thing is held or restricted is for those who may read holds. Others learn that it is, no more,
whatever the entrance: a reason may say of what somebody is suspected.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from uuid import UUID

from vault.actions.policy import in_force
from vault.context import Vault
from vault.domain.access import ALLOWED, Action, Principal
from vault.domain.documents import Custody, Document
from vault.domain.holds import Hold, Restriction
from vault.domain.retention import Verdict, judge
from vault.sql import holds as holds_sql
from vault.sql import retention as retention_sql
from vault.sql.connection import Connection, connection


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
