"""What several modules need has one home: action words in SQL, patterns, the kind of a fax."""

import ast
import importlib
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from vault.domain.access import Action
from vault.domain.documents import FAX

ROOT = Path(__file__).parents[2]
SPELLED = re.compile("|".join(re.escape(f"'{action}'") for action in Action))


def spelled(tree: ast.AST) -> Iterator[str]:
    """Yield the action words that the texts of a module spell between SQL's quotes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from SPELLED.findall(node.value)


def test_no_statement_spells_an_action() -> None:
    """A statement takes the word of an action from `Action`, so one that is renamed is found."""
    assert list(spelled(ast.parse("""f"where action = 'fax.read' and x = {y}" """))) == [
        "'fax.read'"
    ]
    found = {
        path.name: words
        for path in (ROOT / "vault/sql").glob("*.py")
        if (words := list(spelled(ast.parse(path.read_text()))))
    }
    assert found == {}


def own_values() -> Iterator[tuple[str, object]]:
    """Yield the module and the value of every constant that the domain's modules make."""
    for path in sorted((ROOT / "vault/domain").glob("*.py")):
        module = importlib.import_module(f"vault.domain.{path.stem}")
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                yield path.stem, getattr(module, node.targets[0].id)


def test_each_pattern_of_the_domain_has_one_home() -> None:
    """No two modules look at a text with the same pattern, and one says what a fax is called."""
    homes = defaultdict[str, list[str]](list)
    for module, value in own_values():
        if isinstance(value, re.Pattern):
            homes[f"{value.pattern!r} {value.flags}"].append(module)
        elif value == FAX:
            homes[FAX].append(module)
    assert homes[FAX] == ["documents"]
    assert len(homes) > 20
    assert {text: modules for text, modules in homes.items() if len(modules) > 1} == {}
