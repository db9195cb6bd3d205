"""The lists of places in `docs/contributing.md` name what is there."""

import ast
import re
from pathlib import Path

import pytest

from vault.commands.parser import AREAS as COMMAND_AREAS
from vault.web.routes import AREAS, ROUTES

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/contributing.md").read_text()
#: What can be added, each with its list.
ADDITIONS = {
    "A kind of document",
    "A retention rule",
    "A region",
    "An HTTP route",
    "A command",
    "A role",
    "A custodian",
    "A carrier's webhook",
    "A setting",
    "A table",
}
PLACE = re.compile(r"`((?:[a-z_]+/)+[\w.-]*)`")
#: A name of the code, in the file that was named before it or is named behind it.
BEFORE, BEHIND = re.compile(r"`([A-Z][A-Z_]+)`"), re.compile(r"`([A-Z][A-Z_]+)` in (`[^`]+`)")
#: Where a path without a folder before it may be.
ROOTS = (ROOT / "vault", ROOT)


def sections() -> dict[str, list[str]]:
    """Return the numbered lines below each heading."""
    parts = re.split(r"(?m)^## (.+)$", PAGE)[1:]
    return {
        heading: re.findall(r"(?m)^\d+\. .+$", text)
        for heading, text in zip(parts[::2], parts[1::2], strict=True)
    }


def find(place: str) -> Path | None:
    """Return the file or folder that a place of the page is; None where there is none."""
    for root in ROOTS:
        for path in (root / place, root / f"{place}.py"):
            if path.exists():
                return path
    return None


def names_of(path: Path) -> set[str]:
    """Return the names that a module gives to values at its top."""
    found = set[str]()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
    return found


@pytest.mark.parametrize("heading", sorted(ADDITIONS))
def test_each_place_of_a_list_is_there(heading: str) -> None:
    """A file, a folder, or with `X` for a noun a floor."""
    places = [place for line in sections()[heading] for place in PLACE.findall(line)]
    assert places
    for place in places:
        assert find(place.removesuffix("X") if place.endswith("/X") else place), place


@pytest.mark.parametrize("heading", sorted(ADDITIONS))
def test_each_name_of_a_list_is_there(heading: str) -> None:
    """A table that is named stands in the file that is named with it."""
    for line in sections()[heading]:
        pairs = [(place.strip("`"), name) for name, place in BEHIND.findall(line)]
        rest = BEHIND.sub("", line)
        last: str | None = None
        for found in re.finditer(rf"{PLACE.pattern}|{BEFORE.pattern}", rest):
            if found[1]:
                last = found[1]
            elif last and not last.endswith("/X"):
                pairs.append((last, found[2]))
        for place, name in pairs:
            path = find(place)
            assert path, place
            assert path.is_file(), place
            assert name in names_of(path), f"{name} in {place}"


def test_each_addition_has_its_list() -> None:
    """A list that is new, or gone, is so here, too."""
    lists = {heading for heading, lines in sections().items() if any(map(PLACE.search, lines))}
    assert lists - {"Before a change goes in"} == ADDITIONS


def test_each_area_of_commands_and_routes_is_a_file_of_its_floor() -> None:
    """What `commands/parser` and `web/routes` list is found where the page says."""
    assert all((ROOT / f"vault/commands/{area.module}.py").is_file() for area in COMMAND_AREAS)
    handlers = {Path(str(route.handler.__code__.co_filename)) for route in ROUTES}
    assert handlers
    assert all(path.is_relative_to(ROOT / "vault/web") for path in handlers)
    listed = {id(route) for area in AREAS for route in area.routes}
    for path in sorted((ROOT / "vault/web").glob("*.py")):
        if path.stem != "routes" and "ROUTES" in names_of(path):
            module = __import__(f"vault.web.{path.stem}", fromlist=["ROUTES"])
            assert {id(route) for route in module.ROUTES} <= listed, path
