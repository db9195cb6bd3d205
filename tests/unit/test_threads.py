"""Threads are there before they are needed: the system may have none to give by then."""

import threading
from pathlib import Path

import pytest

from tests.fixtures_server import in_pieces
from vault.adapters.directory import THREADS, DirectoryStore
from vault.adapters.threads import running_threads
from vault.errors import ConfigurationError


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
