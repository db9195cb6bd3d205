"""Records that wait to be published: every question finds them, and nothing is read beyond them."""

import argparse
import asyncio
import csv
import io
import json
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import asyncpg
import pytest

from tests.access_records import append
from tests.fixtures_process import VaultProcess
from tests.fixtures_server import Api, in_pieces, serving
from tests.integration.test_log_export import audit, fetch, step
from vault.actions.log_publish import publish_log, sequence_log
from vault.actions.log_records import verify_region
from vault.app import open_vault
from vault.commands import log as log_commands
from vault.commands import witness as witness_command
from vault.commands.parser import make_parser
from vault.commands.witness import StandsStillError, Witness
from vault.config.settings import Config
from vault.context import Vault
from vault.domain.access import Principal
from vault.web.health import READY_SECONDS

COMPLIANCE = Principal("token:compliance", "compliance", frozenset({"uk"}))
#: How old, in seconds, a waiting record is made by the tests, and the bound that it then breaks.
OLD, BOUND = 1000, 500.0


@pytest.fixture
async def standing(config: Config) -> AsyncIterator[Vault]:
    """Open a vault without a worker, whose records may wait for `BOUND` seconds."""
    bounded = replace(config, record_publish_seconds_max=BOUND)
    async with open_vault(bounded, dsn=config.database) as opened:
        yield opened


@pytest.fixture
async def desk(standing: Vault) -> AsyncIterator[Api]:
    """Serve that vault."""
    async with serving(standing) as client:
        yield client


async def age(vault: Vault, pool: asyncpg.Pool) -> None:
    """Let what waits have waited for `OLD` seconds, and have the vault look."""
    back = f"- interval '{OLD} seconds'"
    await pool.execute(f"update log_queue set at = at {back}")
    async with pool.acquire() as conn:
        await conn.execute("set session_replication_role = replica")
        await conn.execute(f"update log_checkpoint set oldest = oldest {back}")
        await conn.execute("set session_replication_role = default")
    await vault.log_watch.look()


async def command(
    api: Api, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str
) -> str:
    """Run a command of the log as compliance; returns what it prints."""
    monkeypatch.setenv("PORTVAULT_SERVER", api.url)
    monkeypatch.setenv("PORTVAULT_TOKEN", api.tokens["compliance"])
    args: argparse.Namespace = make_parser().parse_args(["log", *words])
    await {"search": log_commands.search, "tail": log_commands.tail}[words[0]](args)
    return capsys.readouterr().out


