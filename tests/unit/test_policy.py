"""Retention policy as data: complete, unambiguous, with its sources, and compared."""

from datetime import timedelta
from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vault.domain.documents import Kind
from vault.domain.regions import REGIONS
from vault.domain.retention import (
    DAYS_MAX,
    EVENTS,
    Event,
    changes,
    duration_text,
    parse_duration,
    parse_policy,
)
from vault.errors import ConfigurationError

SHIPPED = (files("vault") / "policy" / "retention.toml").read_text()
ROW = """
[[rows]]
name = "mine"
kinds = ["passport"]
regions = ["uk"]
start_events = ["ported"]
keep_min = "at once"
keep_max = "P30D"
citation = "test"
"""


def test_the_shipped_policy_is_complete() -> None:
    """There is exactly one rule for each kind, region and event, with a source."""
    policy = parse_policy(SHIPPED)
    assert set(policy) == {
        (kind, region, event)
        for kind, events in EVENTS.items()
        for region in REGIONS
        for event in events
    }
    assert all(rule.citation for rule in policy.values())


def test_what_is_not_sure_says_so() -> None:
    """Every row whose source was not read itself is for the operator to confirm."""
    read = {"loa-ported-uk", "order-details", "fax-delivered", "fax-undelivered"}
    unsure = {
        rule.row
        for rule in parse_policy(SHIPPED).values()
        if "Operator to confirm" not in rule.citation
    }
    assert unsure == read


@pytest.mark.parametrize(
    "kind, event, days",
    [
        ("call_recording", Event.STORED, 30),
        ("call_detail_record", Event.STORED, 730),
        ("billing_record", Event.STORED, 730),
        ("account_correspondence", Event.ACCOUNT_CLOSED, 730),
        ("customer_invoice", Event.STORED, 2555),
        ("fax", Event.STORED, 1),
        ("fax", Event.DELIVERED, 0),
    ],
)
def test_the_published_rows(kind: str, event: Event, days: int) -> None:
    """What the group publishes stands in the policy, in every region."""
    policy = parse_policy(SHIPPED)
    assert {policy[kind, region, event].keep_max for region in REGIONS} == {timedelta(days=days)}


@pytest.mark.parametrize(
    "old, new, says",
    [
        ('"P30D"', '"0"', "row 'mine', keep_max.*ambiguous"),
        ('"P30D"', '"P0D"', "ambiguous"),
        ('"P30D"', '"0 days"', "ambiguous"),
        ('"P30D"', "0", "ambiguous"),
        ('"P30D"', "30", "ambiguous"),
        ('"P30D"', f'"P{DAYS_MAX + 1}D"', "ambiguous"),
        ('keep_min = "at once"', 'keep_min = "P31D"', "row 'mine' keeps at least longer"),
        ('"passport"', '"selfie"', "row 'mine' names an unknown kind or region: selfie"),
        ('"uk"', '"mars"', "unknown kind or region: mars"),
        ('"ported"', '"full moon"', "row 'mine': the time of passport must start at"),
        ('"ported"', '"delivered"', "must start at"),
        ('["ported"]', "[]", "must list words in start_events"),
        ('["uk"]', '"uk"', "must list words in regions"),
        ('citation = "test"', 'citation = " "', "row 'mine' must say its source"),
        ('citation = "test"', "", "row 'mine' must have exactly"),
        ('name = "mine"', "", "row 1 must have a name"),
        ('name = "mine"', 'name = "M ine"', "row 1 must have a name"),
        (ROW, ROW + ROW, "another row has this name"),
        (ROW, ROW + ROW.replace("mine", "other"), "row 'other' speaks of passport.*'mine' does"),
        (ROW, ROW, "no row for passport in uk after"),
        (ROW, "rows", "cannot be read"),
        (ROW, "rows = 3", "must be a list"),
        (
            '["ported"]\nkeep_min = "at once"',
            '["stored"]\nkeep_min = "P1D"',
            "a floor counts from an end",
        ),
    ],
)
def test_a_bad_policy_is_refused_with_its_row(old: str, new: str, says: str) -> None:
    """What is ambiguous, contradictory or incomplete is refused, and the row is named."""
    assert old in ROW
    with pytest.raises(ConfigurationError, match=says):
        parse_policy(ROW.replace(old, new))


@given(st.integers(0, DAYS_MAX))
def test_durations_survive_encoding(days: int) -> None:
    """Parsing gives back what was written, "at once" too."""
    assert parse_duration(duration_text(timedelta(days=days))) == timedelta(days=days)


@pytest.mark.parametrize("text", ["0", "", "P", "P0D", "0D", "P1Y", "30", "P-1D", "P1D ", None, 0])
def test_what_is_ambiguous_is_no_duration(text: object) -> None:
    """Nothing but whole days, or "at once", says how long."""
    with pytest.raises(ValueError, match="ambiguous"):
        parse_duration(text)


def test_what_shortens_is_told_from_what_lengthens() -> None:
    """A lower floor or a lower ceiling shortens; a higher one does not."""
    old = parse_policy(SHIPPED)
    row = 'name = "loa-ported-uk"\nkinds = ["loa"]\nregions = ["uk"]\nstart_events = ["ported"]\n'
    assert row in SHIPPED
    given_row = row + 'keep_min = "P365D"\nkeep_max = "P730D"'
    for times, shortens in (
        ('keep_min = "P365D"\nkeep_max = "P729D"', True),
        ('keep_min = "P364D"\nkeep_max = "P800D"', True),
        ('keep_min = "P366D"\nkeep_max = "P731D"', False),
    ):
        found = changes(old, parse_policy(SHIPPED.replace(given_row, row + times)))
        assert [(change.new.kind, change.shortens) for change in found] == [(Kind.LOA, shortens)]
        assert "loa in uk after ported: P365D to P730D becomes" in str(found[0])
    assert changes(old, old) == []
