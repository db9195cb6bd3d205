"""
Blocking calls in one thread of their own, that answer within a time or count as unavailable.

A disk that is gone or a token that hangs can hold a thread for ever, and nothing can interrupt it.
So whoever talks to one has a single thread, which is a daemon: it holds up neither another call
for longer than the limit nor the end of the process.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, ParamSpec, TypeVar

from keys.errors import CustodianUnavailableError

P = ParamSpec("P")
T = TypeVar("T")

LIMIT_SECONDS = 10.0
#: A thread without work ends after so long, and the next call starts another.
IDLE_SECONDS = 1.0


class CallThread:
    """Runs one call after the other; `name` says in errors what did not answer."""

    def __init__(self, name: str, limit_seconds: float = LIMIT_SECONDS) -> None:
        self._name, self._limit = name, limit_seconds
        self._waiting: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._changed = threading.Condition()
        self._runs = False
        self._since: float | None = None

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a call in the thread; while an older one hangs, fail at once."""
        since = self._since
        if since is not None and time.monotonic() - since > self._limit:
            raise self._silent()
        future = self._submit(lambda: function(*args, **kwargs))
        try:
            async with asyncio.timeout(self._limit):
                # Cancelled with the task: a call that still waits for its turn never runs.
                return await asyncio.wrap_future(future)
        except TimeoutError:
            raise self._silent() from None

    def _silent(self) -> CustodianUnavailableError:
        return CustodianUnavailableError(
            f"{self._name} has not answered for {self._limit:g} seconds: see that it works; it is "
            "asked again as soon as it answers"
        )

    def _submit(self, call: Callable[[], T]) -> "Future[T]":
        future: Future[T] = Future()
        with self._changed:
            self._waiting.append((future, call))
            self._changed.notify()
            if not self._runs:
                thread = threading.Thread(target=self._work, name=self._name, daemon=True)
                try:
                    thread.start()
                except RuntimeError:
                    # The system has no thread to give; the next call asks it again.
                    self._waiting.pop()
                    raise CustodianUnavailableError(
                        f"no thread can be started to ask {self._name}: raise the limit of tasks "
                        "(TasksMax= in a systemd unit, ulimit -u in a shell)"
                    ) from None
                self._runs = True
        return future

    def _next(self) -> tuple[Future[Any], Callable[[], Any]] | None:
        with self._changed:
            if not self._waiting:
                self._changed.wait(IDLE_SECONDS)
            if self._waiting:
                return self._waiting.popleft()
            self._runs = False
            return None

    def _work(self) -> None:
        while (job := self._next()) is not None:
            future, call = job
            if not future.set_running_or_notify_cancel():
                continue
            self._since = time.monotonic()
            try:
                future.set_result(call())
            except BaseException as error:  # noqa: BLE001 - handed to whoever asked
                future.set_exception(error)
            finally:
                self._since = None
            # Neither the result nor a key in the call's frame is to live until the next call.
            del job, future, call
