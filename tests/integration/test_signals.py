"""Signals to a real receiver on loopback: signed, tried again, dead, replayed, never to private."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from aiohttp import web

from tests.fixtures_server import Api, serving
from tests.retention_house import DPO, Clock, clocked, end, hold, new_order, put, release, sweep
from vault.actions.certificates import certify
from vault.actions.keys import mark_sealed, seal, worker
from vault.actions.log_publish import sequence_log
from vault.actions.policy import give_instruction
from vault.actions.shred import purge_shredded
from vault.actions.signals import deliver_signals, tell, tell_due_soon
from vault.app import open_vault
from vault.config.settings import Config
from vault.config.webhooks import Webhook
from vault.context import Vault
from vault.domain.documents import Kind
from vault.domain.signals import ATTEMPTS_MAX, SignalType, hold_signal, signature
from vault.sql.connection import transaction

SECRET = "whsec_" + "QUJDREVGR0hJSktMTU5PUFFSU1RVVldY"


@dataclass
class Receiver:
    """What came, and with which status it is answered."""

    url: str = ""
    status: int = 204
    came: list[tuple[dict[str, str], str]] = field(default_factory=list)

    async def take(self, request: web.Request) -> web.Response:
        """Take a post."""
        self.came.append((dict(request.headers), await request.text()))
        headers = {"Location": "/elsewhere"} if self.status == 302 else {}
        return web.Response(status=self.status, headers=headers)

    def types(self) -> list[str]:
        """Return the types of what came."""
        return [json.loads(body)["type"] for _, body in self.came]


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """Run a receiver."""
    made = Receiver()
    app = web.Application()
    app.router.add_post("/hook", made.take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    yield made
    await runner.cleanup()


@asynccontextmanager
async def telling(config: Config, url: str, **more: Any) -> AsyncIterator[tuple[Vault, Clock]]:
    """Open a vault that tells one endpoint."""
    webhook = Webhook(url, SECRET, **{"allow_private": True, **more})
    changes = {"webhooks": {"porting": webhook}, "reversal_grace_seconds": 3600.0}
    async with clocked(config, **changes) as opened:
        yield opened


async def deliver(vault: Vault) -> None:
    """Deliver all that waits now."""
    while await deliver_signals(vault, "uk"):
        pass


async def test_a_life_is_told(config: Config, receiver: Receiver) -> None:
    """Stored, conflict, hold placed and released, due soon, shredded, sealed: each once, signed."""
    async with telling(config, receiver.url) as (vault, clock):
        await give_instruction(
            vault, DPO, region="uk", customer="acme", kind="loa", keep="P1D", reference=None
        )
        order = await new_order(vault)
        passport, _ = await put(vault, order), await put(vault, order, Kind.LOA)
        await sweep(vault)
        case = await hold(vault, documents=(passport,))
        await release(vault, case)
        await end(vault, order)
        await sweep(vault)
        await tell_due_soon(vault, "uk")
        await tell_due_soon(vault, "uk")
        clock.forward(hours=2)
        await sweep(vault)
        await seal(vault, worker(vault), "uk")
        clock.forward(seconds=5)
        await mark_sealed(vault, "uk")
        await purge_shredded(vault, "uk")
        await sequence_log(vault, "uk")
        await certify(vault, "uk")
        await asyncio.gather(*(deliver_signals(vault, "uk") for _ in range(3)))
        await deliver(vault)
        await deliver(vault)
    assert sorted(receiver.types()) == [
        "document.conflict",
        "document.due_soon",
        "document.sealed",
        "document.shredded",
        "document.stored",
        "document.stored",
        "hold.placed",
        "hold.released",
    ]
    for headers, body in receiver.came:
        at = datetime.fromtimestamp(int(headers["webhook-timestamp"]), UTC)
        expected = signature(SECRET, UUID(headers["webhook-id"]), at, body)
        assert headers["webhook-signature"] == expected
        assert "+44" not in body


async def test_failures_back_off_die_and_are_replayed(config: Config, receiver: Receiver) -> None:
    """An endpoint that fails is tried again ever later, then given up; a replay starts anew."""
    async with telling(config, receiver.url) as (vault, clock), serving(vault) as api:
        receiver.status = 500
        await put(vault, await new_order(vault))
        await sweep(vault)
        await deliver(vault)
        await deliver(vault)
        assert len(receiver.came) == 1
        for _ in range(ATTEMPTS_MAX + 2):
            clock.forward(hours=7)
            await deliver(vault)
        assert len(receiver.came) == ATTEMPTS_MAX
        _, page, _ = await api.call("GET", "/v1/signals?state=dead", role="admin")
        (dead,) = page["data"]
        assert (dead["attempts"], dead["last_failure"]) == (ATTEMPTS_MAX, "status 500")
        receiver.status = 200
        path = f"/v1/signals/{dead['id']}/actions/replay"
        assert (await api.call("POST", path))[0] == 403
        status, answer, _ = await api.call("POST", path, role="admin")
        assert (status, answer) == (200, {"endpoints": 1})
        await deliver(vault)
        assert len({headers["webhook-id"] for headers, _ in receiver.came}) == 1
        _, page, _ = await api.call("GET", "/v1/signals?state=delivered", role="admin")
        assert [item["id"] for item in page["data"]] == [dead["id"]]
        assert (await api.call("GET", "/v1/signals?state=lost", role="admin"))[0] == 422


async def test_what_commits_late_is_listed_after_what_was_seen(
    config: Config, receiver: Receiver
) -> None:
    """Whatever its time says, a signal never comes in behind what a reader has seen."""
    async with telling(config, receiver.url) as (vault, _), serving(vault) as api:
        await put(vault, await new_order(vault))
        async with transaction(vault.pool) as conn:
            early = hold_signal(SignalType.HOLD_PLACED, vault.new_id(), "uk", vault.clock())
            await tell(vault, conn, [early])
            await sweep(vault)
            await deliver_signals(vault, "uk")
            seen = await listed(api)
            assert [item["type"] for item in seen] == ["document.stored"]
        await deliver_signals(vault, "uk")
        assert [item["type"] for item in await listed(api)] == ["hold.placed", "document.stored"]


async def listed(api: Api) -> list[dict[str, Any]]:
    """Return all that is listed, one to a page."""
    found, cursor = list[dict[str, Any]](), ""
    while True:
        path = f"/v1/signals?limit=1&cursor={cursor}"
        _, page, _ = await api.call("GET", path, role="admin")
        found += page["data"]
        if page["next_cursor"] is None:
            return found
        cursor = page["next_cursor"]


async def test_a_made_up_cursor_of_signals_is_refused(api: Api) -> None:
    """Eighteen digits are a number; what is more, or none, is not."""
    for cursor in ["x", "-1", "1.5", "1" * 19]:
        assert (await api.call("GET", f"/v1/signals?cursor={cursor}", role="admin"))[0] == 422
        good = f"/v1/signals?cursor={'9' * 18}"
        assert (await api.call("GET", good, role="admin"))[0] == 200


async def test_who_reads_too_much_is_told_of(
    config: Config, receiver: Receiver, passport: bytes
) -> None:
    """Near a limit, and at it, the endpoint hears once of each, from several processes as well."""
    webhook = Webhook(
        receiver.url, SECRET, allow_private=True, types=("limit.near", "limit.reached")
    )
    config = replace(config, reads_per_hour_max=5, webhooks={"security": webhook})
    async with (
        open_vault(config, dsn=config.database) as vault,
        open_vault(config, dsn=config.database) as other,
        serving(vault) as api,
    ):
        _, document = await api.put(await api.order(), passport)
        statuses = [(await api.get(document["id"]))[0] for _ in range(7)]
        assert statuses == [200] * 5 + [429] * 2
        await vault.meter.sync()
        async with serving(other) as there:
            there.tokens = api.tokens
            assert (await there.get(document["id"]))[0] == 429
        await other.meter.sync()
        await deliver(vault)
    told = [json.loads(body) for _, body in receiver.came]
    assert sorted(one["type"] for one in told) == ["limit.near", "limit.reached"]
    assert {tuple(sorted(one["data"])) for one in told} == {("principal", "reads", "region")}
    assert all(one["data"]["principal"].startswith("token:") for one in told)


async def test_a_redirect_is_not_followed(config: Config, receiver: Receiver) -> None:
    """Where an endpoint points elsewhere, the signal does not go."""
    async with telling(config, receiver.url) as (vault, _):
        receiver.status = 302
        await put(vault, await new_order(vault))
        await sweep(vault)
        await deliver(vault)
    assert len(receiver.came) == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_private_targets_are_not_reached(
    config: Config, receiver: Receiver, host: str
) -> None:
    """Unless the operator allows it, nothing goes to an address of this network."""
    url = receiver.url.replace("127.0.0.1", host)
    async with telling(config, url, allow_private=False) as (vault, _):
        await put(vault, await new_order(vault))
        await sweep(vault)
        await deliver(vault)
        async with vault.pool.acquire() as conn:
            failure = await conn.fetchval("select last_failure from signal_delivery")
    assert receiver.came == []
    assert failure is not None


async def test_nothing_is_written_where_nobody_listens(config: Config) -> None:
    """Without an endpoint for it, a signal leaves no row."""
    async with clocked(replace(config)) as (vault, _):
        await put(vault, await new_order(vault))
        await sweep(vault)
        async with vault.pool.acquire() as conn:
            assert await conn.fetchval("select count(*) from signal") == 0
