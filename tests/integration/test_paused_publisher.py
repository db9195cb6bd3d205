"""A publisher that is paused, and loses its turn meanwhile, takes nothing back when it goes on."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from keys.errors import RolledBackError
from tests.access_records import append, read_published
from vault.actions.bucket import CHECKPOINT, MINIMUM
from vault.actions.log_publish import (
    publish_log,
    published_checkpoint,
    published_minimum,
    published_pages,
    require_not_behind,
    sequence_log,
)
from vault.actions.log_records import trim_log
from vault.app import open_vault
from vault.config.settings import Config
from vault.context import ObjectStore, Vault
from vault.errors import VaultError

OLD = datetime.now(UTC) - timedelta(days=8 * 366)
#: Whoever publishes or trims holds this lock, in the session that is idle while it puts. It is
#: free once the session has ended, which is waited for (milliseconds).
_END_THE_SESSION = """
    select pg_terminate_backend(pid, 60000) from pg_locks
    where locktype = 'advisory' and granted and classid = x'6c6f6770'::int
"""


class Paused:
    """A real store whose writer stops before the objects of a kind until it may go on."""

    def __init__(self, store: ObjectStore, kind: str) -> None:
        self._store, self._kind = store, kind
        self.reached, self.go_on = asyncio.Event(), asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def put(self, name: str, chunks: AsyncIterable[bytes], *, size_bytes: int | None) -> None:
        """Put, when told to."""
        if name.startswith(self._kind):
            self.reached.set()
            await self.go_on.wait()
        await self._store.put(name, chunks, size_bytes=size_bytes)


Step = Callable[[Vault, str], Coroutine[Any, Any, int]]


async def overtaken(
    slow: Vault, kind: str, step: Step, pool: asyncpg.Pool, others: Callable[[], Awaitable[None]]
) -> None:
    """Pause a step before it puts, end its session, let others be faster, and let it go on."""
    store = Paused(slow.stores["uk"], kind)
    late = asyncio.create_task(step(replace(slow, stores={"uk": store}), "uk"))
    await store.reached.wait()
    assert await pool.fetchval(_END_THE_SESSION)
    await others()
    store.go_on.set()
    with pytest.raises(VaultError):
        await late


@pytest.fixture
async def slow(config: Config, vault: Vault) -> AsyncIterator[Vault]:
    """Open the same vault as another process would."""
    async with open_vault(config, dsn=config.database) as opened:
        yield opened


async def test_an_older_checkpoint_never_counts_again(
    vault: Vault, slow: Vault, pool: asyncpg.Pool
) -> None:
    """The bucket shows the longer log, at once, and a database that forgot it is found."""

    async def others() -> None:
        await append(vault, 10)
        assert await sequence_log(vault, "uk") == 10
        assert await publish_log(vault, "uk") == 16

    await append(vault, 6)
    await sequence_log(vault, "uk")
    await overtaken(slow, CHECKPOINT, publish_log, pool, others)
    published = await published_checkpoint(vault, "uk")
    assert published is not None
    assert published.checkpoint.size == 16
    names = [item.name async for item in vault.stores["uk"].list(CHECKPOINT)]
    assert len(names) == 2
    async with pool.acquire() as conn:
        forgetting = conn.transaction()
        await forgetting.start()
        await conn.execute("set local session_replication_role = replica")
        await conn.execute("delete from log_checkpoint where size = 16")
        with pytest.raises(RolledBackError):
            await require_not_behind(vault, conn, "uk")
        await forgetting.rollback()
    # What came late is swept up by the next publication.
    await append(vault, 2)
    await sequence_log(vault, "uk")
    await publish_log(vault, "uk")
    assert [item.name async for item in vault.stores["uk"].list(CHECKPOINT)] == [
        f"{CHECKPOINT}-{18:020d}"
    ]


async def dies(slow: Vault, kind: str) -> None:
    """Publish as a process does that is killed before it puts an object of a kind."""
    store = Paused(slow.stores["uk"], kind)
    task = asyncio.create_task(publish_log(replace(slow, stores={"uk": store}), "uk"))
    await store.reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("size", [255, 65535])
async def test_a_publisher_that_dies_leaves_what_its_forerunner_published(
    vault: Vault, slow: Vault, size: int
) -> None:
    """Tiles that became whole without their checkpoint serve the one before, and the next."""
    await grow(vault, size)
    assert await publish_log(vault, "uk") == size
    await grow(vault, 2)
    await dies(slow, CHECKPOINT)
    published = await published_checkpoint(vault, "uk")
    assert published is not None
    assert published.checkpoint.size == size
    pages = [page async for page in published_pages(vault, "uk", published.checkpoint, 0)]
    assert sum(len(page.leaves) for page in pages) == size
    assert await publish_log(vault, "uk") == 2
    log = vault.config.home / "objects" / "uk" / "log"
    assert len(await read_published(log, vault.signer.vkey)) == size + 2


async def grow(vault: Vault, number: int) -> None:
    """Append so many records, and order them."""
    for first in range(0, number, 5000):
        await append(vault, min(5000, number - first))
    while await sequence_log(vault, "uk"):
        pass


async def test_an_older_statement_of_what_was_trimmed_never_counts_again(
    vault: Vault, slow: Vault, pool: asyncpg.Pool
) -> None:
    """The bucket says how far the log is trimmed, not how far it was once to be."""

    async def others() -> None:
        assert await publish_log(vault, "uk") == 300
        assert await trim_log(vault, "uk") == 512

    await append(vault, 300, at=OLD)
    await sequence_log(vault, "uk")
    await publish_log(vault, "uk")
    await append(vault, 300, at=OLD)
    await sequence_log(vault, "uk")
    await overtaken(slow, MINIMUM, trim_log, pool, others)
    size, _ = await published_minimum(vault, "uk")
    assert size == 512
    names = [item.name async for item in vault.stores["uk"].list(MINIMUM)]
    assert len(names) == 2
