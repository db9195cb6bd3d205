"""A disk or a token that hangs makes its calls unavailable, and holds up nobody."""

import asyncio
import threading

import pytest

from keys.custodians.calls import CallThread
from keys.errors import CustodianUnavailableError

LIMIT_SECONDS = 0.2


async def test_a_call_that_hangs_is_unavailable_until_it_answers() -> None:
    """The hung call and those behind it fail within the limit; afterwards all is well again."""
    calls, ended = CallThread("the drawer", LIMIT_SECONDS), threading.Event()
    loop = asyncio.get_running_loop()
    started = loop.time()
    hung = asyncio.create_task(calls.run(ended.wait))
    behind = asyncio.create_task(calls.run(lambda: "late"))
    for task in (hung, behind):
        with pytest.raises(CustodianUnavailableError, match="the drawer"):
            await task
    with pytest.raises(CustodianUnavailableError):
        await calls.run(lambda: "refused at once")
    assert loop.time() - started < 20 * LIMIT_SECONDS
    ended.set()
    async with asyncio.timeout(10):
        while True:
            try:
                assert await calls.run(lambda: "back") == "back"
                break
            except CustodianUnavailableError:
                await asyncio.sleep(0.01)


async def test_what_a_call_raises_comes_back() -> None:
    """An error of the call is the caller's, and the thread goes on."""

    def fail() -> None:
        raise ValueError("inside")

    calls = CallThread("the drawer", LIMIT_SECONDS)
    with pytest.raises(ValueError, match="inside"):
        await calls.run(fail)
    assert await calls.run(lambda: 1) == 1


async def test_a_thread_that_cannot_start_is_asked_for_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where the system has no thread to give, the call says so at once, and the next one works."""
    calls = CallThread("the drawer", LIMIT_SECONDS)
    with monkeypatch.context() as patched:

        def refuse(self: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        patched.setattr(threading.Thread, "start", refuse)
        for _ in range(2):
            with pytest.raises(CustodianUnavailableError, match="no thread can be started"):
                await calls.run(lambda: 1)
    assert await calls.run(lambda: 2) == 2
