"""The log on a real database: its order, its checkpoints, who may look, and what closes it."""

import asyncio
import base64
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from keys.note import Verifier
from vault.actions import sequence as sequence_module
from vault.actions.records import (
    INTERRUPTED_SECONDS,
    close_interrupted,
    latest_checkpoint,
    list_records,
    verify_region,
)
from vault.actions.sequence import sequence_log
from vault.context import Vault
from vault.domain.access import Principal
from vault.domain.checkpoint import Checkpoint, decode, open_checkpoint, origin
from vault.domain.merkle import check_consistency, consistency_proof, root_of
from vault.domain.records import Record
from vault.errors import ForbiddenError, InvalidRequestError, NotFoundError

COMPLIANCE = Principal("token:compliance", "compliance", frozenset({"uk"}))
PORTING = Principal("token:porting", "porting", frozenset({"uk"}))


def record(region: str = "uk", **fields: object) -> Record:
    """Return a refused intent of its own, which needs no outcome."""
    made = Record(
        id=uuid.uuid4(),
        region=region,
        at=datetime.now(UTC),
        phase="intent",
        principal="token:x",
        role="porting",
        action="document.read",
        decision="deny",
        reason="role",
    )
    return replace(made, **fields)  # type: ignore[arg-type]


async def append(vault: Vault, number: int, region: str = "uk", **fields: object) -> list[Record]:
    """Append so many records."""
    made = [record(region, **fields) for _ in range(number)]
    await vault.recorder.append_many(made)
    return made


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


async def test_a_sequencer_that_fails_half_way_leaves_nothing(vault: Vault) -> None:
    """If the checkpoint cannot be kept, no place is given; the next run gives the same ones."""
    await append(vault, 3)
    await vault.pool.execute("alter table log_checkpoint rename to away")
    with pytest.raises(asyncpg.UndefinedTableError):
        await sequence_log(vault, "uk")
    assert await indices(vault) == []
    assert await vault.pool.fetchval("select count(*) from log_queue") == 3
    await vault.pool.execute("alter table away rename to log_checkpoint")
    assert await sequence_log(vault, "uk") == 3
    assert await indices(vault) == [0, 1, 2]


@pytest.mark.parametrize("table", ["access_record", "log_leaf", "log_checkpoint"])
async def test_the_log_is_only_added_to(vault: Vault, table: str) -> None:
    """The database refuses to update, delete and truncate, also where no row would match."""
    await append(vault, 3)
    await sequence_log(vault, "uk")
    for statement in (
        f"update {table} set region = 'sg'",
        f"delete from {table} where false",
        f"truncate {table} cascade",
    ):
        with pytest.raises(asyncpg.RaiseError, match="only ever added to"):
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
    closed = await asyncio.gather(*(close_interrupted(vault, "uk") for _ in range(4)))
    assert sum(closed) == 3
    assert await close_interrupted(vault, "uk") == 0
    rows = await vault.pool.fetch("select intent from access_record where result = 'interrupted'")
    assert sorted(row["intent"] for row in rows) == sorted(item.id for item in lost)
    await sequence_log(vault, "uk")
    verdict = await verify_region(vault, COMPLIANCE, "uk")
    assert (verdict.good, verdict.in_flight) == (True, 1)


async def test_pages_show_every_record_once_newest_first(vault: Vault) -> None:
    """Paging goes through all, also where many share a time, and is itself recorded."""
    at = datetime.now(UTC) + timedelta(seconds=60)
    made = await append(vault, 7, at=at) + await append(vault, 3, at=at + timedelta(seconds=1))
    await append(vault, 1, "sg", at=at)
    seen: list[Record] = []
    cursor = None
    while len(seen) < 10:
        page, cursor = await list_records(
            vault, COMPLIANCE, region="uk", document=None, order=None, cursor=cursor, limit=4
        )
        assert cursor
        seen += page
    expected = sorted(made, key=lambda item: (item.at, item.id), reverse=True)
    assert seen[:10] == expected
    looked = "select count(*) from access_record where action = 'log.read' and phase = 'intent'"
    assert await vault.pool.fetchval(looked) == 3


async def test_the_last_page_has_no_cursor(vault: Vault) -> None:
    """A document's or an order's records alone, and no cursor when that is all."""
    document, order = uuid.uuid4(), uuid.uuid4()
    await append(vault, 4)
    (one,) = await append(vault, 1, document=document, order=order)
    (two,) = await append(vault, 1, order=order)
    for wanted, found in (
        ({"document": document, "order": None}, {one.id}),
        ({"document": None, "order": order}, {one.id, two.id}),
        ({"document": document, "order": order}, {one.id}),
    ):
        page, cursor = await list_records(
            vault, COMPLIANCE, region=None, cursor=None, limit=20, **wanted
        )
        # The look itself is of this document, too.
        assert {item.id for item in page if item.action == "document.read"} == found
        assert cursor is None


@pytest.mark.parametrize(
    "principal, region, error",
    [
        (COMPLIANCE, "sg", NotFoundError),
        (COMPLIANCE, "xx", NotFoundError),
        (PORTING, "uk", ForbiddenError),
        (replace(COMPLIANCE, regions=frozenset({"uk", "sg"})), None, InvalidRequestError),
        (replace(COMPLIANCE, regions=frozenset()), None, NotFoundError),
    ],
)
async def test_only_ones_own_log_is_shown(
    vault: Vault, principal: Principal, region: str | None, error: type[Exception]
) -> None:
    """Another region's log, no region's and one's own without the role: refused."""
    with pytest.raises(error):
        await list_records(
            vault, principal, region=region, document=None, order=None, cursor=None, limit=9
        )
    if region is not None:
        with pytest.raises(error):
            await latest_checkpoint(vault, principal, region)
        with pytest.raises(error):
            await verify_region(vault, principal, region)


@pytest.mark.parametrize(
    "cursor", ["x", "====", "é", base64.b64encode(b"2025-01-01|no").decode(), "AAAA"]
)
async def test_a_wrong_cursor_is_refused(vault: Vault, cursor: str) -> None:
    """A cursor that was not handed out is the caller's mistake."""
    with pytest.raises(InvalidRequestError, match="cursor"):
        await list_records(
            vault, COMPLIANCE, region="uk", document=None, order=None, cursor=cursor, limit=9
        )


async def test_the_newest_checkpoint_is_shown(vault: Vault) -> None:
    """Before the first there is none; then always the newest."""
    with pytest.raises(NotFoundError, match="no checkpoint yet"):
        await latest_checkpoint(vault, COMPLIANCE, "uk")
    with pytest.raises(NotFoundError, match="no checkpoint yet"):
        await verify_region(vault, COMPLIANCE, "uk")
    await sequence_log(vault, "uk")
    first = await latest_checkpoint(vault, COMPLIANCE, "uk")
    await sequence_log(vault, "uk")
    second = await latest_checkpoint(vault, COMPLIANCE, "uk")
    sizes = [decode(Verifier(vault.signer.vkey).verify(note)).size for note in (first, second)]
    assert sizes == [4, 6]
