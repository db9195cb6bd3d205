"""The protocol's model holds in every order of events, and needs each of its rules."""

import pytest

from tests.simulation.key_explorer import BUDGETS, explore
from tests.simulation.key_protocol import RULES, Model
from tests.simulation.key_states import Left


@pytest.mark.parametrize("left", BUDGETS, ids=lambda left: "-".join(map(str, left)))
def test_the_promises_hold_in_every_state(left: Left) -> None:
    """No order of uploads, shreds, seals, crashes, fail-overs and restores breaks a promise."""
    states, broken, way = explore(Model(), left)
    assert broken is None, f"{broken}: {' > '.join(way)}"
    assert states > 5000


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_is_needed(rule: str) -> None:
    """Without the rule some order of events breaks a promise."""
    found = (explore(Model(rule), left)[1] for left in BUDGETS)
    assert any(found), f"nothing breaks without {rule!r}"
