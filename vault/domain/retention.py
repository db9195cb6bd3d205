"""
Retention: why a document is here, until when, and what stands in the way.

One pure function says it, from the policy and the facts about a document; the worker shreds by it,
requests are refused by it, and every answer quotes it. The document's time counts from when it was
stored while its order is open, and from the order's end afterwards. Between floor and ceiling the
customer's instruction decides; outside it is a conflict, which somebody has to resolve. A hold
stops all of that. Restriction (GDPR art. 18) forbids reading and changes nothing here.
"""

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

from vault.domain.documents import FAX, Kind, parse_kind
from vault.domain.regions import REGIONS
from vault.domain.text import parse_days
from vault.errors import ConfigurationError, InvalidRequestError

# ---- Retention policy as data: how long each kind is kept in each region, and why. --------------
#
# A row says from which event the time counts, the floor (`keep_min`: law or industry practice,
# which nobody undercuts), the ceiling (`keep_max`: then it goes), and its source. Policy that is
# ambiguous, contradictory or incomplete is refused with the row's name.

AT_ONCE = "at once"
DAYS_MAX = 36_500
_NAME = re.compile(r"[a-z][a-z0-9-]{0,39}")
_COLUMNS = frozenset(
    {"name", "kinds", "regions", "start_events", "keep_min", "keep_max", "citation"}
)


class Event(StrEnum):
    """What starts the time."""

    STORED = "stored"
    PORTED = "ported"
    CANCELLED = "cancelled"
    DELIVERED = "delivered"
    ACCOUNT_CLOSED = "account_closed"


# What the policy speaks of beside documents: kinds that the vault holds in other tables, and those
# that the group keeps elsewhere, whose published times stand here so that one place answers.
ORDER_DETAILS = "order_details"
_ENDS = frozenset({Event.PORTED, Event.CANCELLED})
EVENTS: dict[str, frozenset[Event]] = {
    **dict.fromkeys(map(str, Kind), _ENDS | {Event.STORED}),
    FAX: frozenset({Event.STORED, Event.DELIVERED}),
    ORDER_DETAILS: _ENDS,
    "call_recording": frozenset({Event.STORED}),
    "call_detail_record": frozenset({Event.STORED}),
    "billing_record": frozenset({Event.STORED}),
    "account_correspondence": frozenset({Event.ACCOUNT_CLOSED}),
    "customer_invoice": frozenset({Event.STORED}),
}


@dataclass(frozen=True, slots=True)
class Rule:
    """One kind in one region after one event: floor, ceiling, and the source."""

    row: str
    kind: str
    region: str
    event: Event
    keep_min: timedelta
    keep_max: timedelta
    citation: str

    @property
    def key(self) -> tuple[str, str, Event]:
        """Return what a policy has one rule for."""
        return self.kind, self.region, self.event


Policy = dict[tuple[str, str, Event], Rule]


def parse_policy(text: str) -> Policy:
    """Return the rule of every kind, region and event; raises `ConfigurationError` naming a row."""
    try:
        rows = tomllib.loads(text)["rows"]
    except (ValueError, KeyError, RecursionError) as error:
        raise ConfigurationError(f"the retention policy cannot be read: {error}") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ConfigurationError("the retention policy must be a list of [[rows]]")
    policy: Policy = {}
    names = set[str]()
    for position, row in enumerate(rows, start=1):
        where = _name(position, row)
        if row["name"] in names:
            raise ConfigurationError(f"{where}: another row has this name")
        names.add(row["name"])
        for rule in _parse_row(where, row):
            if (other := policy.get(rule.key)) is not None:
                raise ConfigurationError(
                    f"{where} speaks of {rule.kind} in {rule.region} after {rule.event} again; "
                    f"row {other.row!r} does already"
                )
            policy[rule.key] = rule
    for kind, events in EVENTS.items():
        for region in REGIONS:
            for event in sorted(events):
                if (kind, region, event) not in policy:
                    raise ConfigurationError(
                        f"the retention policy has no row for {kind} in {region} after {event}"
                    )
    return policy


def _name(position: int, row: dict[str, object]) -> str:
    name = row.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"retention row {position} must have a name of small letters, digits and dashes"
        )
    return f"retention row {name!r}"


def _parse_row(where: str, row: dict[str, object]) -> Iterator[Rule]:
    if set(row) != _COLUMNS:
        raise ConfigurationError(f"{where} must have exactly {', '.join(sorted(_COLUMNS))}")
    kinds, regions, events = (
        _words(where, column, row[column]) for column in ("kinds", "regions", "start_events")
    )
    if unknown := (set(kinds) - set(EVENTS)) or (set(regions) - set(REGIONS)):
        raise ConfigurationError(f"{where} names an unknown kind or region: {min(unknown)}")
    for kind in kinds:
        if not set(events) <= EVENTS[kind]:
            raise ConfigurationError(
                f"{where}: the time of {kind} must start at {' or '.join(sorted(EVENTS[kind]))}"
            )
    citation = row["citation"]
    if not isinstance(citation, str) or not citation.strip():
        raise ConfigurationError(f"{where} must say its source in citation")
    floor, ceiling = (
        _parse_row_duration(where, column, row[column]) for column in ("keep_min", "keep_max")
    )
    if floor > ceiling:
        raise ConfigurationError(f"{where} keeps at least longer than at most")
    if Event.STORED in events and floor:
        raise ConfigurationError(f"{where}: a floor counts from an end, not from {Event.STORED}")
    for kind in kinds:
        for region in regions:
            for event in events:
                yield Rule(
                    str(row["name"]),
                    kind,
                    region,
                    Event(event),
                    floor,
                    ceiling,
                    " ".join(citation.split()),
                )


