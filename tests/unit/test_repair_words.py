"""Whatever a look can name has a remedy."""

import ast
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest

from keys.damage import Damage
from keys.keyring import Mend
from vault.actions.repair import Repaired, remedy
from vault.commands import output
from vault.commands.doctor_looks import rest_of
from vault.commands.keys import _text
from vault.sql.damage import Look

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


def test_a_repair_fits_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is alike to be done is said once; no line is longer than eighty columns."""
    monkeypatch.setattr(output, "_terminal_width", lambda: 80)
    damages = [
        Damage("uk", "does not open", "document", str(UUID(int=n)), "metadata") for n in (1, 2)
    ]
    mended = Damage("uk", "does not open", "key_node", "1", "page")
    mends = [Mend(item, False, remedy(item)) for item in damages]
    text = _text(
        Repaired("uk", (*mends, Mend(mended, True, "taken from the mirror"))), dry_run=True
    )
    assert max(len(line) for line in text.splitlines()) <= 80
    assert text.count("NOT MENDED") == text.count("sealed under the same key") == 1
    assert text.startswith("uk: 3 damaged, 2 of them left\n\nNOT MENDED:\n- document.metadata of ")
    assert text.endswith("- key_node.page of 1 in uk does not open\n  > taken from the mirror")


def test_the_doctor_says_how_far_the_look_at_rest_is() -> None:
    """When all had been looked at, what is done since, and from when on that is late."""
    now, hour = datetime(2026, 1, 9, tzinfo=UTC), timedelta(hours=1)
    assert rest_of(None, now, 3600) == ("ok", "the worker has not looked at the rest yet")
    began, whole = now - hour, now - 2 * hour
    verdict, said = rest_of(Look("orders", None, began, None, whole), now, 3600)
    assert verdict == "ok"
    assert "last at 2026-01-08T22:00:00Z" in said
    assert "since 2026-01-08T23:00:00Z: tree, mirror, documents, faxes done, orders under" in said
    assert rest_of(Look("log", None, began, whole, whole), now, 3600)[0] == "ok"
    for late in (Look("tree", None, now - 4 * hour, None), Look("tree", None, began, None, began)):
        verdict, said = rest_of(late, now + 3 * hour, 3600)
        assert (verdict, "let a worker run" in said) == ("warn", True)
