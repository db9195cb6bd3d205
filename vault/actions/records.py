"""Look into the access log, verify it, and close what a dead process left open."""

from datetime import timedelta
from uuid import UUID

from keys.note import Verifier
from vault.actions.access import Access, recorded
from vault.actions.cursor import decode_cursor, encode_cursor
from vault.context import Vault
from vault.domain.access import Action, Principal
from vault.domain.checkpoint import Checkpoint, decode
from vault.domain.records import Record, canonical_bytes
from vault.domain.verify import Verdict, verify_log
from vault.errors import InvalidRequestError, NotFoundError
from vault.sql import log as log_sql
from vault.sql.connection import connection, transaction

#: An intent that has no outcome after so long belonged to a process that died.
INTERRUPTED_SECONDS = 3 * 3600.0
INTERRUPTED_BATCH = 500
EARLIER_CHECKPOINTS_MAX = 1000


async def list_records(
    vault: Vault,
    principal: Principal,
    *,
    region: str | None,
    document: UUID | None,
    order: UUID | None,
    cursor: str | None,
    limit: int,
) -> tuple[list[Record], str | None]:
    """Return a page of a region's records, newest first, and the cursor of the next one."""
    if region is None:
        mine = sorted(principal.regions & set(vault.config.regions))
        region = mine[0] if len(mine) == 1 else None
        if region is None and mine:
            raise InvalidRequestError(f"say which region: {', '.join(mine)}")
    before = decode_cursor(cursor) if cursor else None
    known = region if region in vault.config.regions else None
    async with (
        recorded(vault, principal, Action.LOG_READ, region=known, document=document, order=order),
        connection(vault.pool) as conn,
    ):
        found = await log_sql.page(
            conn,
            known or "",
            document=document,
            order=order,
            before=before,
            limit=limit + 1,
        )
    page = found[:limit]
    more = len(found) > limit
    return page, encode_cursor(page[-1].at, page[-1].id) if more else None


async def latest_checkpoint(vault: Vault, principal: Principal, region: str) -> str:
    """Return the newest signed checkpoint of a region's log."""
    known = region if region in vault.config.regions else None
    async with (
        recorded(vault, principal, Action.LOG_READ, region=known),
        connection(vault.pool) as conn,
    ):
        signed = await log_sql.latest_checkpoint(conn, region)
    if signed is None:
        raise NotFoundError("the log has no checkpoint yet; try again in a second")
    return signed.note


async def verify_region(vault: Vault, principal: Principal, region: str) -> Verdict:
    """Check every record against the newest checkpoint, and that against the ones before it."""
    known = region if region in vault.config.regions else None
    verifier = Verifier(vault.signer.vkey)
    async with recorded(vault, principal, Action.LOG_READ, region=known):
        async with transaction(vault.pool) as conn:
            notes = await log_sql.checkpoint_notes(conn, region, EARLIER_CHECKPOINTS_MAX)
            if not notes:
                raise NotFoundError("the log has no checkpoint yet; try again in a second")
            newest, *earlier = [_checkpoint(verifier, note) for note in notes]
            leaves = [
                (index, canonical_bytes(record))
                async for index, record in log_sql.sequenced(conn, region, newest.size)
            ]
        return verify_log(leaves, newest, earlier)


def _checkpoint(verifier: Verifier, note: str) -> Checkpoint:
    return decode(verifier.verify(note))


async def close_interrupted(vault: Vault, region: str) -> int:
    """Record as `interrupted` the outcome of intents that nobody is left to conclude."""
    before = vault.clock() - timedelta(seconds=INTERRUPTED_SECONDS)
    async with transaction(vault.pool) as conn:
        intents = await log_sql.unfinished_intents(conn, region, before, INTERRUPTED_BATCH)
        if intents:
            outcomes = [Access(vault, intent).conclude(result="interrupted") for intent in intents]
            await log_sql.insert_records(conn, outcomes)
    return len(intents)
