"""The protocol of the key tree in every state it reaches, and without each of its rules."""

import pytest

from tests.model.checker import HARM, SCENARIOS, explore
from tests.model.rules import ALL, RULES


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_protocol_holds(name: str) -> None:
    """Every state within a scenario's bounds keeps every promise, some with sealed documents."""
    verdict = explore(SCENARIOS[name])
    assert verdict.broken is None, f"{verdict.broken}: {' > '.join(verdict.trace)}"
    assert verdict.sealed > 0


@pytest.mark.parametrize("rules", HARM, ids=", ".join)
def test_no_rule_can_be_left_out(rules: tuple[str, ...]) -> None:
    """Without the rule some order of events breaks a promise."""
    verdict = explore(SCENARIOS[HARM[rules]], ALL - set(rules))
    assert verdict.broken is not None, f"{rules}: {RULES[rules[0]]}: {verdict}"
    assert verdict.trace


@pytest.mark.parametrize("rule", ["finish first", "all up to"])
def test_either_of_two_rules_suffices(rule: str) -> None:
    """A seal that finishes what is left, and a claim that waits for it, stand in for each other."""
    verdict = explore(SCENARIOS["seals"], ALL - {rule})
    assert verdict.broken is None, f"{verdict.broken}: {' > '.join(verdict.trace)}"


def test_every_rule_is_tried() -> None:
    """The list of what does harm names each rule once."""
    assert sorted(rule for rules in HARM for rule in rules) == sorted(RULES)