async def test_what_has_no_place_is_found_and_marked(
    api: Api,
    vault: Vault,
    passport: bytes,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A read with no worker anywhere stands at once in search, tail, JSON and CSV."""
    order = await api.order()
    await step(vault)
    _, document = await api.put(order, passport)
    assert (await api.get(document["id"]))[0] == 200
    for query in (f"document={document['id']}", f"order={order}", "action=document.read", ""):
        _, body, _ = await api.call(
            "GET", f"/v1/access-records?region=uk&{query}", role="compliance"
        )
        (read,) = [
            row
            for row in body["data"]
            if row["action"] == "document.read" and row["phase"] == "intent"
        ]
        assert (read["index"], read["waiting"]) == (None, True)
    words = ("--region", "uk", "--document", document["id"])
    for look in ("search", "tail"):
        said = await command(api, monkeypatch, capsys, look, *words)
        assert "document.read" in said
        assert "(waits)" in said
    lines = (await fetch(api)).splitlines()
    waiting = [json.loads(line) for line in lines if line.startswith(b'{"waiting":true')]
    assert json.loads(lines[0])["waiting"] == len(waiting) > 0
    assert {"document.read"} <= {line["record"]["action"] for line in waiting}
    table = csv.DictReader((await fetch(api, "&format=csv")).decode().splitlines())
    assert {row["waiting"] for row in table if not row["index"]} == {"true"}


async def test_pages_cross_from_what_waits_to_what_has_its_place(api: Api, vault: Vault) -> None:
    """Each record comes once, newest first, whatever is ordered between one page and the next."""
    made = [await append(vault, 7, principal="token:z") for _ in range(2)]
    await sequence_log(vault, "uk")
    made += [await append(vault, 7, principal="token:z") for _ in range(2)]
    found: list[str] = []
    cursor, more = "", True
    while more:
        _, page, _ = await api.call(
            "GET",
            f"/v1/access-records?region=uk&principal=token:z&limit=5{cursor}",
            role="compliance",
        )
        found += [row["id"] for row in page["data"]]
        cursor, more = f"&cursor={page['next_cursor']}", page["next_cursor"] is not None
        await sequence_log(vault, "uk")
    expected = sorted((item for batch in made for item in batch), key=lambda r: (r.at, r.id))
    assert found == [str(item.id) for item in reversed(expected)]


async def test_the_mark_goes_with_the_publication(api: Api, vault: Vault) -> None:
    """A place alone is not enough: only what is in the bucket can no longer be taken away."""
    await append(vault, 1, principal="token:z")

    async def found() -> Any:
        query = "/v1/access-records?region=uk&principal=token:z"
        _, body, _ = await api.call("GET", query, role="compliance")
        (row,) = body["data"]
        return row["index"], row.get("waiting", False)

    assert await found() == (None, True)
    await sequence_log(vault, "uk")
    index, waiting = await found()
    assert (index is not None, waiting) == (True, True)
    await step(vault)
    assert await found() == (index, False)


async def test_a_log_that_stands_still_hands_out_nothing(
    desk: Api, standing: Vault, pool: asyncpg.Pool, passport: bytes
) -> None:
    """Within the bound a read goes out; beyond it 503 with Retry-After, until all is published."""
    order = await desk.order()
    _, document = await desk.put(order, passport)
    assert (await desk.get(document["id"]))[0] == 200
    for ordered in (False, True):
        if ordered:
            await sequence_log(standing, "uk")
            await standing.log_watch.look()
        await age(standing, pool)
        for path in (
            f"/v1/documents/{document['id']}/content",
            f"/v1/documents/{document['id']}",
            f"/v1/orders/{order}",
        ):
            headers = {"Access-Purpose": "verify-identity"}
            status, body, response = await desk.call("GET", path, headers=headers)
            assert (status, "worker" in body["detail"]) == (503, True), path
            assert int(response.headers["Retry-After"]) > 0
        # A refusal is still a refusal, and who looks into the log is let in.
        assert (await desk.get(document["id"], role="compliance"))[0] == 403
        path = f"/v1/access-records?region=uk&document={document['id']}"
        assert (await desk.call("GET", path, role="compliance"))[0] == 200
        status, body, _ = await desk.call("GET", "/readyz")
        assert (status, body["regions"]["uk"]) == (503, ["log"])
        await asyncio.sleep(READY_SECONDS)
    await step(standing)
    await sequence_log(standing, "sg")
    await publish_log(standing, "sg")
    await standing.log_watch.look()
    assert (await desk.get(document["id"]))[0] == 200
    assert (await desk.call("GET", "/readyz"))[0] == 200


async def test_the_other_region_goes_on(
    desk: Api, standing: Vault, pool: asyncpg.Pool, passport: bytes
) -> None:
    """Each region's log stands or goes by itself."""
    _, document = await desk.put(await desk.order(), passport)
    await append(standing, 1, "sg")
    await step(standing)
    await age(standing, pool)
    assert standing.log_watch.standing() == ["sg"]
    assert (await desk.get(document["id"]))[0] == 200


async def test_a_stream_is_cut_when_the_log_stands(
    desk: Api, standing: Vault, pool: asyncpg.Pool
) -> None:
    """What is open when the bound is passed ends unfinished, as where records cannot be written."""
    data = b"%PDF-1.4\n" + bytes(20 << 20)
    _, document = await desk.put(await desk.order(), in_pieces(data), "loa")
    headers = {
        "Authorization": f"Bearer {desk.tokens['porting']}",
        "Access-Purpose": "submit-to-carrier",
    }
    url = f"{desk.url}/v1/documents/{document['id']}/content"
    got = 0
    with pytest.raises(Exception, match=r"payload|closed|reset"):
        async with desk.session.get(url, headers=headers) as response:
            assert response.status == 200
            got += len(await response.content.readexactly(1 << 16))
            await age(standing, pool)
            await asyncio.sleep(standing.config.record_renewal_seconds * 2)
            async for piece in response.content.iter_any():
                got += len(piece)
    assert got < len(data)


async def test_a_process_that_cannot_look_hands_out_nothing(
    desk: Api, standing: Vault, monkeypatch: pytest.MonkeyPatch, passport: bytes
) -> None:
    """How long records wait is unknown where the last look is too old: that counts as too long."""
    _, document = await desk.put(await desk.order(), passport)
    await step(standing)
    await standing.log_watch.look()
    assert (await desk.get(document["id"]))[0] == 200
    watch = standing.log_watch
    monkeypatch.setattr(watch, "_looked_at", watch._looked_at - BOUND)
    assert (await desk.get(document["id"]))[0] == 503


async def test_the_verdict_counts_what_waits(standing: Vault, pool: asyncpg.Pool) -> None:
    """So many, since then; complete until the bound is passed, ordered or not."""
    await append(standing, 3)
    await sequence_log(standing, "uk")
    verdict = await verify_region(standing, COMPLIANCE, "uk")
    assert (verdict.waiting, verdict.waiting_since is None, verdict.good) == (4, False, True)
    await age(standing, pool)
    verdict = await verify_region(standing, COMPLIANCE, "uk")
    assert (verdict.intact, verdict.complete, verdict.consistent) == (True, False, True)
    assert verdict.first_offending == {"complete": 0}
    assert "worker" in verdict.findings[0]
    await step(standing)
    verdict = await verify_region(standing, COMPLIANCE, "uk")
    assert (verdict.waiting, verdict.good) == (1, True)


async def test_the_auditor_counts_what_waits(api: Api, vault: Vault) -> None:
    """Who has only the file sees how many, since when, and that it is too long, or not all."""
    await step(vault)
    await append(vault, 2)
    await step(vault)
    await append(vault, 5)
    export = await fetch(api)
    found = audit(vault, export)
    assert (found["complete"], found["findings"]) == (True, [])
    assert found["waiting"] >= 5
    assert found["waiting_since"] is not None
    found = audit(vault, export, waiting_seconds_max=0.0)
    assert (found["complete"], found["intact"]) == (False, True)
    lines = export.splitlines(keepends=True)
    hidden = [line for line in lines if not line.startswith(b'{"waiting"')]
    assert audit(vault, b"".join(hidden))["complete"] is False
    assert audit(vault, b"".join(lines[:-1]))["complete"] is False


async def test_an_export_of_a_time_shows_what_waits_of_that_time(api: Api, vault: Vault) -> None:
    """Waiting records of another time are not among them."""
    await step(vault)
    await append(vault, 2)
    await step(vault)
    await append(vault, 2)
    lines = (await fetch(api, "&to=2025-01-01")).splitlines()
    assert not [line for line in lines if line.startswith(b'{"waiting"')]
    assert json.loads(lines[0])["waiting"] == 0
    assert audit(vault, b"\n".join(lines) + b"\n")["findings"] == []


async def test_metrics_say_how_long_records_wait(
    desk: Api, standing: Vault, pool: asyncpg.Pool
) -> None:
    """For each region, in seconds."""
    await append(standing, 1)
    await age(standing, pool)
    _, body, _ = await desk.call("GET", "/metrics")
    (value,) = [
        float(line.split()[-1])
        for line in io.StringIO(body.decode())
        if line.startswith('portvault_log_waiting_seconds{region="uk"}')
    ]
    assert OLD <= value < OLD + 600


async def test_a_witness_says_that_the_log_stands_still(
    api: Api, vault: Vault, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """Its own looks are records: a log that does not grow by them is not being published."""
    watched = replace(vault, config=replace(vault.config, witnesses=(Witness(tmp_path, "w").vkey,)))
    async with serving(watched) as client:
        await step(watched)
        monkeypatch.setenv("PORTVAULT_TOKEN", client.tokens["compliance"])
        words = ["log", "witness", "--server", client.url, "--region", "uk", "--once"]
        args = make_parser().parse_args(
            [*words, "--state", str(tmp_path), "--name", "w", "--still-max", "0"]
        )
        await witness_command.witness(args)
        await witness_command.witness(args)
        await asyncio.sleep(1.1)
        with pytest.raises(StandsStillError, match="worker"):
            await witness_command.witness(args)
        await step(watched)
        await witness_command.witness(args)
        await witness_command.witness(args)
        assert not list(tmp_path.glob("ALARM*"))


async def test_without_a_worker_a_running_vault_says_so(tmp_path: Any, database: str) -> None:
    """As people see it: read 503, not ready, `doctor` fails, `log verify` ends with one line."""
    made = VaultProcess(
        tmp_path / "home",
        database=database,
        worker="false",
        record_publish_seconds_max="1",
    )
    await made.start()
    try:
        token = (await made.json("token", "create", "--role", "porting", "--region", "uk"))["token"]
        order = ("order", "create", "--region", "uk", "--customer", "a", "--number")
        assert (await made.run(*order, "+442079460123", PORTVAULT_TOKEN=token))[0] == 0
        await asyncio.sleep(3)
        status, _, said = await made.run("order", "show", str(uuid.uuid4()), PORTVAULT_TOKEN=token)
        assert status != 0
        status, out, _ = await made.run("doctor", "--json")
        (found,) = [row for row in json.loads(out) if row["check"] == "log uk"]
        assert (status, found["verdict"]) == (1, "fail")
        assert "portvault worker" in found["detail"]
        status, out, _ = await made.run("log", "verify", "--region", "uk")
        assert (status, out.splitlines()[-1]) == (
            16,
            "THE LOG DOES NOT HOLD: uk is not complete",
        ), said
    finally:
        await made.stop()
