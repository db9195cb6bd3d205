"""The tree's algorithm on its own: nodes in a dictionary, and random lives of a tree."""

import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keys.errors import IntegrityError
from keys.tree import FULL, Node, free_slot, open_path
from keys.wrap import SLOTS
from tests.forest import REGION, Forest

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["add", "add many", "beside", "shred", "shred many", "patch", "rekey"]),
        st.integers(0, 10**6),
    ),
    max_size=30,
)


def check_rekey(forest: Forest) -> None:
    """Re-key, and see that what had to be fresh is, and that nothing else was touched."""
    before, dirty = forest.keys(), set(forest.dirty)
    pages = {node.id: (node.epoch, node.page) for node in forest.nodes.values()}
    leaves = {forest.scopes[scope].node for scope in dirty}
    leaves |= {node.id for node in forest.nodes.values() if node.dirty}
    touched = forest.above(leaves)
    known = set(forest.made)
    done = forest.rekey()
    after = forest.keys()
    for one in {*touched, *dirty}:
        assert one not in after or after[one] not in known
    for one in set(after) - {*touched, *dirty, 1}:
        assert after[one] == before[one]
        if isinstance(one, int):
            assert (forest.nodes[one].epoch, forest.nodes[one].page) == pages[one]
    for one in touched & set(forest.nodes):
        assert forest.nodes[one].epoch == pages[one][0] + 1
    assert not any(node.dirty for node in forest.nodes.values())
    assert all(node.used for node in forest.nodes.values() if node.id != 1)
    assert {scope.id for scope in done.scopes} | set(done.dropped_scopes) == dirty
    assert {item.scope for item in forest.wraps.values()} == set(forest.scopes)
    forest.check()


def live(forest: Forest, what: str, chance: random.Random) -> None:
    """Let something happen to a tree."""
    match what:
        case "add" | "add many":
            for _ in range(chance.randrange(1, 90) if what == "add many" else 1):
                forest.add()
        case "beside" if forest.scopes:
            forest.add_beside(chance.choice(sorted(forest.scopes)))
        case "shred" | "shred many" if forest.wraps:
            most = len(forest.wraps) if what == "shred many" else 1
            for identity in chance.sample(sorted(forest.wraps), chance.randint(1, most)):
                forest.shred(identity)
        case "patch" if forest.dirty:
            forest.patch(set(chance.sample(sorted(forest.dirty), len(forest.dirty) // 2 + 1)))
        case "rekey":
            check_rekey(forest)


@settings(max_examples=150, deadline=None)
@given(STEPS)
def test_whatever_happens_to_a_tree(steps: list[tuple[str, int]]) -> None:
    """Living keys open, what was dirty and all above it is fresh, the rest is left alone."""
    forest = Forest()
    for what, seed in steps:
        live(forest, what, random.Random(seed))
        forest.check()
    check_rekey(forest)


def grown(scopes: int) -> Forest:
    """Return a tree of so many scopes."""
    forest = Forest()
    for _ in range(scopes):
        forest.add()
    return forest


@pytest.mark.parametrize(
    "scopes, level", [(0, 0), (1, 0), (60, 0), (61, 1), (120, 1), (3600, 1), (3601, 2), (3700, 2)]
)
def test_a_tree_grows_by_whole_levels(scopes: int, level: int) -> None:
    """Sixty scopes fit the root, 3,600 fit two levels, and one more asks for the next."""
    forest = grown(scopes)
    assert forest.root.level == level
    assert max((len(forest.path(s.node)) for s in forest.scopes.values()), default=1) == level + 1
    forest.check()


def test_a_tree_shrinks_by_whole_levels() -> None:
    """When a level is left with one node the root takes its page, until it is a leaf again."""
    forest = grown(3700)
    for wrapped in sorted(forest.wraps)[:3660]:
        forest.shred(wrapped)
    levels = [forest.root.level]
    for _ in range(3):
        check_rekey(forest)
        levels.append(forest.root.level)
    assert levels == sorted(levels, reverse=True)
    assert (levels[0], levels[-1], len(forest.scopes)) == (2, 0, 40)
    for wrapped in list(forest.wraps):
        forest.shred(wrapped)
    check_rekey(forest)
    assert (list(forest.nodes), forest.root.level, forest.root.used) == ([1], 0, 0)


def test_a_large_tree_is_touched_along_one_path_only() -> None:
    """One shred among 3,700 scopes re-keys one scope and one node a level."""
    forest = grown(3700)
    wrapped = forest.wraps[sorted(forest.wraps)[1234]]
    forest.add_beside(wrapped.scope)
    forest.shred(wrapped.id)
    path = [node.id for node in forest.path(forest.scopes[wrapped.scope].node)]
    done = forest.rekey()
    assert sorted(node.id for node in done.nodes) == sorted(path)
    assert [scope.id for scope in done.scopes] == [wrapped.scope]
    forest.check()


def test_a_patch_leaves_what_is_above_to_the_switch() -> None:
    """A patched scope is fresh at once; its leaf keeps its key, is dirty, and is fresh after."""
    forest = grown(100)
    wrapped = forest.wraps[min(forest.wraps)]
    forest.add_beside(wrapped.scope)
    leaf = forest.scopes[wrapped.scope].node
    before = forest.keys()
    forest.shred(wrapped.id)
    forest.patch({wrapped.scope})
    between = forest.keys()
    assert between[wrapped.scope] != before[wrapped.scope]
    assert between[leaf] == before[leaf]
    assert [node.id for node in forest.nodes.values() if node.dirty] == [leaf]
    check_rekey(forest)
    assert forest.keys()[leaf] != before[leaf]


def misplaced(change: Callable[[Node], None]) -> None:
    forest = grown(61)
    scope = forest.scopes[min(forest.scopes)]
    path = [replace(node) for node in forest.path(scope.node)]
    assert open_path(REGION, path, forest.root_key, scope.slot) == forest.scope_key(scope.id)
    change(path[-1])
    with pytest.raises(IntegrityError):
        open_path(REGION, path, forest.root_key, scope.slot)


@pytest.mark.parametrize(
    "field, value",
    [("parent", 99), ("slot", None), ("slot", 1), ("slot", 7), ("epoch", 2), ("id", 9)],
)
def test_a_node_that_is_misplaced_does_not_open(field: str, value: int | None) -> None:
    """A node with another parent, slot, epoch or id than its own is refused."""
    misplaced(lambda node: setattr(node, field, value))


def test_another_root_key_opens_no_path() -> None:
    """A path opens under its own root's key alone."""
    forest = grown(1)
    scope = next(iter(forest.scopes.values()))
    with pytest.raises(IntegrityError):
        open_path(REGION, [forest.root], forest.fresh(), scope.slot)


@given(st.integers(0, FULL - 1))
def test_the_lowest_free_slot(used: int) -> None:
    """The slot that is taken next is free, exists, and none below it is free."""
    slot = free_slot(used)
    assert 0 <= slot < SLOTS
    assert not used >> slot & 1
    assert used & ((1 << slot) - 1) == (1 << slot) - 1


def test_a_scope_has_an_epoch_that_a_row_can_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is drawn from 63 bits, all of them: a `bigint` of PostgreSQL, never negative."""
    forest = grown(2)
    for drawn, epoch in ((b"\xff" * 32, 2**63 - 1), (bytes(7) + b"\x02" + bytes(24), 1)):
        monkeypatch.setattr(forest, "fresh", partial(bytes, drawn))
        (scope, *_) = sorted(forest.scopes)
        forest.dirty.add(scope)
        assert [one.epoch for one in forest.rekey().scopes] == [epoch]
