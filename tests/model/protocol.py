"""
The protocol as steps: from one state of the world to every state that may come next.

Nothing is timed: a step happens whenever its conditions hold, so every order of an upload, a shred,
a seal, a copy to the bucket, a crash, a fail-over and a restore is tried. A seal is steps of its
own; between any two of them it may be lost.
"""

from collections.abc import Iterator
from functools import cache
from typing import Any

from tests.model import changes
from tests.model.changes import Rules
from tests.model.states import Database, State, Wrap, mask, mask_of

Step = tuple[str, State]
UPLOADED, ORDERED, NEW_SCOPE = 3, 4, 2


_cached_restore = cache(changes.restored)


def restore(state: State, database: Database, rules: Rules) -> Database | None:
    """Return what the restore procedure makes of a database; None when it refuses."""
    return _cached_restore(database, state.mirror, state.custodian, state.published, rules)


def behind(state: State) -> bool:
    """Whether the primary sees that it was rolled back: the bucket or the custodian know more."""
    primary = state.primary
    return (
        primary.generation not in state.custodian
        or primary.copies < state.mirror.copies
        or not state.published <= primary.log
    )


def commit(state: State, primary: Database, rules: Rules, **changed: Any) -> State:
    """Return the state with a new primary; what the database now calls sealed is claimed."""
    claimed = state.claimed | _sealed(primary, rules)
    after = state._replace(primary=primary, written=state.written | mask(primary), claimed=claimed)
    after = after._replace(**changed) if changed else after
    # A standby that is never promoted may as well have replayed everything.
    return after if after.left("failover") else after._replace(standby=primary)


@cache
def _sealed(database: Database, rules: Rules) -> frozenset[int]:
    if "all up to" in rules:
        limit = database.destroyed_up_to
        return frozenset(document for document, note in database.noted if note <= limit)
    states = dict(database.generations)
    return frozenset(
        document for document, note in database.noted if states.get(note) == "destroyed"
    )


def forget_steps() -> None:
    """Forget what was computed of databases."""
    _cached_restore.cache_clear()
    _sealed.cache_clear()


def steps(state: State, rules: Rules) -> Iterator[Step]:
    """Yield every step that may come next, with the state it leads to."""
    if "guard" not in rules or not behind(state):
        yield from _documents(state, rules)
        yield from _sealing(state, rules)
        yield from _copies(state, rules)
    if "gate reads again" not in rules or not behind(state):
        yield from _ending(state, rules)
    yield from _misfortunes(state, rules)


def _documents(state: State, rules: Rules) -> Iterator[Step]:
    primary = state.primary
    first = primary.scope(0)
    if state.upload is None and state.left("upload") and first is not None:
        wrap = Wrap(UPLOADED, 0, first.epoch, first.key)
        yield "begin upload", state._replace(upload=wrap, budget=state.spend("upload"))
    if state.upload is not None:
        yield from _end_upload(state, state.upload, rules)
    for document in sorted(primary.stored):
        if state.left(f"shred {document}"):
            after = changes.shred(primary, [document], rules)
            budget = state.spend(f"shred {document}")
            shredded = state.shredded | {document}
            step = commit(state, after, rules, budget=budget, shredded=shredded)
            yield f"shred {document}", step
    if state.left("order"):
        after = changes.add_order(primary, NEW_SCOPE, ORDERED, rules)
        yield "new order", commit(state, after, rules, budget=state.spend("order"))
    target = primary.scope(1)
    if state.left("move") and target is not None and any(w.document == 0 for w in primary.wraps):
        after = changes.move(primary, 0, target, rules)
        yield "move 0", commit(state, after, rules, budget=state.spend("move"))


def _end_upload(state: State, wrap: Wrap, rules: Rules) -> Iterator[Step]:
    scope = state.primary.scope(wrap.scope)
    if "foreign key" not in rules or (scope is not None and scope.epoch == wrap.epoch):
        after = changes.upload(state.primary, wrap)
        yield "end upload", commit(state, after, rules, upload=None)
    elif scope is None:
        yield "give up upload", state._replace(upload=None)
    else:
        again = wrap._replace(epoch=scope.epoch, under=scope.key)
        yield "wrap upload again", state._replace(upload=again)


def _sealing(state: State, rules: Rules) -> Iterator[Step]:
    primary = state.primary
    match state.seal:
        case None:
            yield from _begin_seal(state, rules)
        case ("named", int(number)):
            edges = [] if "no chain" in rules else [(("g", number), ("g", primary.generation))]
            yield (
                f"create {number}",
                state._replace(
                    custodian=state.custodian | {number},
                    written=state.written | mask_of(edges),
                    seal=("created", number),
                ),
            )
        case ("created", int(number)):
            after = changes.switch(primary, number, rules)
            yield f"switch to {number}", commit(state, after, rules, seal=None, remembered=number)
    if state.seal is not None and state.left("crash"):
        yield "crash", state._replace(seal=None, budget=state.spend("crash"))


