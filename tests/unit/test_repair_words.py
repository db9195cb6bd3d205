"""Whatever a look can name has a remedy."""

import ast
import re
from pathlib import Path

from keys.damage import Damage
from vault.actions.repair import remedy

ROOT = Path(__file__).parents[2]
TABLES = {
    name
    for path in (ROOT / "migrations").glob("*.sql")
    for name in re.findall(r"create table (\w+)", path.read_text())
}


def _named() -> set[str]:
    """Return the tables that stand in a module which makes a `Damage`."""
    found = set[str]()
    for path in (*(ROOT / "keys").rglob("*.py"), *(ROOT / "vault" / "actions").rglob("*.py")):
        text = path.read_text()
        if "Damage(" in text:
            nodes = ast.walk(ast.parse(text))
            found |= {str(node.value) for node in nodes if isinstance(node, ast.Constant)} & TABLES
    return found


def test_each_table_that_is_named_has_a_remedy() -> None:
    """Of the key tree it is a restore, of a key it may be what is above it."""
    named = _named()
    assert {"key_node", "key_tree", "key_scope", "data_key", "document", "fax"} <= named
    for table in named:
        how = remedy(Damage("uk", "does not open", table, "1"))
        tree = table.startswith("key_")
        assert ("the mirror has no copy" in how) == tree, (table, how)


def test_a_remedy_asks_for_nothing_that_the_damage_refuses() -> None:
    """An order whose details do not open cannot be corrected."""
    how = remedy(Damage("uk", "does not open", "porting_order", "1", "details"))
    assert "correct" not in how
    assert "backup" in how
