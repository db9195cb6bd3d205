"""What ends, ends everywhere at once: no stream outlives its token, its document or its time."""

import asyncio
import io
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pikepdf
import pytest

from tests.access_records import append
from tests.fixtures_postfix import HostilePeer
from tests.fixtures_server import OPERATOR, SAMPLES, Api, in_pieces, serving
from tests.fixtures_telefax import Faxes
from tests.integration.test_fax_relay import relaying, table
from vault.actions.credentials import create_token
from vault.actions.fax_delivery import relay_faxes
from vault.actions.keys import mark_sealed, seal
from vault.actions.log_publish import publish_log, sequence_log
from vault.app import open_vault
from vault.config.settings import Config
from vault.context import Vault
from vault.domain.access import INCOMING, OUTGOING, STREAMS, Action
from vault.domain.credentials import Grant
from vault.sql import access as access_sql
from vault.trials.drill_parts import SlowReader

CUT_SECONDS, AGE_SECONDS = 1.5, 12.0
LARGE_BYTES = 3 * 1024 * 1024
ROLES = {
    Action.DOCUMENT_READ: "porting",
    Action.FAX_READ: "fax-gateway",
    Action.LOG_EXPORT: "compliance",
    Action.DOCUMENT_INGEST: "porting",
    Action.FAX_RECEIVE: "fax-gateway",
}


def large_fax() -> bytes:
    """Return a fax that is longer than what is in buffers."""
    made = io.BytesIO()
    with pikepdf.open(SAMPLES / "loa.pdf") as pdf:
        pdf.pages[0].obj.Kept = pdf.make_stream(os.urandom(LARGE_BYTES))
        pdf.save(made)
    return made.getvalue()


@dataclass
class Scene:
    """A vault that is served by one process and ruled by another."""

    served: Vault
    api: Api
    ruler: Api
    #: What is read: a document, or a fax.
    identity: str = ""
    token: UUID | None = None
    readers: list[SlowReader] = field(default_factory=list)

    async def open(self, action: Action) -> SlowReader:
        """Open a stream with a token of its own, and take a little, or send a little, of it."""
        role = ROLES[action]
        self.token, secret = await create_token(
            self.served, OPERATOR, Grant(role, frozenset({"uk"})), label=role
        )
        method, path, body = await self._prepared(action)
        reader = await SlowReader.open(
            self.api.url,
            f"{method} {path} HTTP/1.1\nHost: vault\nConnection: close\n"
            f"Authorization: Bearer {secret}" + body,
        )
        self.readers.append(reader)
        if action in INCOMING:
            await reader.send((SAMPLES / "loa.pdf").read_bytes()[:10_000])
            await self.begun(action)
        else:
            await reader.take(20_000)
        return reader

    async def _prepared(self, action: Action) -> tuple[str, str, str]:
        coming = "\nContent-Type: application/pdf\nContent-Length: 100000"
        if action is Action.DOCUMENT_READ:
            content = (SAMPLES / "loa.pdf").read_bytes() + bytes(LARGE_BYTES)
            status, document = await self.api.put(await self.api.order(), in_pieces(content))
            assert status == 201, document
            self.identity = document["id"]
            purpose = "\nAccess-Purpose: verify-identity"
            return "GET", f"/v1/documents/{self.identity}/content", purpose
        if action is Action.FAX_READ:
            self.identity = await Faxes(self.api).taken(in_pieces(large_fax()))
            return "GET", f"/v1/faxes/{self.identity}/content", ""
        if action is Action.LOG_EXPORT:
            await append(self.served, 8000)
            while await sequence_log(self.served, "uk"):
                pass
            await publish_log(self.served, "uk")
            return "GET", "/v1/access-records/export?region=uk", ""
        if action is Action.DOCUMENT_INGEST:
            return "POST", f"/v1/orders/{await self.api.order()}/documents?kind=loa", coming
        query = "direction=inbound&from=%2B442079460999&to=%2B442079460123"
        return "POST", f"/v1/faxes?{query}", coming

    async def begun(self, action: Action) -> None:
        """Wait until the intent of what comes in is on record."""
        while not await self.served.pool.fetchval(
            "select count(*) from access_record where action = $1 and principal = $2",
            action.value,
            f"token:{self.token}",
        ):
            await asyncio.sleep(0.02)

    async def outcome(self, action: Action, identity: str | None = None) -> tuple[str, str | None]:
        """Return how the action ended on record, once it has."""
        while True:
            row = await self.served.pool.fetchrow(
                "select result, reason from access_record where phase = 'outcome' and action = $1"
                " and principal = $2 and ($3::uuid is null or document = $3)",
                action.value,
                "worker" if identity else f"token:{self.token}",
                UUID(identity) if identity else None,
            )
            if row:
                return row["result"], row["reason"]
            await asyncio.sleep(0.02)


