"""Exports of the log: files that prove themselves, tables for people, and streams that are cut."""

import asyncio
import csv
import io
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import asyncpg
import pytest

from tests.access_records import append
from tests.fixtures_server import Api, serving
from vault.actions import log_prove as export_module
from vault.actions.log_publish import publish_log, sequence_log
from vault.actions.log_records import latest_checkpoint, verify_region
from vault.audit.auditor import Audit
from vault.context import Vault
from vault.domain.access import Principal

COMPLIANCE = Principal("token:compliance", "compliance", frozenset({"uk"}))
START = datetime(2025, 3, 1, tzinfo=UTC)


async def step(vault: Vault) -> None:
    """Order what waits, and publish it."""
    while await sequence_log(vault, "uk"):
        pass
    await publish_log(vault, "uk")


async def fetch(api: Api, query: str = "") -> bytes:
    """Export the region's log."""
    headers = {"Authorization": f"Bearer {api.tokens['compliance']}"}
    url = f"{api.url}/v1/access-records/export?region=uk{query}"
    async with api.session.get(url, headers=headers) as response:
        assert response.status == 200
        return await response.read()


def audit(vault: Vault, export: bytes, **more: Any) -> dict[str, Any]:
    """Return the auditor's verdict."""
    made = Audit(vault.signer.vkey, **more)
    for line in io.BytesIO(export):
        made.take(line)
    return made.verdict()


async def test_an_export_proves_itself(
    api: Api, vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole, and each stretch of time, page after page; with checkpoints held from before."""
    monkeypatch.setattr(export_module, "PAGE", 50)
    held = []
    for hour in range(5):
        await append(vault, 70, at=START + timedelta(hours=hour))
        await step(vault)
        held.append(await latest_checkpoint(vault, COMPLIANCE, "uk"))
    await step(vault)
    found = audit(vault, await fetch(api), held=held)
    assert found["findings"] == []
    assert (found["first"], found["last"], found["size"] > 350) == (0, found["size"], True)
    for first, last in ((0, 5), (1, 3), (4, 5), (2, 2)):
        times = f"&from=2025-03-01T0{first}:00:00Z&to=2025-03-01T0{last}:00:00Z"
        found = audit(vault, await fetch(api, times))
        assert found["findings"] == []
        inside = [70 * (last - first), 0][first == last]
        assert inside <= found["last"] - found["first"] <= inside + 16


async def test_what_was_done_to_the_database_shows_in_its_export(
    api: Api, vault: Vault, pool: asyncpg.Pool
) -> None:
    """An edit and a deletion by the database's owner are named by who has only the file."""
    await append(vault, 30)
    await step(vault)
    async with pool.acquire() as conn:
        await conn.execute("set session_replication_role = replica")
        await conn.execute(
            "update access_record set principal = 'x' from log_leaf l"
            " where l.record = id and l.region = 'uk' and l.index = 20"
        )
        assert audit(vault, await fetch(api))["first_offending"] == {"intact": 20}
        await conn.execute("delete from log_leaf where region = 'uk' and index = 7")
        await conn.execute("set session_replication_role = default")
    found = audit(vault, await fetch(api))["first_offending"]
    assert found == {"intact": 7, "complete": 7}


async def test_a_table_for_people(api: Api, vault: Vault) -> None:
    """CSV with a row for each record; nothing in a cell is a formula to a spreadsheet."""
    await append(vault, 1, at=START, principal="=1+1", reference="T,1")
    await step(vault)
    times = "&from=2025-03-01&to=2025-03-02"
    rows = list(csv.DictReader(io.StringIO((await fetch(api, f"&format=csv{times}")).decode())))
    (row,) = rows
    assert (row["principal"], row["reference"], row["at"]) == (
        "'=1+1",
        "T,1",
        "2025-03-01T00:00:00+00:00",
    )
    assert (row["document"], int(row["index"]) >= 0) == ("", True)


async def test_an_export_is_recorded_and_for_compliance_alone(api: Api, vault: Vault) -> None:
    """Who exports is written down with how much; nobody else may, and mistakes are named."""
    await append(vault, 3)
    await step(vault)
    size = len(await fetch(api))
    # The outcome is written down after the last byte went out.
    rows: list[asyncpg.Record] = []
    async with asyncio.timeout(10):
        while len(rows) < 2:
            rows = await vault.pool.fetch(
                "select * from access_record where action = 'log.export' order by at"
            )
    assert [row["phase"] for row in rows] == ["intent", "outcome"]
    assert (rows[1]["result"], rows[1]["size_bytes"]) == ("completed", size)
    for role, query, expected in (
        ("porting", "region=uk", 403),
        ("admin", "region=uk", 403),
        ("compliance", "region=hk", 403),
        ("compliance", "", 403),
        ("compliance", "region=uk&format=xml", 422),
        ("compliance", "region=uk&document=x", 422),
        ("compliance", "region=uk&from=then", 422),
    ):
        status, _, _ = await api.call("GET", f"/v1/access-records/export?{query}", role=role)
        assert status == expected, (role, query)


async def test_an_export_is_cut_when_records_cannot_be_written(
    vault: Vault, pool: asyncpg.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log that can be read and not written to ends no export well."""
    monkeypatch.setattr(export_module, "PAGE", 10)
    await append(vault, 4000)
    await step(vault)
    hurried = replace(vault, config=replace(vault.config, record_renewal_seconds=0.001))
    async with serving(hurried) as api:
        headers = {"Authorization": f"Bearer {api.tokens['compliance']}"}
        url = f"{api.url}/v1/access-records/export?region=uk"
        async with api.session.get(url, headers=headers) as response:
            assert await response.content.readexactly(1000)
            await pool.execute("revoke insert on access_record from portvault_service")
            with pytest.raises(aiohttp.ClientPayloadError):
                await response.read()
        await pool.execute("grant insert on access_record to portvault_service")


async def test_both_verifiers_agree_on_a_real_log(api: Api, vault: Vault, passport: bytes) -> None:
    """Reads, refusals and all: the vault's verdict on its database is the auditor's on the file."""
    _, document = await api.put(await api.order(), passport)
    await api.get(document["id"])
    await api.get(document["id"], purpose=None)
    await step(vault)
    ours = await verify_region(vault, COMPLIANCE, "uk")
    theirs = audit(vault, await fetch(api))
    assert ours.good
    assert theirs["findings"] == []
    assert theirs["size"] == ours.size


async def test_the_file_that_documents_show_is_what_is_made(api: Api, vault: Vault) -> None:
    """The first line says what the log is; each record's line holds its bytes as hashed."""
    await append(vault, 1)
    await step(vault)
    head, *lines = (await fetch(api)).splitlines()
    assert list(json.loads(head)) == [
        "v",
        "export",
        "first",
        "last",
        "size",
        "left",
        "right",
        "key",
        "handovers",
        "minimum",
        "checkpoint",
        "made_at",
        "waiting",
    ]
    records = [json.loads(line) for line in lines if line.startswith(b'{"index"')]
    assert [item["index"] for item in records] == list(range(len(records)))
    assert list(records[0]) == ["index", "leaf", "record"]
