"""Places that are shared: who asks much, or what takes long, waits behind the others."""

import asyncio
from typing import Any

import pytest

from vault.adapters import sandbox as fair_places
from vault.adapters.sandbox import SLOW_SECONDS, FairPlaces


class Clock:
    """The time, which passes only when it is told to."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Have the places see a clock that stands."""
    made = Clock()
    monkeypatch.setattr(fair_places, "time", made)
    return made


class Desk:
    """Questions to places, and the order in which they were let in."""

    def __init__(self, places: int) -> None:
        self.places, self.order = FairPlaces(places), list[str]()
        self.inside = dict[str, asyncio.Event]()

    def ask(self, name: str, sender: str) -> asyncio.Task[None]:
        return asyncio.create_task(self._ask(name, sender))

    async def _ask(self, name: str, sender: str) -> None:
        async with self.places.taken(sender):
            self.order.append(name)
            self.inside[name] = asyncio.Event()
            await self.inside[name].wait()

    async def answered(self, name: str) -> None:
        self.inside[name].set()
        await settle()


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_who_sends_much_delays_others_by_one_question(clock: Clock) -> None:
    """Twenty questions of one sender wait; one of another is next, not the twenty-first."""
    desk = Desk(1)
    tasks = [desk.ask(f"a{number}", "a") for number in range(20)]
    await settle()
    tasks.append(desk.ask("b", "b"))
    await settle()
    clock.now += 0.1
    await desk.answered("a0")
    assert desk.order == ["a0", "b"]
    for task in tasks:
        task.cancel()


async def test_turns_are_measured_in_time_and_not_in_questions(clock: Clock) -> None:
    """Whose questions take a hundred times as long gets one turn for a hundred of the other."""
    desk, tasks = Desk(1), list[Any]()
    for number in range(400):
        tasks += [desk.ask(f"slow{number}", "slow"), desk.ask(f"quick{number}", "quick")]
    await settle()
    for turn in range(303):
        name = desk.order[turn]
        clock.now += 10.0 if name.startswith("slow") else 0.1
        await desk.answered(name)
    slow = [name for name in desk.order if name.startswith("slow")]
    assert 3 <= len(slow) <= 5
    for task in tasks:
        task.cancel()


async def test_a_slow_sender_never_holds_the_last_place(clock: Clock) -> None:
    """Of several places one stays for others, as soon as a sender is known to be slow."""
    desk = Desk(3)
    first = desk.ask("a0", "a")
    await settle()
    clock.now += SLOW_SECONDS * 2
    tasks = [desk.ask(f"a{number}", "a") for number in range(1, 9)]
    await settle()
    assert desk.order == ["a0", "a1"]
    tasks.append(desk.ask("b", "b"))
    await settle()
    assert desk.order == ["a0", "a1", "b"]
    for task in [first, *tasks]:
        task.cancel()


async def test_a_quick_sender_may_have_all_places(clock: Clock) -> None:
    """One gateway alone is as fast as the machine."""
    desk = Desk(2)
    tasks = [desk.ask(f"a{number}", "a") for number in range(4)]
    await settle()
    assert desk.order == ["a0", "a1"]
    clock.now += SLOW_SECONDS / 2
    await desk.answered("a0")
    assert desk.order == ["a0", "a1", "a2"]
    for task in tasks:
        task.cancel()


async def test_who_was_away_has_saved_nothing_up(clock: Clock) -> None:
    """A sender that comes late begins at what the others have used, and shares from there."""
    desk = Desk(1)
    tasks = [desk.ask(f"a{number}", "a") for number in range(50)]
    await settle()
    for number in range(10):
        clock.now += 1.0
        await desk.answered(f"a{number}")
    tasks += [desk.ask(f"b{number}", "b") for number in range(50)]
    await settle()
    for turn in range(10, 30):
        clock.now += 1.0
        await desk.answered(desk.order[turn])
    assert 9 <= sum(name.startswith("b") for name in desk.order[10:30]) <= 11
    for task in tasks:
        task.cancel()


@pytest.mark.parametrize("turn_had_come", [False, True])
async def test_who_is_cancelled_gives_the_place_back(clock: Clock, turn_had_come: bool) -> None:
    """Whether it waited or was just let in, its place is another's, and nothing is remembered."""
    desk = Desk(1)
    first, second = desk.ask("a", "a"), desk.ask("b", "b")
    await settle()
    if turn_had_come:
        desk.inside["a"].set()
        await asyncio.sleep(0)
    second.cancel()
    await settle()
    if not turn_had_come:
        await desk.answered("a")
    await first
    assert second.cancelled()
    third = desk.ask("c", "c")
    await settle()
    assert desk.order[-1] == "c"
    await desk.answered("c")
    await third
    assert (desk.places.free, len(desk.places._senders)) == (1, 0)


async def test_so_many_senders_are_remembered(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many come once, who used most stays known, and waits behind who comes anew."""
    monkeypatch.setattr(fair_places, "REMEMBERED_MAX", 10)
    places = FairPlaces(1)
    for number, seconds in enumerate([100.0] + [0.1] * 200):
        async with places.taken(f"sender {number}"):
            clock.now += seconds
    assert len(places._senders) == 10
    desk = Desk(1)
    desk.places = places
    tasks = [desk.ask("first", "new")]
    await settle()
    tasks += [desk.ask("much", "sender 0"), desk.ask("little", "another")]
    await settle()
    await desk.answered("first")
    assert desk.order == ["first", "little"]
    for task in tasks:
        task.cancel()
