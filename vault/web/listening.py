"""Listens: the server on its address, with TLS where a certificate is configured."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from aiohttp import web

from vault.config import Config
from vault.context import Vault
from vault.errors import ConfigurationError
from vault.web.server import SHUTDOWN_SECONDS, make_app
from vault.web.tls import renew_certificate, tls_context


@asynccontextmanager
async def serving(config: Config, vault: Vault) -> AsyncIterator[str]:
    """Serve within the block, and give the address."""
    context = tls_context(config)
    runner = web.AppRunner(
        make_app(vault),
        access_log=None,
        shutdown_timeout=SHUTDOWN_SECONDS,
        keepalive_timeout=config.idle_seconds,
    )
    await runner.setup()
    renewal = asyncio.create_task(renew_certificate(context, config)) if context else None
    try:
        site = web.TCPSite(runner, config.host, config.port, ssl_context=context)
        try:
            await site.start()
        except OSError as error:
            raise ConfigurationError(
                f"cannot listen on {config.host}:{config.port}: {error.strerror}; "
                "set PORTVAULT_PORT to a free port"
            ) from error
        scheme = "https" if context else "http"
        yield f"{scheme}://{config.host}:{runner.addresses[0][1]}"
    finally:
        if renewal is not None:
            renewal.cancel()
            with suppress(asyncio.CancelledError):
                await renewal
        await runner.cleanup()