def _begin_seal(state: State, rules: Rules) -> Iterator[Step]:
    primary = state.primary
    for scope in primary.scopes:
        if scope.dirty and state.left("patch"):
            after = changes.patch(primary, scope, rules)
            yield f"patch {scope.id}", commit(state, after, rules, budget=state.spend("patch"))
    finished = not primary.retired or "finish first" not in rules
    if state.left("seal") and finished and (primary.dirty or _left_half_done(primary)):
        known = state.custodian if "adopt strangers" in rules else frozenset[int]()
        named = changes.adopt(primary, known)
        taken = {number for number, _ in primary.generations}
        number = max(taken | state.custodian if "new numbers" in rules else taken) + 1
        after = changes.set_state(named, number, "intended")
        yield (
            f"name {number}",
            commit(state, after, rules, seal=("named", number), budget=state.spend("seal")),
        )


def _left_half_done(primary: Database) -> bool:
    return any(state in ("intended", "retired") for _, state in primary.generations)


def _copies(state: State, rules: Rules) -> Iterator[Step]:
    primary = state.primary
    if state.seal is None and primary != state.mirror and state.left("mirror"):
        copied = primary._replace(copies=primary.copies + 1)
        yield "mirror", state._replace(primary=copied, mirror=copied, budget=state.spend("mirror"))
    if not primary.log <= state.published:
        yield "publish", state._replace(published=state.published | primary.log)


def _ending(state: State, rules: Rules) -> Iterator[Step]:
    """Destroy what is retired, one generation at a time, and write it down."""
    primary = state.primary
    if state.seal is not None:
        return
    due = primary.retired
    if "later ones wait" not in rules:
        due = [number for number, what in primary.generations if what == "retired"]
    if "gate reads again" not in rules:
        # The process goes on with what it remembers of its own switch.
        due = [number for number in state.custodian if number < state.remembered]
    if not due or not _gate(state, rules):
        return
    number = max(due) if "highest first" in rules else min(due)
    if number in state.custodian:
        yield f"destroy {number}", state._replace(custodian=state.custodian - {number})
    elif dict(primary.generations).get(number) == "retired":
        after = changes.forget_gone(changes.set_state(primary, number, "destroyed"))
        yield f"write down {number}", commit(state, after, rules)


def _gate(state: State, rules: Rules) -> bool:
    primary = state.primary
    head = (primary.generation, primary.node(0).key)
    if "gate reads again" not in rules:
        head = (state.remembered, state.mirror.node(0).key)
    mirrored = (state.mirror.generation, state.mirror.node(0).key) == head
    replayed = (state.standby.generation, state.standby.node(0).key) == (
        primary.generation,
        primary.node(0).key,
    )
    return (mirrored or "mirror first" not in rules) and (replayed or "standbys first" not in rules)


def _misfortunes(state: State, rules: Rules) -> Iterator[Step]:
    primary, standby = state.primary, state.standby
    if state.left("failover") and standby != primary:
        yield "replay", state._replace(standby=primary)
        promoted = standby._replace(timeline=_next_timeline(state))
        kept = None if "uploads end" in rules else state.upload
        yield (
            "fail over",
            state._replace(
                primary=promoted,
                standby=promoted,
                seal=None,
                upload=kept,
                budget=state.spend("failover"),
            ),
        )
    if state.left("backup"):
        yield (
            "back up",
            state._replace(backups=(*state.backups, primary), budget=state.spend("backup")),
        )
    if state.left("restore"):
        for index, backup in enumerate(state.backups):
            yield from _restored(state, f"restore backup {index}", backup, "restore", rules)
    if behind(state):
        yield from _restored(state, "restore in place", primary, "", rules)


def _restored(
    state: State, name: str, database: Database, spends: str, rules: Rules
) -> Iterator[Step]:
    merged = restore(state, database, rules)
    if merged is None:
        return
    merged = merged._replace(timeline=_next_timeline(state))
    yield (
        name,
        commit(
            state,
            merged,
            rules,
            standby=merged,
            seal=None,
            upload=None,
            budget=state.spend(spends),
        ),
    )


def _next_timeline(state: State) -> int:
    known = (state.primary, state.standby, state.mirror, *state.backups)
    return 1 + max(database.timeline for database in known)
