"""Explores the protocol's model: every state that any order of events leads to."""

from collections import deque

from tests.simulation.key_protocol import RULES, Model
from tests.simulation.key_states import Left, State, first

#: What may happen, from little to much; the last ones are for an evening.
BUDGETS = (
    Left(seals=1, failovers=0, restores=0, backups=0, patches=1, crashes=1),
    Left(seals=1, failovers=1, restores=0, backups=0, patches=1, crashes=0),
    Left(seals=1, failovers=0, restores=1, backups=1, patches=0, crashes=0),
    Left(seals=2, failovers=0, restores=1, backups=1, patches=0, crashes=0),
)
DEEP_BUDGETS = (
    Left(seals=2, failovers=1, restores=0, backups=0, patches=1, crashes=1),
    Left(seals=2, failovers=1, restores=1, backups=1, patches=0, crashes=0),
    Left(seals=2, failovers=0, restores=1, backups=1, patches=1, crashes=1),
)
STATES_MAX = 5_000_000


def explore(model: Model, left: Left, limit: int = STATES_MAX) -> tuple[int, str | None, list[str]]:
    """Visit every state, nearest first; returns how many, what broke, and the way there."""
    start = first(left)
    came: dict[State, tuple[State, str] | None] = {start: None}
    waiting = deque([start])
    while waiting:
        state = waiting.popleft()
        broken = model.broken(state)
        if broken:
            return len(came), broken, _way(came, state)
        for name, after in model.steps(state):
            if after not in came:
                came[after] = (state, name)
                waiting.append(after)
        if len(came) > limit:
            raise AssertionError(f"more than {limit} states")
    return len(came), None, []


def _way(came: dict[State, tuple[State, str] | None], state: State) -> list[str]:
    way = list[str]()
    while (step := came[state]) is not None:
        state, name = step
        way.append(name)
    return way[::-1]


def main() -> None:
    """Print how many states each budget has, and what each missing rule breaks."""
    for left in BUDGETS + DEEP_BUDGETS:
        states, broken, way = explore(Model(), left)
        print(f"{states:9} states, {broken or 'all promises hold'}: {left} {' > '.join(way)}")
    for rule in RULES:
        for left in BUDGETS:
            states, broken, way = explore(Model(rule), left)
            if broken:
                print(f"without {rule!r}: {broken} breaks by {' > '.join(way)}")
                break
        else:
            print(f"without {rule!r}: nothing breaks")


if __name__ == "__main__":
    main()
