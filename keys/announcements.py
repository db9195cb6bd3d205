"""Listens for seals: whoever keeps unwrapped keys drops them when one is announced."""

import asyncio
import logging
from collections.abc import Callable

import asyncpg

from keys.generations import CHANNEL
from keys.rows import AWAY

RECONNECT_SECONDS = 1.0
CONNECT_SECONDS = 5.0
#: An advisory lock that every listener shares, so that a restore can make sure that it is alone.
SERVING = 0x73657276  # "serv"

log = logging.getLogger(__name__)


async def listen(dsn: str, forget: Callable[[], None]) -> None:
    """
    Call `forget` at every seal, on a connection of its own, until cancelled.

    It is called as well when the connection was lost, since a seal may have been missed then.
    """
    while True:
        try:
            await _listen_once(dsn, forget)
        except AWAY:
            log.debug("not listening for seals; trying again")
        forget()
        await asyncio.sleep(RECONNECT_SECONDS)


async def _listen_once(dsn: str, forget: Callable[[], None]) -> None:
    lost = asyncio.Event()
    conn = await asyncpg.connect(dsn, timeout=CONNECT_SECONDS)
    try:
        conn.add_termination_listener(lambda _: lost.set())
        await conn.add_listener(CHANNEL, lambda *_: forget())
        forget()
        await conn.execute("select pg_advisory_lock_shared($1)", SERVING)
        await lost.wait()
    finally:
        conn.terminate()