def _words(where: str, column: str, value: object) -> list[str]:
    if not isinstance(value, list) or not value or not all(isinstance(word, str) for word in value):
        raise ConfigurationError(f"{where} must list words in {column}")
    return value


def _parse_row_duration(where: str, column: str, value: object) -> timedelta:
    try:
        return parse_duration(value)
    except ValueError as error:
        raise ConfigurationError(f"{where}, {column}: {error}") from None


def parse_duration(value: object) -> timedelta:
    """Return the time that "P30D" or "at once" means; raises ValueError for all that is unclear."""
    if value == AT_ONCE:
        return timedelta(0)
    days = parse_days(value)
    if days is None or days > DAYS_MAX:
        raise ValueError(f'write a duration as "P30D", or "at once"; {value!r} is ambiguous')
    return timedelta(days=days)


def duration_text(duration: timedelta) -> str:
    """Return what `parse_duration` was given."""
    return f"P{duration.days}D" if duration else AT_ONCE


def check_faxes(policy: Policy) -> None:
    """
    Raise `ConfigurationError` for a rule of faxes that the vault cannot follow.

    A fax is shredded in the transaction that says it was delivered, and one that came waits for its
    delivery for a day at least. Asked of a policy that is to be put in force; what is in force from
    an earlier release is read as it is.
    """
    for region in REGIONS:
        delivered = policy[FAX, region, Event.DELIVERED]
        if delivered.keep_max:
            raise ConfigurationError(
                f'retention row {delivered.row!r}: keep_max must be "{AT_ONCE}", since a fax is '
                "shredded when it is delivered"
            )
        waiting = policy[FAX, region, Event.STORED]
        if not waiting.keep_max:
            raise ConfigurationError(
                f'retention row {waiting.row!r}: keep_max must be "P1D" or more, since a fax that '
                "came in waits for its delivery"
            )


def fax_custody(policy: Policy, region: str) -> Rule:
    """Return the rule whose `keep_max` says how long a fax of the region waits for its delivery."""
    return policy[FAX, region, Event.STORED]


@dataclass(frozen=True, slots=True)
class Change:
    """One rule that another policy changes."""

    old: Rule
    new: Rule

    @property
    def shortens(self) -> bool:
        """Whether something may go earlier: that needs a second person."""
        return self.new.keep_max < self.old.keep_max or self.new.keep_min < self.old.keep_min

    def __str__(self) -> str:
        def span(rule: Rule) -> str:
            return f"{duration_text(rule.keep_min)} to {duration_text(rule.keep_max)}"

        rule = self.new
        return (
            f"{rule.kind} in {rule.region} after {rule.event}: {span(self.old)} becomes "
            f"{span(rule)} (row {rule.row!r})"
        )


def changes(old: Policy, new: Policy) -> list[Change]:
    """Return the rules whose times differ."""
    return [
        Change(old[key], rule)
        for key, rule in sorted(new.items())
        if (rule.keep_min, rule.keep_max) != (old[key].keep_min, old[key].keep_max)
    ]


# ---- What customers ask for, between the policy's floor and its ceiling. ------------------------


@dataclass(frozen=True, slots=True)
class GivenInstruction:
    """One instruction of a customer, for one kind or for all that have none of their own."""

    id: UUID
    region: str
    customer: str
    kind: str | None
    keep: timedelta
    reference: str | None
    given_by: str
    given_at: datetime
    #: Who resolved its conflicts: it is followed as nearly as the policy allows.
    nearest_by: str | None = None
    nearest_at: datetime | None = None
    withdrawn_by: str | None = None
    withdrawn_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class InstructionView:
    """An instruction and the rules that it contradicts; resolved or withdrawn, it has none."""

    instruction: GivenInstruction
    conflicts: tuple[Rule, ...]


def check_keep(text: str) -> timedelta:
    """Return how long to keep; "0" and the like are ambiguous and refused."""
    try:
        return parse_duration(text)
    except ValueError as error:
        raise InvalidRequestError(f"keep: {error}") from None


def check_kind(text: str | None) -> str | None:
    """Return the kind by its name or an alias; None stands for all kinds."""
    if text is None:
        return None
    kind = parse_kind(text)
    if kind is None:
        raise InvalidRequestError(f"there is no kind {text[:40]!r}")
    return kind.value


# ---- Retention. ---------------------------------------------------------------------------------


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
    when = f"{_day(due_at)}, {_span(keep)}{' after that' if keep else ''}"
    if due_at > facts.started_at + keep:
        # The day alone would say a time that is not the one at which it goes.
        when = f"{due_at:%Y-%m-%d at %H:%M:%S} UTC, when the end can be reversed no more"
    sentence = (
        f"The porting order was {facts.event} on {_day(facts.started_at)}; the document goes on "
        f"{when}: {why}."
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
