"""Retention: one rule from policy and facts to a time, a sentence and a source."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vault.domain.documents import Kind
from vault.domain.regions import REGIONS
from vault.domain.retention import (
    Event,
    Facts,
    Instruction,
    Rule,
    State,
    Verdict,
    conflicts,
    floor_sentence,
    judge,
    loosens,
    parse_policy,
)

POLICY = parse_policy((files("vault") / "policy" / "retention.toml").read_text())
ENDED = datetime(2026, 1, 1, tzinfo=UTC)
GRACE = timedelta(hours=1)
HOLD = UUID(int=7)


def facts(kind: str, region: str = "uk", event: Event = Event.PORTED, **more: Any) -> Facts:
    """Return facts of a document whose time began on New Year's Day."""
    return replace(Facts(kind, region, event, ENDED, ENDED), **more)


def instructed(days: int, *, nearest: bool = False) -> Instruction:
    """Return an instruction to keep so many days."""
    return Instruction(UUID(int=1), timedelta(days=days), nearest)


def of_documents() -> list[Rule]:
    return [rule for rule in POLICY.values() if rule.kind in set(Kind)]


@pytest.mark.parametrize("rule", of_documents(), ids=lambda r: f"{r.row}-{r.kind}-{r.event}")
def test_each_row_is_what_judges(rule: Rule) -> None:
    """For each row of the policy: the ceiling counts from its event, never before the grace."""
    verdict = judge(facts(rule.kind, rule.region, rule.event), POLICY, GRACE)
    assert verdict.rule is rule
    wait = timedelta(0) if rule.event is Event.STORED else GRACE
    assert verdict.due_at == ENDED + max(rule.keep_max, wait)
    assert verdict.citation == rule.citation
    assert (verdict.state is State.OPEN) == (rule.event is Event.STORED)
    if rule.event is not Event.STORED:
        assert verdict.floor_at == ENDED + rule.keep_min


def test_one_order_keeps_its_authorisation_after_the_scan_is_gone() -> None:
    """The passport goes when the port completes; the letter of authorisation stays its year."""
    assert judge(facts("passport"), POLICY, GRACE).due_at == ENDED + GRACE
    assert judge(facts("loa"), POLICY, GRACE).floor_at == ENDED + timedelta(days=365)


def test_an_end_that_was_heard_of_late_has_its_grace_still() -> None:
    """A reversal can reopen custody within the grace after the vault learned of the end."""
    late = facts("passport", learned_at=ENDED + timedelta(days=3))
    assert judge(late, POLICY, GRACE).due_at == ENDED + timedelta(days=3) + GRACE


def test_while_the_order_is_open() -> None:
    """Nothing goes but what stands still too long; where a port brings a floor, none is known."""
    passport = judge(facts("passport", event=Event.STORED), POLICY, GRACE)
    assert (passport.state, passport.floor_at) == (State.OPEN, ENDED)
    assert "while the porting order is open" in passport.sentence
    letter = judge(facts("loa", event=Event.STORED), POLICY, GRACE)
    assert letter.floor_at is None
    assert "floor after the port" in floor_sentence(letter)


@pytest.mark.parametrize(
    "days, nearest, state, kept",
    [
        (365, False, State.SCHEDULED, 365),
        (400, False, State.SCHEDULED, 400),
        (730, False, State.SCHEDULED, 730),
        (364, False, State.CONFLICT, 730),
        (731, False, State.CONFLICT, 730),
        (364, True, State.SCHEDULED, 365),
        (9999, True, State.SCHEDULED, 730),
    ],
)
def test_an_instruction_decides_between_floor_and_ceiling(
    days: int, nearest: bool, state: State, kept: int
) -> None:
    """Outside it is a conflict under the ceiling, until somebody resolves it to the nearest."""
    verdict = judge(facts("loa", instruction=instructed(days, nearest=nearest)), POLICY, GRACE)
    assert verdict.state is state
    assert verdict.due_at == ENDED + timedelta(days=kept)
    assert ("somebody has to resolve" in verdict.sentence) == (state is State.CONFLICT)


