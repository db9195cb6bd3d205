"""
Retention: why a document is here, until when, and what stands in the way.

One pure function says it, from the policy and the facts about a document; the worker shreds by it,
requests are refused by it, and every answer quotes it. The document's time counts from when it was
stored while its order is open, and from the order's end afterwards. Between floor and ceiling the
customer's instruction decides; outside it is a conflict, which somebody has to resolve. A hold
stops all of that. Restriction (GDPR art. 18) forbids reading and changes nothing here.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

from vault.domain.policy import Event, Policy, Rule


@dataclass(frozen=True, slots=True)
class Instruction:
    """What a customer asked for: keep so long after the event. `nearest`: a conflict resolved."""

    id: UUID
    keep: timedelta
    nearest: bool = False


@dataclass(frozen=True, slots=True)
class Facts:
    """All that the retention of one stored document depends on."""

    kind: str
    region: str
    event: Event
    #: When that event was, by whoever reported it, and when the vault learned of it.
    started_at: datetime
    learned_at: datetime
    instruction: Instruction | None = None
    holds: tuple[UUID, ...] = ()


class State(StrEnum):
    """`open`: the order has not ended. `conflict`: policy and instruction contradict each other."""

    OPEN = "open"
    SCHEDULED = "scheduled"
    CONFLICT = "conflict"
    HELD = "held"


@dataclass(frozen=True, slots=True)
class Verdict:
    """
    When a document goes, or why it does not, in a sentence with its source.

    `due_at` is None under a hold. `floor_at` is the moment before which nobody may have it
    shredded; None where it cannot be said yet, because the floor counts from the order's end.
    """

    state: State
    due_at: datetime | None
    floor_at: datetime | None
    sentence: str
    rule: Rule

    @property
    def citation(self) -> str:
        """Return the source of the row that counts."""
        return self.rule.citation


def judge(facts: Facts, policy: Policy, grace: timedelta) -> Verdict:
    """Say when the document goes and why; `grace` is how long an end waits for its reversal."""
    rule = policy[facts.kind, facts.region, facts.event]
    if facts.event is Event.STORED:
        verdict = _while_open(facts, rule, policy)
    else:
        verdict = _after_the_end(facts, rule, grace)
    return _held(verdict) if facts.holds else verdict


def _while_open(facts: Facts, rule: Rule, policy: Policy) -> Verdict:
    ported = policy.get((facts.kind, facts.region, Event.PORTED))
    has_floor = ported is not None and ported.keep_min > timedelta(0)
    due_at = facts.started_at + rule.keep_max
    sentence = (
        "Kept while the porting order is open; its time starts when the order is ported or "
        f"cancelled. If neither happens it goes on {_day(due_at)}, {_span(rule.keep_max)} after it "
        "was stored."
    )
    floor_at = None if has_floor else facts.started_at
    return Verdict(State.OPEN, due_at, floor_at, sentence, rule)


def _after_the_end(facts: Facts, rule: Rule, grace: timedelta) -> Verdict:
    floor_at = facts.started_at + rule.keep_min
    keep, instructed = rule.keep_max, facts.instruction
    state, why = State.SCHEDULED, f"the most that row {rule.row!r} allows"
    if instructed is not None and rule.keep_min <= instructed.keep <= rule.keep_max:
        keep, why = instructed.keep, "as the customer instructed"
    elif instructed is not None and instructed.nearest:
        keep = min(max(instructed.keep, rule.keep_min), rule.keep_max)
        why = "as near to the customer's instruction as the policy allows"
    elif instructed is not None:
        state = State.CONFLICT
        side = "least" if instructed.keep < rule.keep_min else "most"
        why = (
            f"the most that row {rule.row!r} allows; the customer's instruction "
            f"({_span(instructed.keep)}) contradicts the {side} that it allows, and somebody has "
            "to resolve that"
        )
    due_at = max(facts.started_at + keep, facts.learned_at + grace)
    sentence = (
        f"The porting order was {facts.event} on {_day(facts.started_at)}; the document goes on "
        f"{_day(due_at)}, {_span(keep)}{' after that' if keep else ''}: {why}."
    )
    return Verdict(state, due_at, floor_at, sentence, rule)


def _held(verdict: Verdict) -> Verdict:
    # How many holds there are is for those who may see them.
    sentence = f"A hold keeps it, whatever its time is. Without: {verdict.sentence}"
    return Verdict(State.HELD, None, verdict.floor_at, sentence, verdict.rule)


def loosens(before: Verdict, after: Verdict, now: datetime) -> bool:
    """Whether a document that is judged otherwise could be shredded before its floor so far."""
    if before.floor_at is None:
        return after.floor_at is not None
    if before.floor_at <= now:
        return False
    return after.floor_at is not None and after.floor_at < before.floor_at


def floor_sentence(verdict: Verdict) -> str:
    """Say why a document may not be shredded on request, under its floor."""
    if verdict.floor_at is None:
        return f"kept until its floor after the port has passed: {verdict.citation}"
    return f"kept until {_day(verdict.floor_at)}: {verdict.citation}"


def conflicts(keep: timedelta, kind: str | None, region: str, policy: Policy) -> list[Rule]:
    """Return the rules that an instruction for a kind, or for all kinds, contradicts."""
    return [
        rule
        for rule in policy.values()
        if rule.region == region
        and rule.event in (Event.PORTED, Event.CANCELLED)
        and rule.kind == (kind or rule.kind)
        and not rule.keep_min <= keep <= rule.keep_max
    ]


def _span(duration: timedelta) -> str:
    return f"{duration.days} days" if duration else "at once"


def _day(at: datetime) -> str:
    return at.date().isoformat()
