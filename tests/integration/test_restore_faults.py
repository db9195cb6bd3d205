"""A restore that fails at any call, before or after it took effect, converges when run again."""

import functools
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from keys.data_keys import wrapped_key
from keys.errors import KeysError
from tests.fixtures_postgres import memory
from tests.fixtures_server import OPERATOR, Api, serving
from tests.key_house import (
    BrokenError,
    Faults,
    FaultyBucket,
    FaultyCustodian,
    Ledger,
    faulty_connection,
)
from tests.states import State, bring_back, take_state
from vault import app
from vault.actions.log_publish import publish_log, require_not_behind, sequence_log
from vault.actions.restore import restore
from vault.adapters import committer as recorder
from vault.app import open_vault
from vault.config.settings import Config
from vault.context import Vault
from vault.errors import VaultError

REGION = "uk"


@dataclass
class Story:
    """A backup, and what happened to its region afterwards."""

    config: Config
    faults: Faults
    ledger: Ledger
    backup: State = field(default_factory=dict)
    #: What the data keys of those that live are, and of those that were shredded.
    living: dict[UUID, bytes] = field(default_factory=dict)
    shredded: dict[UUID, bytes] = field(default_factory=dict)

    @asynccontextmanager
    async def vault(self, *, restoring: bool) -> AsyncIterator[Vault]:
        """Open the vault of the region."""
        dsn = self.config.database
        async with open_vault(self.config, dsn=dsn, restoring=restoring) as opened:
            yield opened

    def root_keys(self) -> set[bytes]:
        """Return what the custodian still holds, as a thief of it would."""
        place = Path(self.config.custodian_uri(REGION).removeprefix("file:"))
        return {path.read_bytes() for path in place.glob("*.key")}


async def data_keys_of(vault: Vault) -> dict[UUID, bytes]:
    """Open every data key of the region."""
    async with vault.pool.acquire() as conn:
        rows = await conn.fetch("select id, region, scope, scope_epoch, wrap from data_key")
    return {row["id"]: (await vault.keyring.open_key(wrapped_key(row))).reveal() for row in rows}


@pytest.fixture
async def story(
    config: Config, passport: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Story]:
    """After a backup one document is shredded and sealed, one is shredded, and one arrives."""
    faults, ledger = Faults(), Ledger()
    connection = faulty_connection(faults)
    monkeypatch.setattr(
        app, "open_custodian", lambda uri: FaultyCustodian(uri.removeprefix("file:"), faults)
    )
    monkeypatch.setattr(
        app, "open_store", lambda uri, **_: FaultyBucket(Path(uri.removeprefix("dir:")), faults)
    )
    for module, name in ((app, "create_pool"), (recorder, "connect")):
        original = getattr(asyncpg, name)
        faulty = functools.partial(original, connection_class=connection)
        monkeypatch.setattr(module, "asyncpg", _With(asyncpg, name, faulty))
    with (
        ledger.listening(),
        # Keys and objects are made durable at each step, which is another test's affair.
        tempfile.TemporaryDirectory(prefix="portvault-", dir=memory() or tmp_path) as place,
    ):
        here = replace(config, home=Path(place) / "home", regions=(REGION,))
        made = Story(here, faults, ledger)
        async with made.vault(restoring=False) as vault, serving(vault) as api:
            await _live(made, vault, api, passport)
        yield made


class _With:
    """A module in which one name stands for something else."""

    def __init__(self, module: Any, name: str, value: Any) -> None:
        self._module = module
        setattr(self, name, value)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


async def _live(story: Story, vault: Vault, api: Api, passport: bytes) -> None:
    order = await api.order()

    async def put() -> UUID:
        status, body = await api.put(order, passport)
        assert status == 201, body
        return UUID(body["id"])

    async def shred(document: UUID) -> None:
        path = f"/v1/documents/{document}/actions/shred"
        status, body, _ = await api.call("POST", path, json={"reason": "asked"})
        assert status == 200, body

    _, sealed, pending = await put(), await put(), await put()
    await sequence_log(vault, REGION)
    await publish_log(vault, REGION)
    async with vault.pool.acquire() as conn:
        story.backup = await take_state(conn)
    keys = await data_keys_of(vault)
    await shred(sealed)
    await vault.keyring.seal(REGION)
    await put()
    await shred(pending)
    await vault.keyring.mirror(REGION)
    await sequence_log(vault, REGION)
    await publish_log(vault, REGION)
    story.living = await data_keys_of(vault)
    story.shredded = {document: keys[document] for document in (sealed, pending)}


async def _run(story: Story, vault: Vault) -> None:
    await restore(vault, OPERATOR, REGION, dry_run=False, leave_unknown=True)


async def _check(story: Story, vault: Vault) -> None:
    """Who lives opens, who was shredded is sealed and in nobody's reach, and the log is whole."""
    vault.keyring.forget()
    assert await data_keys_of(vault) == story.living
    assert (await vault.keyring.verify(REGION)).findings == ()
    async with vault.pool.acquire() as conn:
        await require_not_behind(vault, conn, REGION)
        found = await vault.keyring.destroyed_generation(conn, REGION)
        rows = await conn.fetch("select id, custody, last_generation from document")
    destroyed = found[0] if found else 0
    for row in rows:
        assert row["custody"] == ("shredded" if row["id"] in story.shredded else "stored")
        assert row["custody"] == "stored" or row["last_generation"] <= destroyed
    # The first, and the one that came after the backup.
    assert [row["custody"] for row in rows].count("stored") == 2
    known = story.ledger.reachable(story.root_keys())
    assert not known & set(story.shredded.values())


async def _shape(vault: Vault) -> tuple[Any, ...]:
    """Return what a restore changes first of all."""
    async with vault.pool.acquire() as conn:
        (head,) = await conn.fetch("select generation, revision from key_tree")
    return tuple(head)


@pytest.mark.parametrize("after", [False, True], ids=["not-applied", "applied"])
async def test_a_restore_that_fails_at_any_call_is_finished_by_the_next(
    story: Story, *, after: bool
) -> None:
    """Whatever kind of call fails, running it again loses nothing and revives nothing."""
    async with story.vault(restoring=True) as vault:
        async with vault.pool.acquire() as conn:
            await bring_back(conn, story.backup)
        shape = await _shape(vault)
        story.faults.arm(None)
        await _run(story, vault)
        names = list(story.faults.names)
        await _check(story, vault)
        async with vault.pool.acquire() as conn:
            await bring_back(conn, story.backup)
    commit = names.index("database: COMMIT;")
    # Of what one transaction did nothing is left, whether the call that failed took effect or not.
    known, broken = set(names[:commit] if after else ()), set[str]()
    while True:
        async with story.vault(restoring=True) as vault:
            story.faults.arm_new(known, after=after)
            try:
                await _run(story, vault)
            except (BrokenError, KeysError, VaultError):
                assert story.faults.broken is not None
            broke = story.faults.broken
            story.faults.arm(None)
            if broke is None:
                await _check(story, vault)
                break
            known.add(broke)
            broken.add(broke)
            if await _shape(vault) == shape:
                # Nothing happened: what fails next has this failure before it.
                continue
        async with story.vault(restoring=True) as vault:
            await _run(story, vault)
            await _check(story, vault)
            async with vault.pool.acquire() as conn:
                await bring_back(conn, story.backup)
    assert {"database: COMMIT;", "bucket.put", "custodian.create", "custodian.destroy"} <= broken
    assert after or {"custodian.unwrap", "bucket.get", "bucket.list"} <= broken
    assert set(names) <= known
