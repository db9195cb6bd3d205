"""
What libraries load or start when it is first needed, there before a server serves.

A file that is opened on the loop holds up everybody, and where no descriptor is left it can fail
half-way: a library that then keeps its lock hangs the process for good. So nothing is left to load,
and no thread to start, not even to stop.
"""

import asyncio
import importlib
import mimetypes
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import uvloop
from phonenumbers.phonemetadata import PhoneMetadata

from vault.adapters.process import running_threads

#: Names are resolved in them, and small files read.
THREADS = 16


class ServerLoop(uvloop.Loop):
    """
    The loop of a server, which ends without starting a thread.

    Any other starts one to wait for the end of its executor's, and where the system has none to
    give, a stop that was clean until then would fail.
    """

    _threads: ThreadPoolExecutor | None = None

    def set_default_executor(self, executor: Any) -> None:
        """Run blocking calls in the executor, and wait for their end at the stop."""
        self._threads = executor
        super().set_default_executor(executor)

    async def shutdown_default_executor(self, *timeout: Any) -> None:
        """Wait until the executor's threads have ended; nothing else runs on the loop by then."""
        if self._threads is None:
            # No call was made in a thread, or none has been prepared: as any loop does.
            await super().shutdown_default_executor(*timeout)
            return
        self._threads.shutdown()


def warm() -> None:
    """Load what the jobs of a server need on the loop that runs; takes about half a second."""
    asyncio.get_running_loop().set_default_executor(running_threads(THREADS, "loop"))
    importlib.import_module("vault.adapters.public_resolver")
    PhoneMetadata.load_all()
    mimetypes.init()
