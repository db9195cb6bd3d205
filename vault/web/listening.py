"""
Listens: the server on its address, with TLS where a certificate is configured.

At its end nothing that came in is left without an answer: what is asked is answered, uploads may
end within `shutdown_seconds`, and those that have not by then are refused with 503.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import cast

from aiohttp import web

from vault.config.settings import Config
from vault.context import Vault
from vault.errors import ConfigurationError
from vault.process.listener import Connections, Listener, Place, Room, listener, raise_descriptors
from vault.web.connection import LINGER_SECONDS, Connection
from vault.web.requests import STOPPING, Stopping
from vault.web.server import make_app
from vault.web.tls import networks, tls_certificate

#: What an answer may take once its body was refused, before the connection is cut.
LAST_SECONDS = 5.0
LOOK_SECONDS = 0.05


def open_account(config: Config) -> Connections:
    """Return the account of this process's connections, with every descriptor it may have."""
    return Connections(Room.of(config, raise_descriptors()), networks(config.trusted_proxies))


@asynccontextmanager
async def serving(
    config: Config, vault: Vault, connections: Connections | None = None
) -> AsyncIterator[str]:
    """Serve within the block, and give the address."""
    account = connections or open_account(config)
    certificate = tls_certificate(config)
    runner = web.AppRunner(make_app(vault, account), shutdown_timeout=LAST_SECONDS)
    await runner.setup()

    # It is there from `setup` to `cleanup`.
    server = cast(web.Server, runner.server)

    def answer(place: Place) -> Connection:
        return Connection(server, config, place)

    made = Listener(
        account,
        answer,
        context=certificate.context if certificate else lambda: None,
        handshake_seconds=config.tls_handshake_seconds,
    )
    keeping = asyncio.create_task(certificate.keep()) if certificate else None
    try:
        async with listener(made):
            try:
                port = await made.listen(config.host, config.port)
            except OSError as error:
                raise ConfigurationError(
                    f"cannot listen on {config.host}:{config.port}: {error.strerror}; "
                    "set PORTVAULT_PORT to a free port"
                ) from error
            host = f"[{config.host}]" if ":" in config.host else config.host
            yield f"{'https' if certificate else 'http'}://{host}:{port}"
    finally:
        if keeping is not None:
            keeping.cancel()
            with suppress(asyncio.CancelledError):
                await keeping
        await _let_end(runner.app[STOPPING], server, config.shutdown_seconds)
        await runner.cleanup()


async def _let_end(stopping: Stopping, server: web.Server, seconds: float) -> None:
    """Wait until every request has its answer; uploads that take longer than that get one, too."""
    stopping.begun = True
    refuse_at = time.monotonic() + seconds
    while _busy(server):
        now = time.monotonic()
        if now >= refuse_at:
            stopping.refuse()
        if now >= refuse_at + LINGER_SECONDS + LAST_SECONDS:
            break
        await asyncio.sleep(LOOK_SECONDS)


def _busy(server: web.Server) -> int:
    """Return how many connections are being answered; those that only wait are closed."""
    busy = 0
    for connection in server.connections:
        if isinstance(connection, Connection) and not connection.is_waiting():
            busy += 1
        else:
            connection.force_close()
    return busy