def test_a_hold_stops_everything() -> None:
    """Under a hold there is no time at which it goes, and the sentence says what would be."""
    verdict = judge(facts("passport", holds=(HOLD,), instruction=instructed(0)), POLICY, GRACE)
    assert (verdict.state, verdict.due_at) == (State.HELD, None)
    assert verdict.sentence.startswith("A hold keeps it")
    assert "Without: The porting order was ported" in verdict.sentence
    both = judge(facts("passport", holds=(HOLD, UUID(int=8))), POLICY, GRACE)
    assert both.sentence.startswith("A hold keeps it")


def test_an_instruction_names_what_it_contradicts() -> None:
    """For one kind or for all, each rule that does not allow it is named."""
    found = conflicts(timedelta(days=400), "loa", "uk", POLICY)
    assert [(rule.kind, rule.event) for rule in found] == [("loa", Event.CANCELLED)]
    assert conflicts(timedelta(days=400), "loa", "us", POLICY)[0].keep_min == timedelta(days=730)
    everything = conflicts(timedelta(days=9999), None, "hk", POLICY)
    assert {rule.kind for rule in everything} >= set(Kind)


@pytest.mark.parametrize(
    "rule",
    [rule for rule in of_documents() if rule.event is not Event.STORED],
    ids=lambda r: f"{r.row}-{r.kind}-{r.event}",
)
def test_an_instruction_may_say_exactly_the_least_and_the_most(rule: Rule) -> None:
    """Floor and ceiling themselves contradict nothing; a day less or more does."""
    day = timedelta(days=1)
    for keep, named in (
        (rule.keep_min, False),
        (rule.keep_max, False),
        (rule.keep_min - day, True),
        (rule.keep_max + day, True),
    ):
        assert (rule in conflicts(keep, rule.kind, rule.region, POLICY)) is named
        assert (rule in conflicts(keep, None, rule.region, POLICY)) is named


@given(
    st.sampled_from(sorted(Kind)),
    st.sampled_from(REGIONS),
    st.sampled_from([Event.PORTED, Event.CANCELLED]),
    st.none() | st.builds(instructed, st.integers(0, 4000), nearest=st.booleans()),
    st.integers(0, 10_000_000),
)
def test_no_instruction_leaves_the_policy(
    kind: str, region: str, event: Event, instruction: Instruction | None, late: int
) -> None:
    """Whatever a customer asks for, it goes neither under its floor nor after its ceiling."""
    learned_at = ENDED + timedelta(seconds=late)
    verdict = judge(
        facts(kind, region, event, instruction=instruction, learned_at=learned_at), POLICY, GRACE
    )
    rule = POLICY[kind, region, event]
    assert verdict.due_at is not None
    assert verdict.due_at >= ENDED + rule.keep_min
    assert verdict.due_at >= learned_at + GRACE
    assert verdict.due_at <= max(ENDED + rule.keep_max, learned_at + GRACE)


def test_the_sentence_says_the_time_at_which_it_goes() -> None:
    """Where an end waits for its reversal, the sentence has the same time as `due_at`."""
    for rule in of_documents():
        verdict = judge(facts(rule.kind, rule.region, rule.event), POLICY, GRACE)
        assert verdict.due_at is not None
        assert f"{verdict.due_at:%Y-%m-%d}" in verdict.sentence
        if rule.event is not Event.STORED and not rule.keep_max:
            assert "2026-01-01 at 01:00:00 UTC" in verdict.sentence
            assert "at once" not in verdict.sentence


@pytest.mark.parametrize(
    "before, after, loose",
    [
        # Days from now at which the floor is; None before the order has ended.
        (10, 9, True),
        (10, 10, False),
        (10, 11, False),
        (10, None, False),
        (1, -1, True),
        (0, -1, False),
        (-5, -9, False),
        (None, None, False),
        (None, 10, True),
        (None, -1, True),
    ],
)
def test_another_judgement_loosens_only_a_floor_that_still_counts(
    before: int | None, after: int | None, loose: bool
) -> None:
    """A floor that is over protects nothing; one that is not known yet protects all the time."""
    rule = of_documents()[0]

    def floor(days: int | None) -> Verdict:
        at = None if days is None else ENDED + timedelta(days=days)
        return Verdict(State.SCHEDULED, ENDED, at, "", rule)

    assert loosens(floor(before), floor(after), ENDED) is loose
