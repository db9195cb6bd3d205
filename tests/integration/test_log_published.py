"""The log in the bucket: readable without us, never behind itself, what a database returns to."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import asyncpg
import pytest

from keys.errors import IntegrityError, KeysError, RolledBackError
from tests.access_records import append, checkpoints, read_published
from tests.fixtures_server import OPERATOR, Api
from vault.actions.bucket import CHECKPOINT, MINIMUM, NOTE_BYTES_MAX, put_object
from vault.actions.keys import seal
from vault.actions.log_publish import (
    adopt_published,
    publish_log,
    published_checkpoint,
    published_minimum,
    require_not_behind,
    sequence_log,
)
from vault.actions.log_records import latest_checkpoint, trim_log, verify_region
from vault.app import open_vault
from vault.config.settings import Config
from vault.context import Vault
from vault.domain.access import Principal
from vault.errors import ConfigurationError
from vault.sql.connection import transaction

COMPLIANCE = Principal("token:compliance", "compliance", frozenset({"uk"}))


async def step(vault: Vault) -> None:
    """Order what waits, and publish it."""
    await sequence_log(vault, "uk")
    await publish_log(vault, "uk")


async def fill(vault: Vault, records: int) -> None:
    """Make records: each look at the log leaves an intent and an outcome."""
    await sequence_log(vault, "uk")
    for _ in range(records // 2):
        await latest_checkpoint(vault, COMPLIANCE, "uk")


def bucket(vault: Vault) -> Path:
    """Return where the region's log lies in its bucket."""
    return vault.config.home / "objects" / "uk" / "log"


async def test_the_bucket_holds_a_log_that_others_can_read(api: Api, vault: Vault) -> None:
    """A reader who knows only the specifications gets every record, under a signed root."""
    await api.order()
    entries = list[bytes]()
    for count in (10, 250, 300):
        await fill(vault, count)
        await step(vault)
        entries = await read_published(bucket(vault), vault.signer.vkey)
    assert len(entries) > 512
    assert not await publish_log(vault, "uk")
    assert not list((bucket(vault) / "tile/0").glob("000.p/*"))


async def test_a_crash_before_the_checkpoint_is_made_good(api: Api, vault: Vault) -> None:
    """Tiles without their checkpoint, or a checkpoint nobody noted, are written again."""
    await api.order()
    await step(vault)
    (before,) = checkpoints(bucket(vault))
    old = before.read_bytes()
    await fill(vault, 300)
    await step(vault)
    (newer,) = checkpoints(bucket(vault))
    newer.unlink()
    before.write_bytes(old)
    async with vault.pool.acquire() as conn:
        await conn.execute("update log_published set size = 2")
    await fill(vault, 10)
    await step(vault)
    await read_published(bucket(vault), vault.signer.vkey)


async def test_a_database_behind_its_published_log_is_refused(
    api: Api, vault: Vault, pool: asyncpg.Pool
) -> None:
    """A rolled back database is found by the next publication, and serves no key any more."""
    await api.order()
    await step(vault)
    await fill(vault, 10)
    async with pool.acquire() as conn:
        await conn.execute("create table kept as select * from log_checkpoint")
        await step(vault)
        await conn.execute("set session_replication_role = replica")
        await conn.execute("delete from log_checkpoint where size > (select max(size) from kept)")
        await conn.execute("set session_replication_role = default")
        await conn.execute("update log_published set size = 0")
        with pytest.raises(RolledBackError, match="restore"):
            await require_not_behind(vault, conn, "uk")
    before = checkpoints(bucket(vault))
    with pytest.raises(RolledBackError):
        await publish_log(vault, "uk")
    assert checkpoints(bucket(vault)) == before
    status, problem, _ = await api.call(
        "POST", "/v1/orders", json={"region": "uk", "customer": "a", "numbers": ["+442079460123"]}
    )
    assert status == 503
    assert "rolled back" in problem["detail"]


async def test_a_bucket_that_lost_its_log_or_holds_a_forged_one_is_refused(
    api: Api, vault: Vault
) -> None:
    """The wrong bucket is no empty bucket, and a checkpoint of another key is none."""
    await api.order()
    await step(vault)
    (path,) = checkpoints(bucket(vault))
    note = path.read_text()
    path.write_text(note.replace("portvault/uk", "portvault/sg"))
    with pytest.raises(IntegrityError):
        await published_checkpoint(vault, "uk")
    path.unlink()
    async with vault.pool.acquire() as conn:
        with pytest.raises(ConfigurationError, match="right bucket"):
            await require_not_behind(vault, conn, "uk")


async def test_an_older_database_takes_over_what_was_published(
    api: Api, vault: Vault, pool: asyncpg.Pool
) -> None:
    """A database that forgot its newest records, and made others, returns to what was published."""
    await api.order()
    await fill(vault, 20)
    await step(vault)
    held = await latest_checkpoint(vault, COMPLIANCE, "uk")
    async with pool.acquire() as conn:
        await conn.execute("set session_replication_role = replica")
        await conn.execute("delete from log_leaf where region = 'uk' and index >= 5")
        await conn.execute("delete from log_checkpoint where region = 'uk'")
        await conn.execute(
            "delete from access_record r where region = 'uk' "
            "and not exists (select from log_leaf l where l.record = r.id)"
        )
        await conn.execute("delete from log_queue")
        await conn.execute("set session_replication_role = default")
    await api.order()
    async with transaction(pool) as conn:
        assert await adopt_published(vault, conn, "uk") > 10
    await step(vault)
    verdict = await verify_region(vault, COMPLIANCE, "uk", held=[held])
    assert verdict.good, verdict
    await read_published(bucket(vault), vault.signer.vkey)
    with pytest.raises(Exception, match="only ever added"):
        async with transaction(pool) as conn:
            await conn.execute("delete from access_record")


