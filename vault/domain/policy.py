"""
Retention policy as data: how long each kind is kept in each region, and why.

A row says from which event the time counts, the floor (`keep_min`: law or industry practice, which
nobody undercuts), the ceiling (`keep_max`: then it goes), and its source. Policy that is ambiguous,
contradictory or incomplete is refused with the row's name.
"""

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from vault.domain.documents import Kind
from vault.domain.regions import REGIONS
from vault.errors import ConfigurationError

AT_ONCE = "at once"
DAYS_MAX = 36_500
_DAYS = re.compile(r"P([1-9][0-9]{0,5})D")
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
FAX = "fax"
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
    match = _DAYS.fullmatch(value) if isinstance(value, str) else None
    if match is None or int(match[1]) > DAYS_MAX:
        raise ValueError(f'write a duration as "P30D", or "at once"; {value!r} is ambiguous')
    return timedelta(days=int(match[1]))


def duration_text(duration: timedelta) -> str:
    """Return what `parse_duration` was given."""
    return f"P{duration.days}D" if duration else AT_ONCE


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