@asynccontextmanager
async def scene_of(config: Config, **settings: Any) -> AsyncIterator[Scene]:
    """Serve from two processes' worth of vaults on one database."""
    patient = replace(
        config,
        key_cache_seconds=10.0,
        record_timeout_seconds=10.0,
        database_timeout_seconds=30.0,
        **settings,
    )
    async with AsyncExitStack() as stack:
        opened = []
        for _ in range(2):
            vault = await stack.enter_async_context(open_vault(patient, dsn=config.database))
            opened.append((vault, await stack.enter_async_context(serving(vault))))
        (served, api), (_, ruler) = opened
        scene = Scene(served, api, ruler)
        try:
            yield scene
        finally:
            for reader in scene.readers:
                reader.close()


async def revoked(scene: Scene) -> str:
    """Revoke the token, at the other process."""
    await scene.served.pool.execute(
        "update token set revoked_at = now() where id = $1", scene.token
    )
    return "principal-ended"


async def expired(scene: Scene) -> str:
    """Let the token run out."""
    await scene.served.pool.execute(
        "update token set expires_at = now() where id = $1", scene.token
    )
    return "principal-ended"


async def restricted(scene: Scene) -> str:
    """Restrict the document, at the other process."""
    path = f"/v1/documents/{scene.identity}/actions/restrict"
    status, body, _ = await scene.ruler.call("POST", path, role="dpo", json={"reason": "asked"})
    assert status == 200, body
    return "restricted"


async def shredded(scene: Scene) -> str:
    """Shred the document, at the other process."""
    path = f"/v1/documents/{scene.identity}/actions/shred"
    status, body, _ = await scene.ruler.call("POST", path, json={"reason": "withdrawn"})
    assert status == 200, body
    return "shredded"


async def delivered(scene: Scene) -> str:
    """Have another gateway deliver the fax."""
    status, body = await Faxes(scene.ruler).act(scene.identity, "deliver")
    assert status == 200, body
    return "shredded"


