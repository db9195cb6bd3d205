"""
The checker: every state that the protocol reaches within a scenario's bounds, breadth first.

`python -m tests.model.checker` prints a line for each scenario, and for each rule what happens
without it.
"""

import gc
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.model.changes import Rules, planted
from tests.model.protocol import behind, forget_steps, restore, steps
from tests.model.rules import ALL
from tests.model.states import State, clear_caches, edges_in, edges_of, mask, reachable, readable


@dataclass(frozen=True)
class Scenario:
    """Where the model begins, and how often what may happen."""

    name: str
    place: str
    budget: tuple[tuple[str, int], ...]

    def begin(self) -> State:
        """Return the first state."""
        database = planted(self.place)
        return State(
            primary=database,
            standby=database,
            mirror=database,
            custodian=frozenset({database.generation}),
            written=mask(database),
            budget=self.budget,
        )


def _budget(words: str, *shreds: str) -> tuple[tuple[str, int], ...]:
    """Return how often each of the words is there."""
    return tuple(sorted(Counter([*words.split(), *shreds]).items()))


@dataclass(frozen=True)
class Verdict:
    """What an exploration found."""

    states: int
    seconds: float
    sealed: int
    broken: str | None = None
    trace: tuple[str, ...] = ()

    def __str__(self) -> str:
        found = f"{self.broken}: {' > '.join(self.trace)}" if self.broken else "holds"
        return f"{self.states:>8,} states {self.seconds:6.1f} s  {found}"


def broken(state: State, rules: Rules) -> str | None:
    """Return which promise a state breaks."""
    primary, custodian = state.primary, state.custodian
    known = reachable(custodian, state.written)
    if any(("d", document) in known for document in state.claimed):
        return "Erasure: what is called sealed can be learned"
    if any(child[0] == "g" for _, child in edges_in(state.written)):
        return "One path: a generation opens another"
    children = [child for _, child in edges_of(primary)]
    if len(children) != len(set(children)):
        return "One path: two ways lead to one key"
    for database in (primary, state.standby, state.mirror):
        if database.generation not in custodian:
            return "Gate: a generation that is needed was destroyed"
    if not behind(state):
        if not primary.stored <= readable(primary, custodian):
            return "No orphan: what the primary keeps does not open"
        shredded = {*state.published, *dict(primary.noted), *dict(state.mirror.noted)}
        if any(wrap.document in shredded for wrap in primary.wraps):
            return "No revival: what was shredded has a key again"
    living = primary.stored - state.shredded
    for database in {primary, state.standby, *state.backups}:
        merged = restore(state, database, rules)
        kept = readable(merged, custodian) if merged else frozenset()
        owed = database.stored
        if database.generation <= state.mirror.generation:
            # Its row may be in another backup.
            owed |= readable(state.mirror, custodian)
        if not living & owed <= kept:
            return "Survival: a restore loses what lives"
    return None


@contextmanager
def _fresh_caches() -> Iterator[None]:
    """
    Run the block with empty caches and without the garbage collector, and empty the caches again.

    States hold no cycles; looking for some among millions of tuples takes most of the time.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        clear_caches()
        forget_steps()
        yield
    finally:
        clear_caches()
        forget_steps()
        if collects:
            gc.enable()


def explore(scenario: Scenario, rules: Rules = ALL, limit: int = 5_000_000) -> Verdict:
    """Visit every state; stops at the first that breaks a promise, by one of the shortest ways."""
    with _fresh_caches():
        return _explore(scenario, rules, limit)


def _explore(scenario: Scenario, rules: Rules, limit: int) -> Verdict:
    began = time.perf_counter()
    first = scenario.begin()
    came: dict[State, tuple[State, str] | None] = {first: None}
    waiting, sealed = deque([first]), 0
    while waiting:
        state = waiting.popleft()
        sealed += bool(state.claimed)
        if (promise := broken(state, rules)) is not None:
            seconds = time.perf_counter() - began
            return Verdict(len(came), seconds, sealed, promise, _trace(came, state))
        for name, after in steps(state, rules):
            if after not in came:
                came[after] = state, name
                waiting.append(after)
        if len(came) > limit:
            raise MemoryError(f"{scenario.name} has more than {limit} states")
    return Verdict(len(came), time.perf_counter() - began, sealed)


def _trace(came: dict[State, tuple[State, str] | None], state: State) -> tuple[str, ...]:
    names = []
    while (before := came[state]) is not None:
        state, name = before
        names.append(name)
    return tuple(reversed(names))


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario(
            "seals",
            "two leaves",
            _budget("seal seal mirror mirror crash patch upload", "shred 0", "shred 2"),
        ),
        Scenario(
            "growth",
            "flat",
            _budget("seal seal mirror mirror crash patch order", "shred 0", "shred 2"),
        ),
        Scenario("move", "two leaves", _budget("seal seal mirror mirror move", "shred 0")),
        Scenario(
            "upload and fail-over",
            "one leaf",
            _budget("seal seal mirror mirror upload failover", "shred 0"),
        ),
        Scenario(
            "fail-over",
            "two leaves",
            _budget("seal seal mirror mirror failover", "shred 0", "shred 2"),
        ),
        Scenario(
            "restore",
            "one leaf",
            _budget("seal seal mirror mirror upload backup restore", "shred 0"),
        ),
        Scenario(
            "order and restore",
            "one leaf",
            _budget("seal mirror mirror order backup restore", "shred 4"),
        ),
        Scenario(
            "patch and restore",
            "two leaves",
            _budget("seal mirror mirror patch backup restore", "shred 2"),
        ),
        Scenario(
            "fail-over and restore",
            "one leaf",
            _budget("seal seal mirror failover backup restore", "shred 0", "shred 2"),
        ),
    )
}

#: The scenario in which the absence of rules does harm. Of the last two either suffices.
HARM = {
    ("fresh root key",): "seals",
    ("fresh scope keys",): "seals",
    ("fresh node keys",): "seals",
    ("patched leaf is dirty",): "seals",
    ("no chain",): "seals",
    ("push down under a fresh key",): "growth",
    ("a move dirties",): "move",
    ("foreign key",): "seals",
    ("mirror first",): "seals",
    ("standbys first",): "fail-over",
    ("gate reads again",): "fail-over",
    ("new numbers",): "fail-over",
    ("highest first",): "fail-over",
    ("adopt strangers",): "fail-over",
    ("later ones wait",): "fail-over and restore",
    ("note at the shred",): "seals",
    ("tombstones",): "fail-over",
    ("tombstones always",): "fail-over and restore",
    ("log on restore",): "fail-over",
    ("log without rows",): "order and restore",
    ("notes anew",): "fail-over and restore",
    ("merge keys",): "restore",
    ("later tree",): "restore",
    ("dirty scopes after restore",): "fail-over",
    ("dirty nodes after restore",): "patch and restore",
    ("guard",): "upload and fail-over",
    ("uploads end",): "upload and fail-over",
    ("finish first", "all up to"): "seals",
}


def main() -> None:
    """Print the table."""
    for scenario in SCENARIOS.values():
        print(f"{scenario.name:<29}", explore(scenario), flush=True)
    print("\nwithout:")
    for rules, name in HARM.items():
        verdict = explore(SCENARIOS[name], ALL - set(rules))
        print(f"{', '.join(rules):<29}", verdict, flush=True)


if __name__ == "__main__":
    main()
