"""No silent rewriting: whoever changes the access log behind the vault's back is found out."""

import asyncpg
import pytest

from keys.notes.note import Verifier
from tests.fixtures_server import Api
from vault.actions.log_publish import sequence_log
from vault.actions.log_records import latest_checkpoint, verify_region
from vault.context import Vault
from vault.domain.access import Principal
from vault.domain.checkpoint import open_checkpoint
from vault.domain.records import canonical_bytes
from vault.domain.verify import verify_log
from vault.sql.log import sequenced

COMPLIANCE = Principal("token:compliance", "compliance", frozenset({"uk"}))
FIRST = "(select record from log_leaf where region = 'uk' and index = 0)"
SWAP = """
    update log_leaf a set record = b.record from log_leaf b
    where a.region = 'uk' and b.region = 'uk' and a.index in (0, 1) and b.index = 1 - a.index
"""
LAST = "(select max(index) from log_leaf where region = 'uk')"


async def filled(api: Api, vault: Vault) -> str:
    """Make some records in two checkpoints, and return the first as an auditor would keep it."""
    await api.order()
    await sequence_log(vault, "uk")
    held = await latest_checkpoint(vault, COMPLIANCE, "uk")
    await api.order()
    await sequence_log(vault, "uk")
    return held


async def rewrite(pool: asyncpg.Pool, *statements: str) -> None:
    """Do as the owner of the database what its triggers and foreign keys forbid."""
    async with pool.acquire() as conn:
        await conn.execute("set session_replication_role = replica")
        for statement in statements:
            await conn.execute(statement)
        await conn.execute("set session_replication_role = default")


async def three(vault: Vault, *held: str) -> tuple[bool, bool, bool]:
    """Return the verdicts: intact, complete, consistent."""
    verdict = await verify_region(vault, COMPLIANCE, "uk", held=held)
    assert verdict.good == (verdict.findings == ())
    return verdict.intact, verdict.complete, verdict.consistent


async def test_an_honest_log_verifies(api: Api, vault: Vault) -> None:
    """Untouched, the log is intact, complete and consistent, also with what an auditor held."""
    held = await filled(api, vault)
    assert await three(vault) == (True, True, True)
    await sequence_log(vault, "uk")
    assert await three(vault, held) == (True, True, True)


@pytest.mark.parametrize(
    "statement, expected",
    [
        (f"update access_record set reason = 'x' where id = {FIRST}", (False, True, True)),
        (
            f"update access_record set at = at + interval '1 us' where id = {FIRST}",
            (False, True, True),
        ),
        ("update log_leaf set index = -index - 1 where index = 0", (False, False, False)),
        (SWAP, (False, False, True)),
        (f"delete from access_record where id = {FIRST}", (False, False, True)),
        ("delete from log_leaf where region = 'uk' and index = 1", (False, False, False)),
        (f"delete from log_leaf where region = 'uk' and index = {LAST}", (False, False, True)),
        (
            "delete from log_checkpoint where size = (select max(size) from log_checkpoint)",
            (True, False, True),
        ),
    ],
)
async def test_a_changed_log_does_not_verify(
    api: Api,
    vault: Vault,
    pool: asyncpg.Pool,
    statement: str,
    expected: tuple[bool, bool, bool],
) -> None:
    """Refused by the database; and done by its owner nevertheless, it is found and named."""
    await filled(api, vault)
    with pytest.raises(asyncpg.PostgresError):
        await vault.pool.execute(statement)
    await rewrite(pool, "alter table log_leaf drop constraint log_leaf_record_key", statement)
    found = await three(vault)
    assert not all(found)
    assert found == expected


async def test_a_record_that_is_left_out_is_found(api: Api, vault: Vault) -> None:
    """A record that is taken from the queue before it had a place is missed."""
    await filled(api, vault)
    await api.order()
    await vault.pool.execute("delete from log_queue")
    await sequence_log(vault, "uk")
    assert await three(vault) == (True, False, True)


async def test_a_forged_checkpoint_is_found(api: Api, vault: Vault, pool: asyncpg.Pool) -> None:
    """A checkpoint that the vault's key did not sign, or that is another log's, is none."""
    await filled(api, vault)
    await rewrite(pool, "update log_checkpoint set note = replace(note, 'vault/uk', 'vault/sg')")
    intact, _, consistent = await three(vault)
    assert (intact, consistent) == (False, False)


async def test_a_log_cut_short_with_its_checkpoints_is_found_by_who_holds_one(
    api: Api, vault: Vault, pool: asyncpg.Pool
) -> None:
    """Within the database nothing is left to see; one earlier checkpoint convicts it."""
    await filled(api, vault)
    held = await latest_checkpoint(vault, COMPLIANCE, "uk")
    await rewrite(
        pool,
        "create table cut as select min(size) as size from log_checkpoint",
        "delete from log_queue",
        "delete from access_record where id not in "
        "(select record from log_leaf, cut where index < size)",
        "delete from log_leaf using cut where index >= size",
        "delete from log_checkpoint using cut where log_checkpoint.size > cut.size",
    )
    assert await three(vault) == (True, True, True)
    assert await three(vault, held) == (True, True, False)


async def test_everything_thrown_away_is_found_by_who_holds_a_checkpoint(
    api: Api, vault: Vault, pool: asyncpg.Pool
) -> None:
    """A log that begins anew is not the log that somebody remembers."""
    held = await filled(api, vault)
    tables = ("log_queue", "log_leaf", "log_checkpoint", "access_record")
    await rewrite(pool, *(f"delete from {table}" for table in tables))
    assert not (await verify_region(vault, COMPLIANCE, "uk", held=[held])).good
    for _ in range(4):
        await api.order()
    await sequence_log(vault, "uk")
    assert not (await verify_region(vault, COMPLIANCE, "uk", held=[held])).consistent


async def test_an_auditor_needs_the_public_key_and_nothing_else(api: Api, vault: Vault) -> None:
    """Records, the newest checkpoint and one from before are checked without the vault."""
    held = await filled(api, vault)
    note = await latest_checkpoint(vault, COMPLIANCE, "uk")
    async with vault.pool.acquire() as conn, conn.transaction():
        export = [
            (leaf.index, canonical_bytes(leaf.record))
            async for leaf in sequenced(conn, "uk")
            if leaf.record
        ]
    verifier = Verifier(vault.signer.vkey)
    newest, earlier = (open_checkpoint(item, verifier, "uk") for item in (note, held))
    assert verify_log(export, newest, [earlier]).good
    index, data = export[0]
    export[0] = (index, data.replace(b'"role":"', b'"role":"x'))
    verdict = verify_log(export, newest, [earlier])
    assert (verdict.intact, verdict.complete, verdict.consistent) == (False, True, False)
