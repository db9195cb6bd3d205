"""
Restore: make an older state of the database agree with what happened since.

The database holds a backup, or is a standby that lagged. Its rows stay, its key tree becomes the
newest that is known, and the access log is brought up to what was published. What has no key any
more was shredded; what the log says was shredded loses its key again. Documents that only the
bucket knows are kept and named. One transaction a region: until it commits, nothing has changed.
"""

from dataclasses import dataclass

from keys.errors import RestoreRefusedError
from keys.keyring import Merged
from vault.actions.access import recorded
from vault.actions.published import adopt_published
from vault.actions.published_first import wait_published
from vault.context import Vault
from vault.domain.access import Action, Principal
from vault.domain.documents import OBJECTS_PREFIX
from vault.sql import order_details as details_sql
from vault.sql import restore as restore_sql
from vault.sql.connection import Connection, connection
from vault.sql.restore import Line

OBJECTS_BATCH = 5000


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore did, or would do, to a region."""

    region: str
    tree: Merged
    records: int
    shredded_again: int
    documents: tuple[Line, ...]

    def count(self, state: str) -> int:
        """Return how many documents are in a state."""
        return sum(line.state == state for line in self.documents)


async def restore(
    vault: Vault, principal: Principal, region: str, *, dry_run: bool, leave_unknown: bool
) -> Restored:
    """
    Restore a region and seal it; with `dry_run` only say what would be.

    Raises `RestoreRefusedError` when documents would be lost from sight that another backup may
    still hold, unless `leave_unknown` says that they are to be left in the bucket.
    """
    async with connection(vault.pool) as alone:
        if not await restore_sql.is_alone(alone):
            raise RestoreRefusedError(
                "a vault is running on this database; stop every `portvault serve` and `worker`"
            )
        action = Action.KEYS_READ if dry_run else Action.KEYS_RESTORE
        try:
            async with recorded(vault, principal, action, region=region) as access:
                restored = await _restore(
                    vault, region, dry_run=dry_run, leave_unknown=leave_unknown
                )
                if not dry_run:
                    # The log could not be published before it was whole again. A crash before this
                    # seal leaves a region in which everything is dirty; the worker seals.
                    await wait_published(access)
                    await vault.keyring.seal(region, force=True)
                return restored
        finally:
            await restore_sql.let_others_in(alone)


async def _restore(vault: Vault, region: str, *, dry_run: bool, leave_unknown: bool) -> Restored:
    async with connection(vault.pool) as conn:
        transaction = conn.transaction()
        await transaction.start()
        try:
            restored = await _reconcile(vault, conn, region)
            if not leave_unknown and not dry_run:
                _require_all_known(restored)
            unknown = [line.document for line in restored.documents if line.state == "unknown"]
            await restore_sql.forget_receiving(conn, unknown)
        except BaseException:
            await transaction.rollback()
            raise
        await (transaction.rollback() if dry_run else transaction.commit())
    return restored


def _require_all_known(restored: Restored) -> None:
    if count := restored.count("unknown") + restored.count("lost"):
        raise RestoreRefusedError(
            f"{count} documents of {restored.region} were stored after this backup, and no row "
            "here describes them; restore a later backup, or replay its WAL; `--dry-run` names "
            "them, and `--leave-unknown` goes on without them and keeps what there is of them"
        )


async def _reconcile(vault: Vault, conn: Connection, region: str) -> Restored:
    merged = await vault.keyring.restore(conn, region)
    records = await adopt_published(vault, conn, region)
    again = await restore_sql.shredded_by_log(conn, region)
    of_index = await restore_sql.unknown_index_keys(conn, region)
    generation = await vault.keyring.destroy_keys(conn, region, [*again, *of_index])
    await restore_sql.note_anew(conn, region, generation)
    await restore_sql.shred_without_key(conn, region, generation, vault.clock())
    await restore_sql.end_faxes_without_key(conn, region, generation, vault.clock())
    await details_sql.set_gone_without_key(conn, region, vault.clock())
    await _keep_objects(vault, conn, region)
    documents = await restore_sql.lines(conn, region, OBJECTS_PREFIX)
    return Restored(region, merged, records, len(again), tuple(documents))


async def _keep_objects(vault: Vault, conn: Connection, region: str) -> None:
    names = list[str]()
    first = True
    async for item in vault.stores[region].list(OBJECTS_PREFIX):
        names.append(item.name)
        if len(names) >= OBJECTS_BATCH:
            await restore_sql.keep_objects(conn, names, first=first)
            names, first = [], False
    await restore_sql.keep_objects(conn, names, first=first)
