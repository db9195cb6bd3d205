"""Threads that run from the start: none has to be started when the system has none to give."""

import threading
from concurrent.futures import ThreadPoolExecutor

from vault.errors import ConfigurationError


def running_threads(count: int, name: str) -> ThreadPoolExecutor:
    """
    Return an executor whose threads all run already.

    By itself it starts each at the first call that finds no other idle, and keeps the call even
    where that fails: it would run at a later one, after whoever made it has given up. Raises
    `ConfigurationError` where the system does not have so many.
    """
    made, together = ThreadPoolExecutor(count, name), threading.Barrier(count + 1)
    try:
        for _ in range(count):
            made.submit(together.wait)
    except RuntimeError:
        together.abort()
        made.shutdown(wait=False, cancel_futures=True)
        raise ConfigurationError(
            f"the {count} threads {name!r} cannot be started: raise the limit of tasks "
            "(TasksMax= in a systemd unit, ulimit -u in a shell)"
        ) from None
    together.wait()
    return made
