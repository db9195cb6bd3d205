"""The log on a real database: its order, its checkpoints, and what closes it."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from keys.notes.note import Verifier
from tests.access_records import append
from vault.actions import log_publish as sequence_module
from vault.actions.log_publish import sequence_log
from vault.actions.log_records import INTERRUPTED_SECONDS, close_interrupted, verify_region
from vault.context import Vault
from vault.domain.access import Principal
from vault.domain.checkpoint import Checkpoint, open_checkpoint, origin
from vault.domain.merkle import check_consistency, consistency_proof, root_of

COMPLIANCE = Principal("token:compliance", "compliance", frozenset({"uk"}))


async def indices(vault: Vault, region: str = "uk") -> list[int]:
    """Return the places that are taken."""
    rows = await vault.pool.fetch(
        "select index from log_leaf where region = $1 order by index", region
    )
    return [row["index"] for row in rows]


async def checkpoints(vault: Vault, region: str = "uk") -> list[Checkpoint]:
    """Return every checkpoint, verified, smallest first."""
    verifier = Verifier(vault.signer.vkey)
    rows = await vault.pool.fetch(
        "select note from log_checkpoint where region = $1 order by size", region
    )
    return [open_checkpoint(row["note"], verifier, region) for row in rows]


async def test_records_get_contiguous_places_in_batches(
    vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backlog of several batches is caught up with; then there is nothing to do."""
    monkeypatch.setattr(sequence_module, "BATCH", 10)
    made = await append(vault, 25)
    assert [await sequence_log(vault, "uk") for _ in range(4)] == [10, 10, 5, 0]
    assert await indices(vault) == list(range(25))
    rows = await vault.pool.fetch("select record from log_leaf order by index")
    assert [row["record"] for row in rows] == [item.id for item in made]
    assert [item.size for item in await checkpoints(vault)] == [10, 20, 25]
    assert await vault.pool.fetchval("select count(*) from log_queue") == 0


async def test_every_checkpoint_is_a_prefix_of_the_next(vault: Vault) -> None:
    """The signed roots are those of the stored leaves, and each is consistent with the last."""
    for number in (1, 2, 5, 8):
        await append(vault, number)
        await sequence_log(vault, "uk")
    rows = await vault.pool.fetch("select leaf_hash from log_leaf order by index")
    leaves = [row["leaf_hash"] for row in rows]
    *earlier, newest = await checkpoints(vault)
    assert newest == Checkpoint(origin("uk"), 16, root_of(leaves))
    for item in earlier:
        proof = consistency_proof(item.size, leaves)
        assert check_consistency(item.size, item.root, newest.size, newest.root, proof)


async def test_regions_have_logs_of_their_own(vault: Vault) -> None:
    """A region's records are numbered and signed in its own log only."""
    await append(vault, 3)
    await append(vault, 2, "sg")
    assert await sequence_log(vault, "uk") == 3
    assert await indices(vault, "sg") == []
    assert await sequence_log(vault, "sg") == 2
    assert (await indices(vault), await indices(vault, "sg")) == ([0, 1, 2], [0, 1])
    assert [item.origin for item in await checkpoints(vault, "sg")] == ["portvault/sg"]


