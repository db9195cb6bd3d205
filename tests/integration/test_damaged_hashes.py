"""
Hashes that lie at rest: of what somebody brings, and of the log.

Nothing can say that the hash of a secret is not the one that was kept, so whoever brings the secret
is refused, as anybody with a wrong one. Each is flipped here, and what is said is looked at.
"""

import re
from collections.abc import Awaitable, Callable
from datetime import timedelta

import asyncpg
import pytest

from keys.damage import DamagedError
from tests.fixtures_server import SAMPLES, Api
from tests.fixtures_telefax import Faxes
from tests.integration.test_break_glass import opened, sealed
from tests.integration.test_damage_mended import LOG, REFUSED, TAKEN_AGAIN
from tests.retention_house import COMPLIANCE
from vault.actions.bucket import require_own_store
from vault.actions.log_publish import publish_log, sequence_log
from vault.actions.log_records import verify_region
from vault.actions.look import look_at_log
from vault.actions.people import find_session
from vault.context import STORE_IDENTITY, Vault
from vault.errors import ConfigurationError
from vault.migrate import MigrationError, migrate
from vault.sql import access as access_sql
from vault.sql import log_published as published_sql
from vault.web import auth

Answer = Callable[[], Awaitable[tuple[int, str]]]


def _flip(table: str, column: str) -> str:
    return f"update {table} set {column} = set_byte({column}, 5, get_byte({column}, 5) # 1)"


