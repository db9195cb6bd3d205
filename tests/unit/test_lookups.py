"""Who wants the same at the same time waits for one look-up."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from keys.ground.cache import Lookups


class Slow:
    """A look-up that is held until it is let go; counts how often it was begun."""

    def __init__(self, *, fails: bool = False) -> None:
        self.begun, self.go, self._fails = 0, asyncio.Event(), fails

    def named(self, name: str) -> Callable[[], Coroutine[Any, Any, str]]:
        """Return the look-up of a name."""

        async def look_up() -> str:
            self.begun += 1
            await self.go.wait()
            if self._fails:
                raise LookupError(name)
            return name

        return look_up


async def ask(
    lookups: Lookups[str, str], slow: Slow, name: str, count: int
) -> list[asyncio.Task[str]]:
    """Ask so often at once, and return the tasks that wait."""
    tasks = [asyncio.create_task(lookups.share(name, slow.named(name))) for _ in range(count)]
    await asyncio.sleep(0.01)
    return tasks


async def test_one_look_up_serves_all_who_wait_and_no_other_name() -> None:
    """What ended is not kept: the next one looks again."""
    lookups, slow = Lookups[str, str](), Slow()
    tasks = await ask(lookups, slow, "a", 5) + await ask(lookups, slow, "b", 5)
    assert slow.begun == 2
    slow.go.set()
    assert await asyncio.gather(*tasks) == ["a"] * 5 + ["b"] * 5
    assert await lookups.share("a", slow.named("a")) == "a"
    assert slow.begun == 3


async def test_a_failure_is_everybodys_and_is_not_kept() -> None:
    """The next one looks again, and may find it."""
    lookups, slow = Lookups[str, str](), Slow(fails=True)
    tasks = await ask(lookups, slow, "a", 3)
    slow.go.set()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(error) for error in found] == [LookupError] * 3
    well = Slow()
    well.go.set()
    assert await lookups.share("a", well.named("a")) == "a"


async def test_who_gives_up_takes_the_look_up_from_nobody() -> None:
    """Neither the first, who began it, nor all of them: then it ends unheard."""
    lookups, slow = Lookups[str, str](), Slow()
    first, second = await ask(lookups, slow, "a", 2)
    first.cancel()
    await asyncio.sleep(0)
    slow.go.set()
    assert await second == "a"
    failing = Slow(fails=True)
    (only,) = await ask(lookups, failing, "b", 1)
    only.cancel()
    with pytest.raises(asyncio.CancelledError):
        await only
    failing.go.set()
    await asyncio.sleep(0.01)
    assert slow.begun == failing.begun == 1


async def test_after_a_change_nobody_joins_what_was_begun_before() -> None:
    """Who waited already gets it; who asks now looks anew."""
    lookups, old, new = Lookups[str, str](), Slow(), Slow()
    (before,) = await ask(lookups, old, "a", 1)
    lookups.clear()
    (after,) = await ask(lookups, new, "a", 1)
    assert new.begun == 1
    old.go.set()
    assert await before == "a"
    (joined,) = await ask(lookups, new, "a", 1)
    assert new.begun == 1
    new.go.set()
    assert [await after, await joined] == ["a", "a"]
