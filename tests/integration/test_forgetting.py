"""Rows whose time is over go by themselves, in every table that has such rows."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import asyncpg

from vault.actions.expire import forget_expired
from vault.context import Vault
from vault.sql import expiry as expiry_sql
from vault.worker import reconcilers

OVER = datetime(2020, 1, 1, tzinfo=UTC)

#: A row of each table that is swept, good until $1; a column of another type takes what fits it.
ROWS = {
    "session": """insert into session (secret_hash, principal, role, regions, shown_as, csrf,
        subject, created_at, expires_at) values ($2, 'p', 'dpo', '{uk}', 'x', 'x', 'x', $1, $1)""",
    "taken_once": "insert into taken_once (hash, expires_at) values ($2, $1)",
    "approval": """insert into approval (id, act, subject, region, reason, requested_by,
        requested_at, expires_at) values (md5($2)::uuid, 'disclosure', 's', 'uk', 'r', 'p', $1, $1)
        """,
    "signal": """insert into signal (id, region, type, at, payload)
        values (md5($2)::uuid, 'uk', 'document.stored', $1, '{}')""",
    "signal_delivery": """insert into signal_delivery (signal, endpoint, region, state, next_at)
        values (md5($2)::uuid, 'e', 'uk', 'delivered', $1)""",
}


async def _count(pool: asyncpg.Pool) -> dict[str, int]:
    return {name: await pool.fetchval(f"select count(*) from {name}") for name in ROWS}


async def test_every_table_whose_rows_expire_is_swept_or_kept_for_a_reason(vault: Vault) -> None:
    """A column that says until when a row is good is in the catalogue; a new one needs a line."""
    rows = await vault.pool.fetch(
        """
        select distinct table_name from information_schema.columns
        where table_schema = 'public' and column_name = any($1)
        """,
        sorted(expiry_sql.COLUMNS),
    )
    found = {row["table_name"] for row in rows}
    known = {*expiry_sql.SWEPT, *expiry_sql.SWEPT_ELSEWHERE, *expiry_sql.KEPT}
    assert found <= known, f"say in vault/sql/expiry.py who sweeps {found - known}"
    assert set(ROWS) == set(expiry_sql.SWEPT)
    assert any(step.step is forget_expired for step in reconcilers(vault))


async def test_what_is_over_goes_and_what_is_not_stays(vault: Vault) -> None:
    """Of each table the old rows go, however many, also while nobody signs in or reads."""
    now = vault.clock()
    for at, name in ((OVER, "old"), (OVER, "older"), (now + timedelta(hours=1), "living")):
        for table, statement in ROWS.items():
            key = name.encode() if table in {"session", "taken_once"} else name
            await vault.pool.execute(statement, at, key)
    await vault.pool.execute("insert into usage values ('p', 1, $1, 5)", uuid4())
    while await forget_expired(vault, "uk"):
        pass
    assert await _count(vault.pool) == dict.fromkeys(ROWS, 1)
    assert await vault.pool.fetchval("select count(*) from usage") == 0


async def test_what_still_waits_is_not_forgotten(vault: Vault) -> None:
    """A signal that an endpoint has not taken yet stays, however old, with what was delivered."""
    await vault.pool.execute(ROWS["signal"], OVER, "waits")
    await vault.pool.execute(ROWS["signal_delivery"], OVER, "waits")
    await vault.pool.execute(
        """insert into signal_delivery (signal, endpoint, region, state, next_at)
        values (md5('waits')::uuid, 'other', 'uk', 'waiting', $1)""",
        OVER,
    )
    assert await forget_expired(vault, "uk") == 0
    assert (await _count(vault.pool))["signal_delivery"] == 2