async def test_a_hash_of_what_somebody_brings_is_refused_when_damaged(
    api: Api, vault: Vault, faxes: Faxes, fax: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sound it is taken, damaged it is refused with a sentence, mended it is taken again."""
    monkeypatch.setattr(auth, "REMEMBER_SECONDS", -1.0)
    order, data = await api.order(), (SAMPLES / "passport-uto.jpg").read_bytes()
    key = {"Idempotency-Key": "5c9b7a52-6f0e-4a4e-9d2b-1f1f1b6f7a01"}
    assert (await api.put(order, data, **key))[0] == 201
    assert (await faxes.send(fax, headers=key))[0] == 201
    _, envelope = await sealed(api)
    await vault.pool.execute(
        """
        insert into session (secret_hash, principal, role, regions, located, shown_as, csrf,
            subject, created_at, expires_at)
        values (sha256('secret'), 'person:x', 'porting', '{uk}', 'uk', 'x', 'x', 'x', now(),
            now() + interval '1 hour')
        """
    )

    async def call() -> tuple[int, str]:
        status, body, _ = await api.call("GET", "/v1/orders")
        return status, str(body)

    async def upload() -> tuple[int, str]:
        status, body = await api.put(order, data, **key)
        return status, str(body)

    async def send() -> tuple[int, str]:
        status, body = await faxes.send(fax, headers=key)
        return status, str(body)

    async def signed_in() -> tuple[int, str]:
        found = await find_session(vault, "secret")
        return (200, "") if found else (303, "sign in")

    async def open_envelope() -> tuple[int, str]:
        status, body = await opened(api, envelope["credential"])
        return status, str(body)

    async def start() -> tuple[int, str]:
        try:
            await migrate(vault.config.database)
        except MigrationError as error:
            return 500, str(error)
        return 200, ""

    bound = "update token set certificate = case when certificate is null then sha256('x') end"
    walk: dict[tuple[str, str], tuple[str, Answer, int, str]] = {
        ("token", "secret_hash"): (_flip("token", "secret_hash"), call, 401, "token"),
        ("token", "certificate"): (bound, call, 401, "token"),
        ("session", "secret_hash"): (_flip("session", "secret_hash"), signed_in, 303, "sign in"),
        ("idempotency", "fingerprint"): (
            _flip("idempotency", "fingerprint"),
            upload,
            422,
            "Idempotency-Key",
        ),
        ("fax", "fingerprint"): (_flip("fax", "fingerprint"), send, 422, "Idempotency-Key"),
        ("migration", "sha256"): (_flip("migration", "sha256"), start, 500, "0001_core.sql"),
        ("break_glass", "secret_hash"): (
            _flip("break_glass", "secret_hash"),
            open_envelope,
            403,
            "credential",
        ),
    }
    assert set(walk) == REFUSED
    owner = await asyncpg.connect(vault.config.database)
    for place, (damage, ask, status, word) in walk.items():
        await owner.execute(damage)
        refused, said = await ask()
        assert refused == status, (place, refused, said)
        assert word.lower() in said.lower(), (place, said)
        await owner.execute(damage)
        assert (await ask())[0] in {200, 201}, place
    await owner.close()


async def test_what_was_taken_once_is_taken_again_when_its_hash_is_damaged(vault: Vault) -> None:
    """It lasts for minutes and is one of two guards: what came first is not told from it here."""
    assert {("taken_once", "hash")} == TAKEN_AGAIN
    until = vault.clock() + timedelta(minutes=1)
    async with vault.pool.acquire() as conn:
        assert await access_sql.take_session(conn, bytes(32), until)
        assert not await access_sql.take_session(conn, bytes(32), until)
        await conn.execute(_flip("taken_once", "hash"))
        assert await access_sql.take_session(conn, bytes(32), until)


async def _rewrite(vault: Vault, statement: str) -> None:
    owner = await asyncpg.connect(vault.config.database)
    async with owner.transaction():
        await published_sql.begin_rewriting(owner)
        await owner.execute(statement)
        await published_sql.end_rewriting(owner)
    await owner.close()


async def test_nothing_is_signed_upon_damaged_hashes_of_the_log(api: Api, vault: Vault) -> None:
    """What is kept beside a checkpoint is hashed anew; where the leaves are wrong, it stops."""
    assert {("log_checkpoint", "hashes"), ("log_leaf", "leaf_hash")} == LOG
    newest = "region = 'uk' and size = (select max(size) from log_checkpoint where region = 'uk')"
    flip = "set_byte({0}, 5, get_byte({0}, 5) # 1)"
    for damage in (f"hashes[1] = {flip.format('hashes[1]')}", "hashes = hashes || hashes"):
        await api.order()
        await sequence_log(vault, "uk")
        await publish_log(vault, "uk")
        await _rewrite(vault, f"update log_checkpoint set {damage} where {newest}")
        found, _ = await look_at_log(vault, "uk", None)
        assert [(item.table, item.column) for item in found] == [("log_checkpoint", "hashes")]
        await api.order()
        await sequence_log(vault, "uk")
        await publish_log(vault, "uk")
        assert (await look_at_log(vault, "uk", None))[0] == []
        assert (await verify_region(vault, COMPLIANCE, "uk")).good
    await api.order()
    notes = await vault.pool.fetchval("select count(*) from log_checkpoint")
    leaf = f"update log_leaf set leaf_hash = {flip.format('leaf_hash')} where region = 'uk' "
    kept = f"update log_checkpoint set hashes[1] = {flip.format('hashes[1]')} where {newest}"
    await _rewrite(vault, leaf + "and index = 0")
    await _rewrite(vault, kept)
    with pytest.raises(DamagedError, match="nothing is added to the log of uk: log_leaf"):
        await sequence_log(vault, "uk")
    assert await vault.pool.fetchval("select count(*) from log_checkpoint") == notes


async def test_a_store_whose_identity_is_damaged_is_refused(vault: Vault) -> None:
    """Flipped, cut, of another id, or away: what is to be written is said, and mends it."""
    store, path = vault.stores["uk"], vault.config.home / "objects" / "uk" / STORE_IDENTITY
    kept = path.read_bytes()
    other = kept.replace(kept[8:12], b"0000")
    flipped = bytes([kept[0] ^ 1]) + kept[1:]
    for damaged in (flipped, kept[:-3], other, None):
        path.write_bytes(damaged) if damaged is not None else path.unlink()
        with pytest.raises(ConfigurationError, match="write {.*} into") as refused:
            await require_own_store(vault.pool, store, "uk")
        path.write_text(re.search("{.*}", str(refused.value))[0] + "\n")  # type: ignore[index] # it matches
        await require_own_store(vault.pool, store, "uk")
        assert path.read_bytes() == kept
