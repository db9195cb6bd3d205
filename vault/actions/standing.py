"""How a document stands: its retention, and the holds and the restriction that are on it."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from vault.actions.policy import in_force
from vault.context import Vault
from vault.domain.documents import Custody, Document
from vault.domain.holds import Hold, Restriction
from vault.domain.retention import Verdict, judge
from vault.sql import holds as holds_sql
from vault.sql import restrictions as restrictions_sql
from vault.sql import retention as retention_sql
from vault.sql.connection import Connection, connection


@dataclass(frozen=True, slots=True)
class Standing:
    """`verdict` is None once the document is shredded: then nothing is left to be kept."""

    verdict: Verdict | None
    holds: tuple[Hold, ...]
    restriction: Restriction | None


async def standings(
    vault: Vault, conn: Connection, documents: Sequence[UUID]
) -> dict[UUID, Standing]:
    """Return how documents stand now, by their ids; asks the rule, not what it said before."""
    current = await in_force(vault, conn)
    judged = await retention_sql.judged(conn, documents)
    named = {hold for item in judged.values() for hold in item.facts.holds}
    holds = {hold.id: hold for hold in await holds_sql.find_many(conn, named)}
    restricted = [key for key, item in judged.items() if item.document.restricted_at is not None]
    restrictions = await restrictions_sql.living(conn, restricted)
    return {
        identity: Standing(
            verdict=judge(item.facts, current.policy, current.grace)
            if item.document.custody is Custody.STORED
            else None,
            holds=tuple(holds[hold] for hold in item.facts.holds if hold in holds),
            restriction=restrictions.get(identity),
        )
        for identity, item in judged.items()
    }


async def standing_of(vault: Vault, document: Document) -> Standing:
    """Return how one document stands."""
    async with connection(vault.pool) as conn:
        return (await standings(vault, conn, [document.id]))[document.id]
