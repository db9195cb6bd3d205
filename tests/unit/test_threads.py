"""Threads are there before they are needed: the system may have none to give by then."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.fixtures_server import in_pieces
from vault.adapters.directory import THREADS, DirectoryStore
from vault.adapters.process import running_threads
from vault.errors import ConfigurationError

#: A server that reaches the limit of tasks while it serves, as an account that is not exempt.
STOPPED = """
import argparse, asyncio, os, resource, sys
from vault import cli
from vault.adapters import warm
async def serve():
    warm.warm()
    await asyncio.to_thread(os.getpid)
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    try:
        threading.Thread(target=print).start()
    except RuntimeError:
        print("no thread")
    await asyncio.to_thread(print, "last")
import threading
cli._runner(argparse.Namespace(serves=True))(serve())
print("stopped")
"""


def refuse(self: threading.Thread) -> None:
    """Be a system without threads."""
    raise RuntimeError("can't start new thread")


async def test_a_store_needs_no_thread_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many pieces as it has threads are written at once, and nothing is left half-way."""
    store = DirectoryStore(tmp_path / "objects")
    names = threading.active_count()
    monkeypatch.setattr(threading.Thread, "start", refuse)
    for number in range(2 * THREADS):
        await store.put(f"documents/{number}", in_pieces(bytes(1 << 20)), size_bytes=1 << 20)
    monkeypatch.undo()
    assert threading.active_count() == names
    assert list((tmp_path / "objects" / ".partial").iterdir()) == []
    await store.close()


def test_threads_that_cannot_start_are_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the start, with what to do, and none of them stays behind."""
    before, start = set(threading.enumerate()), threading.Thread.start
    room = [threading.Thread.start] * 2

    def start_two(self: threading.Thread) -> None:
        if not room:
            refuse(self)
        room.pop()
        start(self)

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start_two)
        with pytest.raises(ConfigurationError, match="ulimit -u"):
            running_threads(4, "some")
    for thread in set(threading.enumerate()) - before:
        thread.join(timeout=10)
    assert set(threading.enumerate()) <= before


def test_a_server_stops_where_no_thread_can_be_started() -> None:
    """With the limit of tasks reached the loop ends as ever, its threads with it."""
    command = [sys.executable, "-c", STOPPED]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "no thread\nlast\nstopped\n"), done.stderr
