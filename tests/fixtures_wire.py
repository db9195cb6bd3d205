"""A wire to the test's database that stalls: what was sent may be done though nobody said so."""

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import parse_qs, urlsplit

import pytest


class Wire:
    """A wire to the database that can be stalled, in either direction."""

    def __init__(self, database: str) -> None:
        parts = urlsplit(database)
        self._socket = parse_qs(parts.query)["host"][0] + "/.s.PGSQL.5432"
        self._account, self._name = parts.username, parts.path
        self._server: asyncio.Server | None = None
        self._pumps: set[asyncio.Task[None]] = set()
        self.to_database, self.to_vault = asyncio.Event(), asyncio.Event()
        self.mend()

    async def start(self) -> str:
        """Listen, and return the address by which the database is reached over this wire."""
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        return f"postgresql://{self._account}@127.0.0.1:{port}{self._name}"

    def mend(self) -> None:
        """Let everything through again, what was held back first."""
        self.to_database.set()
        self.to_vault.set()

    def leave_stalled(self) -> None:
        """Stall the connections there are for ever; new ones go through."""
        self.to_database, self.to_vault = asyncio.Event(), asyncio.Event()
        self.mend()

    async def stop(self) -> None:
        """Cut everything."""
        assert self._server is not None
        self._server.close()
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)
        await self._server.wait_closed()

    async def _connected(self, near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        far, there = await asyncio.open_unix_connection(self._socket)
        for pump in (
            self._pump(near, there, self.to_database),
            self._pump(far, back, self.to_vault),
        ):
            self._pumps.add(asyncio.create_task(pump))

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, flows: asyncio.Event
    ) -> None:
        try:
            while data := await reader.read(65536):
                await flows.wait()
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()


@pytest.fixture
async def wire(database: str) -> AsyncIterator[Wire]:
    """Give a wire to the test's database."""
    made = Wire(database)
    yield made
    await made.stop()