async def test_sequencers_at_once_leave_no_gap(
    vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While records come in, several sequencers give each one place and nothing twice."""
    monkeypatch.setattr(sequence_module, "BATCH", 7)

    async def fill() -> None:
        for _ in range(40):
            await append(vault, 3)

    async def sequence() -> int:
        return sum([await sequence_log(vault, "uk") for _ in range(60)])

    async with asyncio.TaskGroup() as group:
        group.create_task(fill())
        tasks = [group.create_task(sequence()) for _ in range(3)]
    done = [task.result() for task in tasks]
    while more := await sequence_log(vault, "uk"):
        done.append(more)
    assert sum(done) == 120
    assert await indices(vault) == list(range(120))
    assert (await verify_region(vault, COMPLIANCE, "uk")).good


async def test_a_second_sequencer_does_not_wait(vault: Vault) -> None:
    """While another sequences, there is nothing to do; its rollback leaves all for the next."""
    await append(vault, 3)
    async with vault.pool.acquire() as conn:
        other = conn.transaction()
        await other.start()
        locked = "select pg_try_advisory_xact_lock($1, hashtext('uk'))"
        assert await conn.fetchval(locked, 0x6C6F6773)
        assert await sequence_log(vault, "uk") == 0
        await other.rollback()
    assert await sequence_log(vault, "uk") == 3


async def test_a_sequencer_that_fails_half_way_leaves_nothing(
    vault: Vault, pool: asyncpg.Pool
) -> None:
    """If the checkpoint cannot be kept, no place is given; the next run gives the same ones."""
    await append(vault, 3)
    await pool.execute("alter table log_checkpoint rename to away")
    with pytest.raises(asyncpg.UndefinedTableError):
        await sequence_log(vault, "uk")
    assert await indices(vault) == []
    assert await vault.pool.fetchval("select count(*) from log_queue") == 3
    await pool.execute("alter table away rename to log_checkpoint")
    assert await sequence_log(vault, "uk") == 3
    assert await indices(vault) == [0, 1, 2]


@pytest.mark.parametrize("table", ["access_record", "log_leaf", "log_checkpoint"])
async def test_the_log_is_only_added_to(vault: Vault, pool: asyncpg.Pool, table: str) -> None:
    """Its owner may not change, delete or truncate a row, and the service lacks the right."""
    await append(vault, 3)
    await sequence_log(vault, "uk")
    for statement in (
        f"update {table} set region = 'sg'",
        f"delete from {table}",
        f"truncate {table} cascade",
    ):
        with pytest.raises(asyncpg.RaiseError, match="only ever added to"):
            await pool.execute(statement)
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await vault.pool.execute(statement)


async def test_a_long_log_is_read_to_its_end(vault: Vault) -> None:
    """A log of several pages of the cursor verifies; what came since waits for its place."""
    await append(vault, 2500)
    await sequence_log(vault, "uk")
    await append(vault, 5)
    verdict = await verify_region(vault, COMPLIANCE, "uk")
    assert verdict.good
    assert (verdict.size, verdict.findings) == (2500, ())


async def test_interrupted_intents_are_closed_once(vault: Vault) -> None:
    """Only what is allowed, old and without outcome is closed, once, also by two at a time."""
    now = datetime.now(UTC)
    old: dict[str, Any] = {
        "at": now - timedelta(seconds=INTERRUPTED_SECONDS + 1),
        "decision": "allow",
    }
    lost = await append(vault, 3, **old)
    ended = await append(vault, 1, **old)
    await append(vault, 1, phase="outcome", decision=None, intent=ended[0].id, result="completed")
    await append(vault, 1, decision="allow", at=now)
    await append(vault, 1, at=old["at"])
    await sequence_log(vault, "uk")
    closed = await asyncio.gather(*(close_interrupted(vault, "uk") for _ in range(4)))
    assert sum(closed) == 3
    assert await close_interrupted(vault, "uk") == 0
    rows = await vault.pool.fetch("select intent from access_record where result = 'interrupted'")
    assert sorted(row["intent"] for row in rows) == sorted(item.id for item in lost)
    await sequence_log(vault, "uk")
    verdict = await verify_region(vault, COMPLIANCE, "uk")
    assert (verdict.good, verdict.in_flight) == (True, 1)


async def test_nothing_is_interrupted_that_may_still_go_on(vault: Vault) -> None:
    """Where uploads may take very long, their intents are waited for even longer."""
    config = replace(vault.config, receiving_seconds_max=INTERRUPTED_SECONDS)
    patient = replace(vault, config=config)
    at = datetime.now(UTC) - timedelta(seconds=INTERRUPTED_SECONDS + 60)
    await append(vault, 1, decision="allow", at=at)
    await sequence_log(vault, "uk")
    assert await close_interrupted(patient, "uk") == 0
    assert await close_interrupted(vault, "uk") == 1
