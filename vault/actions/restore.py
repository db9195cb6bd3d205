"""
Restore: make an older state of the database agree with what happened since.

The database holds a backup, or is a standby that lagged. Its rows stay, its key tree becomes the
newest that is known, and the access log is brought up to what was published. What has no key any
more was shredded; what the log says was shredded loses its key again. Orders and documents that
came later are brought back from the bucket (`recover`), and what was decided since is done anew as
far as the log tells it (`follow`). What nobody can tell is named, and has nothing go by its time.
One transaction a region: until it commits, nothing has changed. A dry run does all of it and rolls
it back, so it says what the real one will.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from keys.errors import RestoreRefusedError
from keys.keyring import Merged
from vault.actions.access import Access, recorded
from vault.actions.follow import Decision, doubts, follow
from vault.actions.log_publish import adopt_published, wait_published
from vault.actions.recover import OrderLine, recover, recover_faxes
from vault.context import Vault
from vault.domain.access import Action, Principal
from vault.domain.documents import OBJECTS_PREFIX
from vault.domain.records import Record
from vault.sql import damage as damage_sql
from vault.sql import learned as learned_sql
from vault.sql import log as log_sql
from vault.sql import order_details as details_sql
from vault.sql import restore as restore_sql
from vault.sql.connection import Connection, connection
from vault.sql.restore import Line

OBJECTS_BATCH = 5000
#: States that the restore itself says more of than a row does.
EXPLAINED = frozenset({"unknown", "left", "recovered", "living"})


@dataclass(frozen=True, slots=True)
class Restored:
    """
    What a restore did, or would do, to a region.

    `refused` says why nothing of it is done; `doubt` what keeps anything from going by its time.
    """

    region: str
    refused: str | None
    tree: Merged | None = None
    records: int = 0
    shredded_again: int = 0
    doubt: str | None = None
    decisions: tuple[Decision, ...] = ()
    orders: tuple[OrderLine, ...] = ()
    documents: tuple[Line, ...] = ()
    #: Objects that no row, no key and no record of the log knows.
    unknown_objects: int = 0

    def count(self, state: str) -> int:
        """Return how many documents are in a state."""
        return sum(line.state == state for line in self.documents)


class _NothingDoneError(RestoreRefusedError):
    """What the restore of a region found, and why it is not done."""

    def __init__(self, restored: Restored) -> None:
        super().__init__(restored.refused)
        self.restored = restored


async def restore(
    vault: Vault, principal: Principal, region: str, *, dry_run: bool, leave_unknown: bool
) -> Restored:
    """
    Restore a region and seal it; with `dry_run` only say what would be.

    It is refused when documents would be lost from sight that another backup may still hold,
    unless `leave_unknown` says that they are to be left in the bucket.
    """
    async with connection(vault.pool) as alone:
        if not await restore_sql.is_alone(alone):
            raise RestoreRefusedError(
                "a vault is running on this database; stop every `portvault serve` and `worker`"
            )
        action = Action.KEYS_READ if dry_run else Action.KEYS_RESTORE
        try:
            async with recorded(vault, principal, action, region=region) as access:
                try:
                    restored = await _restore(access, region, dry_run=dry_run, leave=leave_unknown)
                except RestoreRefusedError as error:
                    restored = Restored(region, str(error))
                if not dry_run:
                    _require(restored)
                    # The log could not be published before it was whole again. A crash before this
                    # seal leaves a region in which everything is dirty; the worker seals.
                    await wait_published(access)
                    await vault.keyring.seal(region, force=True)
                return restored
        except _NothingDoneError as error:
            return error.restored
        finally:
            await restore_sql.let_others_in(alone)


def _require(restored: Restored) -> None:
    if restored.refused is not None:
        raise _NothingDoneError(restored)


async def _restore(access: Access, region: str, *, dry_run: bool, leave: bool) -> Restored:
    vault = access.vault
    async with connection(vault.pool) as conn:
        transaction = conn.transaction()
        await transaction.start()
        try:
            restored = await _reconcile(access, conn, region)
            if not leave:
                restored = replace(restored, refused=_why_refused(restored))
            kept = [line for line in restored.documents if line.state in ("unknown", "left")]
            await restore_sql.forget_receiving(conn, [line.document for line in kept])
            if leave:
                await log_sql.insert_records(conn, _left_behind(access, restored))
        except BaseException:
            await transaction.rollback()
            raise
        undo = dry_run or restored.refused is not None
        await (transaction.rollback() if undo else transaction.commit())
    vault.keyring.forget()
    return restored


def _left_behind(access: Access, restored: Restored) -> list[Record]:
    """Return what the log is to say of what is left, so that no later restore asks again."""
    return [
        replace(
            access.note(restore_sql.LEFT), document=line.document, order=line.order, kind=line.kind
        )
        for line in restored.documents
        if line.state in ("unknown", "lost")
    ]


def _why_refused(restored: Restored) -> str | None:
    count = restored.count("unknown") + restored.count("lost")
    if not count:
        return None
    what = "1 document" if count == 1 else f"{count} documents"
    ends = (
        "; its seal destroys the root key that the keys of those that are lost hang on in a later "
        "backup, which brings none of them back then"
    )
    return (
        f"{what} of {restored.region} cannot be brought back with what the backup and the bucket "
        f"have, so nothing in {restored.region} was changed; restore a later backup, or replay its "
        "WAL; `--leave-unknown` goes on without what cannot be brought back, and keeps what there "
        f"is of it{ends if restored.count('lost') else ''}"
    )


async def _reconcile(access: Access, conn: Connection, region: str) -> Restored:
    vault = access.vault
    merged = await vault.keyring.restore(conn, region)
    await learned_sql.begin(conn)
    await damage_sql.forget_look(conn, region)
    known = await log_sql.latest_checkpoint(conn, region)
    records = await adopt_published(vault, conn, region)
    again = await restore_sql.shredded_by_log(conn, region)
    of_index = await restore_sql.unknown_index_keys(conn, region)
    generation = await vault.keyring.destroy_keys(conn, region, [*again, *of_index])
    await restore_sql.note_anew(conn, region, generation)
    await restore_sql.shred_without_key(conn, region, generation, vault.clock())
    await restore_sql.end_faxes_without_key(conn, region, generation, vault.clock())
    await details_sql.set_gone_without_key(conn, region, vault.clock())
    await restore_sql.set_left(conn, region, vault.clock())
    await _keep_objects(vault, conn, region)
    recovered = await recover(access, conn, region, generation)
    faxes = await recover_faxes(access, conn, region, generation)
    decisions = await follow(vault, conn, region)
    doubt = await _doubt(vault, conn, region, decisions, known.size if known else 0)
    await log_sql.insert_records(conn, [*recovered.records, *faxes.records])
    documents = await restore_sql.lines(conn, region, OBJECTS_PREFIX)
    details = recovered.details | faxes.details
    return Restored(
        region,
        None,
        merged,
        records,
        len(again),
        doubt,
        tuple(decisions),
        recovered.orders,
        tuple(_explained(line, details.get(line.document)) for line in documents),
        await restore_sql.unknown_objects(
            conn, OBJECTS_PREFIX, [line.document for line in documents]
        ),
    )


def _explained(line: Line, detail: str | None) -> Line:
    """Return a line with what was found of its document, which says more than the rows do."""
    if detail is None or line.state not in EXPLAINED:
        return line
    if line.state == "left":
        detail = f"{line.detail}; {detail}"
    return replace(line, detail=detail)


async def _doubt(
    vault: Vault, conn: Connection, region: str, decisions: list[Decision], known: int
) -> str | None:
    """Return what keeps anything from going by its time, and write it down for the worker."""
    trimmed = (await log_sql.minimum(conn, region)).size
    gone = f"records {known} to {trimmed - 1} of the log are gone" if trimmed > known else None
    found = [text for text in (doubts(decisions), gone) if text]
    if not found:
        return None
    doubt = "; ".join(found)
    await learned_sql.set_doubt(conn, region, doubt, vault.clock())
    return doubt


async def _keep_objects(vault: Vault, conn: Connection, region: str) -> None:
    found = list[tuple[str, int]]()
    first = True
    async for item in vault.stores[region].list(OBJECTS_PREFIX):
        found.append((item.name, item.size_bytes))
        if len(found) >= OBJECTS_BATCH:
            await restore_sql.keep_objects(conn, found, first=first)
            found, first = [], False
    await restore_sql.keep_objects(conn, found, first=first)
    await restore_sql.index_objects(conn)


# ---- Backup: a dump holds the log and every wrapped key, so who takes one is written down in
# each.


@asynccontextmanager
async def backed_up(vault: Vault, principal: Principal) -> AsyncIterator[None]:
    """Record a backup in the log of every region, before it is taken and when it has ended."""
    async with recorded(vault, principal, Action.BACKUP_CREATE, region=vault.config.regions):
        yield