async def past_a_limit(scene: Scene) -> str:
    """Read more than is allowed, at several processes."""
    reads = {(f"token:{scene.token}", int(scene.served.clock().timestamp()) // 300, UUID(int=0))}
    async with scene.served.pool.acquire() as conn:
        await access_sql.add_usage(conn, dict.fromkeys(reads, 10_000))
    return "limit-reached"


End = Callable[[Scene], Awaitable[str]]
ENDS: list[tuple[Action, End]] = [
    *((action, end) for action in sorted(STREAMS) for end in (revoked, expired)),
    (Action.DOCUMENT_READ, restricted),
    (Action.DOCUMENT_READ, shredded),
    (Action.DOCUMENT_READ, past_a_limit),
    (Action.FAX_READ, delivered),
]


def test_every_stream_is_walked() -> None:
    """An action that is a stream has a place in these tests, and every one of them is watched."""
    assert set(ROLES) == STREAMS
    assert {action for action, _ in ENDS} == STREAMS


def test_content_leaves_by_one_way_only() -> None:
    """
    Nothing but `hand_out`, which takes what is watched, makes an answer that is a stream.

    A restore opens what it brings back, of a document the first piece, and keeps what it is alone.
    What it opens has no row yet, so that `stored_object` has nothing to compare it with.
    """
    made = {
        str(path.relative_to(Path(__file__).parents[2]))
        for folder in ("vault", "keys")
        for path in (Path(__file__).parents[2] / folder).rglob("*.py")
        if "StreamResponse(" in path.read_text() or ".decryptor(" in path.read_text()
    }
    hands_nothing_out = {"vault/actions/recover.py"}
    assert made - hands_nothing_out == {"vault/web/requests.py", "vault/actions/read.py"}


@pytest.mark.parametrize("action, end", ENDS, ids=lambda item: getattr(item, "__name__", item))
async def test_a_stream_ends_with_what_it_hangs_on(
    config: Config, action: Action, end: End
) -> None:
    """A second after the end, wherever it was said, not a byte comes any more, and it is told."""
    async with scene_of(config) as scene:
        reader = await scene.open(action)
        reason = await end(scene)
        await asyncio.sleep(CUT_SECONDS)
        if action in OUTGOING:
            reader.drain()
            assert await reader.rest() == 0
            assert len(reader.taken) < LARGE_BYTES / 2
        else:
            await reader.rest()
            assert reader.taken.startswith(b"HTTP/1.1 401 ")
        assert await scene.outcome(action) == ("aborted", reason)
        stored = "select (select count(*) from document where custody = 'stored') +"
        stored += " (select count(*) from fax where custody = 'stored')"
        if action in INCOMING:
            assert await scene.served.pool.fetchval(stored) == 0
        assert len(scene.served.streams) == 0


@pytest.mark.parametrize("action", sorted(OUTGOING))
async def test_a_stream_that_lives_goes_on_to_its_end(config: Config, action: Action) -> None:
    """However slow its reader is, and whatever ends beside it."""
    async with scene_of(config) as scene:
        reader = await scene.open(action)
        living = replace(scene)
        await scene.open(action)
        await revoked(scene)
        await asyncio.sleep(CUT_SECONDS)
        await reader.rest()
        head = reader.taken.partition(b"\r\n\r\n")[0].decode()
        if action is Action.LOG_EXPORT:
            assert reader.taken.endswith(b"\r\n0\r\n\r\n")
        else:
            assert f"Content-Length: {len(reader.body)}" in head
        assert (await living.outcome(action))[0] == "completed"


@pytest.mark.parametrize("action", sorted(OUTGOING))
async def test_a_stream_has_a_greatest_age(config: Config, action: Action) -> None:
    """Up to `stream_seconds_max` it goes on; past it, it is cut, whoever reads."""
    async with scene_of(config, stream_seconds_max=AGE_SECONDS) as scene:
        reader = await scene.open(action)
        early = await scene.open(action)
        await early.rest()
        assert await scene.outcome(action) == ("completed", None)
        scene.token = None
        await asyncio.sleep(AGE_SECONDS + CUT_SECONDS)
        reader.drain()
        assert await reader.rest() == 0
        found = "select count(*) from access_record where reason = 'stream-too-old'"
        assert await scene.served.pool.fetchval(found) == 1


async def test_what_is_small_is_cut_too_while_it_waits_here(config: Config) -> None:
    """A file of one piece, for a reader who takes nothing, is thrown away when its token ends."""
    async with scene_of(config) as scene:
        content = b"%PDF-1.4\n".ljust(1024) + os.urandom(63 * 1024)
        _, document = await scene.api.put(await scene.api.order(), content)
        scene.token, secret = await create_token(
            scene.served, OPERATOR, Grant("porting", frozenset({"uk"})), label="slow"
        )
        reader = await SlowReader.open(
            scene.api.url,
            f"GET /v1/documents/{document['id']}/content HTTP/1.1\nHost: vault\n"
            f"Authorization: Bearer {secret}\nAccess-Purpose: verify-identity",
        )
        scene.readers.append(reader)
        await scene.begun(Action.DOCUMENT_READ)
        await revoked(scene)
        await asyncio.sleep(CUT_SECONDS)
        reader.drain()
        assert await reader.rest() == 0
        assert len(reader.body) < len(content)
        assert await scene.outcome(Action.DOCUMENT_READ) == ("aborted", "principal-ended")


async def test_a_fax_is_relayed_no_further_than_it_lives(config: Config, fax: bytes) -> None:
    """A next hop that takes its time gets no more of a fax once another gateway delivered it."""
    async with (
        HostilePeer({"DATA": 30.0}) as peer,
        relaying(config, table(peer.port, tls="opportunistic")) as (vault, faxes),
    ):
        identity = await faxes.taken(fax)
        relay = asyncio.create_task(relay_faxes(vault, "uk"))
        while "DATA" not in peer.heard:
            await asyncio.sleep(0.02)
        await faxes.act(identity, "deliver")
        await relay
        scene = Scene(vault, faxes.api, faxes.api)
        assert await scene.outcome(Action.FAX_READ, identity) == ("aborted", "shredded")
        assert peer.data == b""


async def test_no_stream_is_open_when_a_seal_says_irrecoverable(config: Config) -> None:
    """On every process: what is sealed was cut before, even where the database was not heard."""
    async with scene_of(config) as scene:
        reader = await scene.open(Action.DOCUMENT_READ)
        ruler = scene.served
        await shredded(scene)
        await seal(ruler, OPERATOR, "uk")
        while not await mark_sealed(ruler, "uk"):
            assert len(reader.taken) < LARGE_BYTES
            await asyncio.sleep(0.02)
        assert len(scene.served.streams) == 0
        reader.drain()
        assert await reader.rest() == 0
