"""
What bounds a fax on its way: the prototype that the design measured, as small as it can be.

It receives a fax, encrypts it under a fresh key, puts it to S3 and answers once a row and a record
are durable, many in one commit; hands it out after another record; and forgets it. There is no
authentication, no check of what comes, no key tree, no outcome of an access, no repeat: what is
left is what every fax costs with aiohttp, asyncpg and cryptography.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID, uuid4

import aiohttp
import asyncpg
import uvloop
from aiohttp import web
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from yarl import URL

from vault.adapters.s3_requests import Signer

#: The stand-in forgets old objects of this name when its room is full.
BUCKET = "bench"
TABLES = """
    create table if not exists bare_fax (id uuid primary key, wrapped bytea not null, size bigint);
    create table if not exists bare_record (id uuid primary key, fax uuid, at timestamptz, act text)
"""
KEEP = """
    with fax as (
        insert into bare_fax select * from unnest($1::uuid[], $2::bytea[], $3::bigint[])),
    gone as (delete from bare_fax where id = any($4))
    insert into bare_record select * from unnest($5::uuid[], $6::uuid[], $7::timestamptz[],
        $8::text[])
"""


@dataclass
class Pass:
    """The server's state: what waits for the next commit, and its connections."""

    conn: asyncpg.Connection
    reader: asyncpg.Pool
    session: aiohttp.ClientSession
    signer: Signer
    base: str
    kek: AESGCM = field(default_factory=lambda: AESGCM(os.urandom(32)))
    waiting: list[tuple[tuple[object, ...] | None, UUID, str, asyncio.Future[None]]] = field(
        default_factory=list
    )
    came: asyncio.Event = field(default_factory=asyncio.Event)

    async def durable(self, fax: UUID, act: str, row: tuple[object, ...] | None = None) -> None:
        """Return once the record is, and with it the new row or the end of the old one."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting.append((row, fax, act, done))
        self.came.set()
        await done

    async def commit(self) -> None:
        """Commit what waits, for ever."""
        while True:
            await self.came.wait()
            self.came.clear()
            group, self.waiting = self.waiting, []
            rows = [row for row, *_ in group if row]
            columns = list(zip(*rows, strict=True)) or [(), (), ()]
            now = datetime.now(UTC)
            await self.conn.execute(
                KEEP,
                *columns,
                [fax for _, fax, act, _ in group if act == "deliver"],
                [uuid4() for _ in group],
                [fax for _, fax, _, _ in group],
                [now] * len(group),
                [act for _, _, act, _ in group],
            )
            for *_, done in group:
                done.set_result(None)

    def signed(self, method: str, fax: UUID) -> tuple[URL, dict[str, str]]:
        """Return address and headers of a request to the store."""
        path = f"/{BUCKET}/{fax}"
        headers = self.signer.headers(method, path, "", datetime.now(UTC))
        return URL(self.base + path, encoded=True), headers

    async def receive(self, request: web.Request) -> web.Response:
        """Take a fax."""
        data = await request.read()
        fax, key, nonce = uuid4(), os.urandom(32), os.urandom(12)
        sealed = AESGCM(key).encrypt(nonce, data, fax.bytes)
        url, headers = self.signed("PUT", fax)
        async with self.session.put(url, data=sealed, headers=headers) as response:
            assert response.status == 200
        await self.durable(fax, "receive", (fax, nonce + self.wrap(nonce, key, fax), len(data)))
        return web.json_response({"id": str(fax)}, status=201)

    def wrap(self, nonce: bytes, key: bytes, fax: UUID) -> bytes:
        """Encrypt a key."""
        return self.kek.encrypt(nonce, key, fax.bytes)

    async def read(self, request: web.Request) -> web.StreamResponse:
        """Hand out a fax."""
        fax = UUID(request.match_info["id"])
        wrapped = await self.reader.fetchval("select wrapped from bare_fax where id = $1", fax)
        await self.durable(fax, "read")
        nonce = wrapped[:12]
        key = self.kek.decrypt(nonce, wrapped[12:], fax.bytes)
        url, headers = self.signed("GET", fax)
        async with self.session.get(url, headers=headers) as response:
            data = AESGCM(key).decrypt(nonce, await response.read(), fax.bytes)
        return web.Response(body=data)

    async def deliver(self, request: web.Request) -> web.Response:
        """Forget a fax."""
        fax = UUID(request.match_info["id"])
        await request.read()
        await self.durable(fax, "deliver")
        return web.json_response({"id": str(fax)})


async def application(dsn: str, store: str) -> web.Application:
    """Return the server."""

    async def running(app: web.Application) -> AsyncIterator[None]:
        conn = await asyncpg.connect(dsn)
        await conn.execute(TABLES)
        async with (
            asyncpg.create_pool(dsn, min_size=4, max_size=8) as pool,
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0), auto_decompress=False
            ) as session,
        ):
            signer = Signer(store, "us-east-1", "key", "secret")
            bare = Pass(conn, pool, session, signer, f"http://{store}")
            app.router.add_post("/v1/faxes", bare.receive)
            app.router.add_get("/v1/faxes/{id}/content", bare.read)
            app.router.add_post("/v1/faxes/{id}/actions/deliver", bare.deliver)
            task = asyncio.create_task(bare.commit())
            yield
            task.cancel()

    app = web.Application(client_max_size=1 << 20)
    app.cleanup_ctx.append(running)
    return app


if __name__ == "__main__":
    port, database, host = sys.argv[1:]
    web.run_app(
        application(database, host),
        host="127.0.0.1",
        port=int(port),
        print=None,
        access_log=None,
        loop=uvloop.new_event_loop(),
    )
