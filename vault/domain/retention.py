"""
Retention policy as data: how long each kind is kept in each region, and why.

The floor (`keep_min`) is law or industry practice and cannot be undercut; at the ceiling
(`keep_max`) the document goes. Both count from the order's end. Policy that is incomplete or
contradicts itself is refused with the row's number.
"""

import re
import tomllib
from dataclasses import dataclass
from datetime import datetime, timedelta

from vault.domain.documents import Kind
from vault.domain.regions import REGIONS
from vault.errors import ConfigurationError

AT_ONCE = "at once"
START_EVENTS = frozenset({"ported", "cancelled"})
_DAYS = re.compile(r"P([1-9][0-9]{0,4})D")


@dataclass(frozen=True, slots=True)
class Rule:
    """One kind in one region: floor and ceiling after the start event, and the source."""

    kind: Kind
    region: str
    start_events: frozenset[str]
    keep_min: timedelta
    keep_max: timedelta
    citation: str

    def due_at(self, ended_at: datetime, grace: timedelta) -> datetime:
        """Return when the document goes: at the ceiling, and not before the grace has passed."""
        return ended_at + max(self.keep_max, grace)

    def floor_at(self, ended_at: datetime) -> datetime:
        """Return the moment before which nobody may have it shredded."""
        return ended_at + self.keep_min


Policy = dict[tuple[Kind, str], Rule]


def parse_policy(text: str) -> Policy:
    """Return the rule of every kind and region; raises `ConfigurationError` naming the row."""
    try:
        rows = tomllib.loads(text)["rows"]
    except (ValueError, KeyError) as error:
        raise ConfigurationError(f"the retention policy cannot be read: {error}") from error
    policy: Policy = {}
    for position, row in enumerate(rows, start=1):
        for rule in _parse_row(f"retention row {position}", row):
            if (rule.kind, rule.region) in policy:
                raise ConfigurationError(
                    f"retention row {position} speaks of {rule.kind} in {rule.region} again"
                )
            policy[rule.kind, rule.region] = rule
    for kind in Kind:
        for region in REGIONS:
            if (kind, region) not in policy:
                raise ConfigurationError(f"the retention policy has no row for {kind} in {region}")
    return policy


def _parse_row(name: str, row: dict[str, object]) -> list[Rule]:
    wanted = {"kinds", "regions", "start_events", "keep_min", "keep_max", "citation"}
    if set(row) != wanted:
        raise ConfigurationError(f"{name} must have exactly {', '.join(sorted(wanted))}")
    kinds, regions, events = (
        _words(name, row[key]) for key in ("kinds", "regions", "start_events")
    )
    if not set(kinds) <= set(Kind) or not set(regions) <= set(REGIONS):
        raise ConfigurationError(f"{name} names an unknown kind or region")
    if not events or not set(events) <= START_EVENTS:
        raise ConfigurationError(f"{name} must start at {' or '.join(sorted(START_EVENTS))}")
    if not isinstance(row["citation"], str) or not row["citation"].strip():
        raise ConfigurationError(f"{name} must say its source in citation")
    floor = _parse_duration(name, row["keep_min"])
    ceiling = _parse_duration(name, row["keep_max"])
    if floor > ceiling:
        raise ConfigurationError(f"{name} keeps at least longer than at most")
    return [
        Rule(
            Kind(kind),
            region,
            frozenset(events),
            floor,
            ceiling,
            row["citation"].strip(),
        )
        for kind in kinds
        for region in regions
    ]


def _words(name: str, value: object) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise ConfigurationError(f"{name} must list words")
    return value


def _parse_duration(name: str, value: object) -> timedelta:
    if value == AT_ONCE:
        return timedelta(0)
    match = _DAYS.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ConfigurationError(
            f'{name}: write a duration as "P30D", or "at once"; {value!r} is ambiguous'
        )
    return timedelta(days=int(match[1]))


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a document is here and until when; `due_at` is None while no event has started it."""

    due_at: datetime | None
    sentence: str
    citation: str


def explain(rule: Rule, ended_at: datetime | None, grace: timedelta) -> Explanation:
    """Say in a sentence why a stored document is kept and when it goes."""
    events = " or ".join(sorted(rule.start_events))
    if ended_at is None:
        sentence = f"kept while the porting order is open; its time starts when it is {events}"
        return Explanation(None, sentence, rule.citation)
    due_at = rule.due_at(ended_at, grace)
    sentence = f"the porting order ended on {ended_at.date()}; it goes on {due_at.date()}"
    return Explanation(due_at, sentence, rule.citation)