async def test_a_damaged_bundle_is_not_taken_over(
    api: Api, vault: Vault, pool: asyncpg.Pool
) -> None:
    """What does not hash into the signed root leaves the database as it was."""
    await api.order()
    await fill(vault, 20)
    await step(vault)
    (bundle,) = (bucket(vault) / "tile/entries/000.p").iterdir()
    data = bundle.read_bytes()
    bundle.write_bytes(data.replace(b'"porting"', b'"portinG"', 1))
    with pytest.raises(KeysError):
        async with transaction(pool) as conn:
            await adopt_published(vault, conn, "uk")
    verdict = await verify_region(vault, COMPLIANCE, "uk")
    assert verdict.good


async def test_a_machine_with_another_signing_key_does_not_start(
    api: Api, vault: Vault, config: Config
) -> None:
    """Two that sign one log with two keys would split it: the second is told what to do."""
    await api.order()
    await step(vault)
    key = config.signing_key_path
    kept = key.read_bytes()
    key.unlink()
    with pytest.raises(ConfigurationError, match="copy it"):
        async with open_vault(config, dsn=config.database):
            pass
    key.write_bytes(kept)
    async with open_vault(config, dsn=config.database) as again:
        assert again.signer.vkey == vault.signer.vkey


@pytest.mark.parametrize("name", ["-z", ".bak", "s/00000000000000000999", "-9999"])
async def test_what_lies_beside_a_checkpoint_is_none(vault: Vault, name: str) -> None:
    """Whatever somebody copied there for safekeeping, only what is named as one counts."""
    for _ in range(2):
        await append(vault, 10)
        await sequence_log(vault, "uk")
        await publish_log(vault, "uk")
        published = await published_checkpoint(vault, "uk")
        assert published is not None
        await put_object(vault.stores["uk"], CHECKPOINT + name, published.note.encode())
    newest = await published_checkpoint(vault, "uk")
    assert newest is not None
    assert newest.checkpoint.size == 20
    await append(vault, 10)
    await sequence_log(vault, "uk")
    assert await publish_log(vault, "uk") == 10


@pytest.mark.parametrize("kind", [CHECKPOINT, MINIMUM])
@pytest.mark.parametrize("what", ["junk", "empty", "huge", "an older one's copy"])
async def test_a_note_that_does_not_verify_is_passed_over_and_named(
    api: Api, vault: Vault, kind: str, what: str
) -> None:
    """One object that somebody adds stops no publication, no seal and no start; it is named."""
    await api.order()
    await step(vault)
    note = checkpoints(bucket(vault))[0].read_bytes()
    data = {"junk": b"junk", "empty": b"", "huge": bytes(NOTE_BYTES_MAX + 1)}.get(what, note)
    name = f"{kind}-{9999999999:020d}"
    await put_object(vault.stores["uk"], name, data)
    await api.order()
    await step(vault)
    async with vault.pool.acquire() as conn:
        await require_not_behind(vault, conn, "uk")
        assert await published_minimum(vault, "uk") == (0, "")
    assert await seal(vault, OPERATOR, "uk", force=True) is not None
    assert vault.keyring.passed_over.names("uk") == [name]
    status, _, headers = await api.call("GET", "/metrics")
    assert status == 200, headers
    assert len(checkpoints(bucket(vault))) == (2 if kind == CHECKPOINT else 1)
    await vault.stores["uk"].purge(name)
    assert (await published_checkpoint(vault, "uk")) is not None
    assert await published_minimum(vault, "uk") == (0, "")
    assert vault.keyring.passed_over.count("uk") == 0


async def test_a_tile_that_was_spoiled_is_never_built_upon(
    api: Api, vault: Vault, pool: asyncpg.Pool
) -> None:
    """A hash of the bucket goes into a new tile only if it hashes into what was signed."""
    await api.order()
    await fill(vault, 300)
    await step(vault)
    (part,) = (bucket(vault) / "tile/1/000.p").iterdir()
    entries = list[bytes]()
    for spoiled in (bytes(32), b"x", None):
        part.unlink()
        if spoiled is not None:
            part.write_bytes(spoiled)
        await fill(vault, 260)
        await step(vault)
        entries = await read_published(bucket(vault), vault.signer.vkey)
        part = max((bucket(vault) / "tile/1/000.p").iterdir())
    assert len(entries) > 1000


async def test_no_statement_is_signed_over_tiles_that_prove_nothing(
    api: Api, vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trim whose tiles do not lead to the published checkpoint signs nothing."""
    await api.order()
    await fill(vault, 300)
    await step(vault)
    (path,) = (bucket(vault) / "tile/1/000.p").iterdir()
    path.write_bytes(bytes(32) + path.read_bytes()[32:])
    hasty = replace(vault, log_policy={**vault.log_policy, "uk": timedelta(0)})

    async def all_due(*_: object) -> int:
        return 256

    monkeypatch.setattr("vault.sql.log.first_to_keep", all_due)
    with pytest.raises(IntegrityError, match="log/tile/1/000.p/1 of uk does not hash into"):
        await trim_log(hasty, "uk")
    assert not list(bucket(vault).glob("minimum*"))
