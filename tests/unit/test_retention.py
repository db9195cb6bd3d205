"""Retention policy: complete, unambiguous, and explained."""

from datetime import UTC, datetime, timedelta
from importlib.resources import files

import pytest

from vault.domain.documents import Kind
from vault.domain.regions import REGIONS
from vault.domain.retention import explain, parse_policy
from vault.errors import ConfigurationError

SHIPPED = (files("vault") / "policy" / "retention.toml").read_text()
ROW = """
[[rows]]
kinds = ["passport"]
regions = ["uk"]
start_events = ["ported"]
keep_min = "at once"
keep_max = "P30D"
citation = "test"
"""


def test_the_shipped_policy_speaks_of_every_kind_in_every_region() -> None:
    """There is exactly one rule for each kind and region, with a source."""
    policy = parse_policy(SHIPPED)
    assert set(policy) == {(kind, region) for kind in Kind for region in REGIONS}
    assert all(rule.citation for rule in policy.values())


def test_one_order_keeps_its_authorisation_after_the_scan_is_gone() -> None:
    """The passport goes when the port completes; the letter of authorisation stays its year."""
    policy = parse_policy(SHIPPED)
    ended = datetime(2026, 1, 1, tzinfo=UTC)
    grace = timedelta(hours=1)
    assert policy[Kind.PASSPORT, "uk"].due_at(ended, grace) == ended + grace
    assert policy[Kind.LOA, "uk"].floor_at(ended) == ended + timedelta(days=365)


@pytest.mark.parametrize(
    "old, new, says",
    [
        ('"P30D"', '"0"', "ambiguous"),
        ('"P30D"', '"P0D"', "ambiguous"),
        ('"P30D"', "30", "ambiguous"),
        ('keep_min = "at once"', 'keep_min = "P31D"', "at least longer than at most"),
        ('"passport"', '"selfie"', "unknown kind"),
        ('"uk"', '"mars"', "unknown kind or region"),
        ('"ported"', '"full moon"', "start at"),
        ('citation = "test"', 'citation = " "', "source"),
        ('citation = "test"', "", "exactly"),
        (ROW, ROW + ROW, "again"),
        (ROW, ROW, "no row for"),
        (ROW, "rows", "cannot be read"),
    ],
)
def test_a_bad_policy_is_refused_with_its_row(old: str, new: str, says: str) -> None:
    """What is ambiguous, contradictory or missing stops the start."""
    with pytest.raises(ConfigurationError, match=says):
        parse_policy(ROW.replace(old, new))


def test_the_explanation_is_a_sentence() -> None:
    """It says why a document is here, and until when."""
    rule = parse_policy(SHIPPED)[Kind.PASSPORT, "uk"]
    waiting = explain(rule, None, timedelta(0))
    assert waiting.due_at is None
    assert "while the porting order is open" in waiting.sentence
    ended = datetime(2026, 3, 1, tzinfo=UTC)
    assert explain(rule, ended, timedelta(0)).due_at == ended
