"""`docs/house.md` says what is there: the floors, and a sentence for each word of the code."""

import ast
import re
import tomllib
from importlib import import_module
from pathlib import Path
from typing import Any

from vault.config.settings import Config
from vault.web.problems import TYPES

ROOT = Path(__file__).parents[2]
HOUSE = (ROOT / "docs/house.md").read_text()
ROW = re.compile(r"(?m)^\| `([^`|]+)` \| (\S.*\.) \|$")


def sections() -> dict[str, str]:
    """Return the glossary's sections by their headings."""
    glossary = HOUSE[HOUSE.index("\n## Glossary\n") :]
    parts = re.split(r"(?m)^### (.+)$", glossary)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def named(text: str) -> list[str]:
    """Return the names of the code that a section says its words are from."""
    line = re.search(r"(?m)^In the code: (.+)\.$", text)
    return re.findall(r"`([\w.]+)`", line[1]) if line else []


def look_up(name: str) -> Any:
    """Return what the code has under a dotted name."""
    module, _, last = name.rpartition(".")
    return getattr(import_module(module), last)


def enumerations() -> set[str]:
    """Return the dotted name of each enumeration of words in `vault` and `keys`."""
    found = set[str]()
    for path in [*ROOT.glob("vault/**/*.py"), *ROOT.glob("keys/**/*.py")]:
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for node in ast.walk(ast.parse(path.read_text())):
            bases = [ast.unparse(base) for base in getattr(node, "bases", [])]
            if isinstance(node, ast.ClassDef) and any("Enum" in base for base in bases):
                found.add(f"{module}.{node.name}")
    return found


def test_each_enumeration_has_its_section() -> None:
    """Kinds, states, actions, purposes, roles, reasons and all others; each once."""
    told = [name for text in sections().values() for name in named(text)]
    assert len(told) == len(set(told))
    words = {name for name in told if not isinstance(look_up(name), str)}
    assert words == enumerations()


def test_each_word_has_its_sentence_and_nothing_else_does() -> None:
    """A section has the words of the code, in the code's order, each with a sentence."""
    for heading, text in sections().items():
        wanted = list[str]()
        for name in named(text):
            value = look_up(name)
            wanted += [value] if isinstance(value, str) else list(map(str, value))
        rows = [line for line in text.splitlines() if line.startswith("| `")]
        assert [found[0] for found in ROW.findall(text)] == wanted, heading
        assert len(rows) == len(wanted), heading
        assert named(text) or heading == "Words"


def test_each_word_of_the_design_has_one_meaning() -> None:
    """No word stands twice in the first table."""
    rows = re.findall(r"(?m)^\| ([a-z][a-z, -]+) \| (\S.*\.) \|$", sections()["Words"])
    words = [word for row, _ in rows for word in row.split(", ")]
    assert len(words) > 30
    assert len(words) == len(set(words))


def test_problem_types_and_settings_stand_where_the_glossary_says() -> None:
    """Each has a row with a sentence in the page that the glossary links to, and nothing else."""
    api, settings = ((ROOT / f"docs/{name}.md").read_text() for name in ("api", "settings"))
    told = re.findall(r"(?m)^\| `([a-z-]+)` \| \d{3} \| [^|]+ \| \S.*\. \|$", api)
    assert sorted(told) == sorted(kind.name for kind in TYPES)
    rows = re.findall(r"(?m)^\| `([a-z0-9_]+)`<br>", settings)
    tables = {"home", "region_settings", "webhooks"}
    assert set(rows) == set(Config.__dataclass_fields__) - tables


def test_the_map_has_the_floors_of_the_contract() -> None:
    """Each room stands on the floor that `pyproject.toml` puts it on."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    (layers,) = [one["layers"] for one in contracts["contracts"] if one["type"] == "layers"]
    wanted = [
        (str(floor), room)
        for floor, rooms in enumerate(layers, 1)
        for room in re.split(r" [|:] ", rooms)
    ]
    assert re.findall(r"(?m)^\| (\d+) \| `(\w+)` \| \S.* \|$", HOUSE) == wanted


def test_the_upload_is_counted_as_it_is_listed() -> None:
    """The number of files in the text is that of the files in the list."""
    life = HOUSE[HOUSE.index("\n## The life of an upload\n") : HOUSE.index("\n### Three callbacks")]
    steps = [line for line in life.splitlines() if re.match(r"\d+\. ", line)]
    files = list(dict.fromkeys(re.findall(r"`((?:vault|keys)/[\w/]+\.py)`", "\n".join(steps))))
    assert (told := re.search(r"\*\*(\d+) files\*\*", life))
    assert len(files) == int(told[1])
    parts = re.findall(r"(?m)^[A-Z][^\n]*?, (\d+) files", life)
    assert sum(map(int, parts)) == len(files)
