"""The decisions: one file each, an index that has each once, no reference that leads nowhere."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DECISIONS = ROOT / "docs/decisions"
FILES = sorted(DECISIONS.glob("[0-9]*.md"))
HEAD = re.compile(
    r"# (?P<number>\d+)\. (?P<title>.+)\n\n"
    r"Status: (?P<status>in force|superseded by \d+|changed by \d+(?:, \d+)*)\n"
    r"Area: (?P<area>[a-z][a-z ]*)\n\n"
    r"(?=\S)"
)
#: "decision 7", "decisions 77 to 80", "decision [81](0081-…)": the word, and what follows it.
REFERENCE = re.compile(
    r"\b[Dd]ecisions? (\[?\d+(?:\]\([^)]*\))?(?:(?:,| and| to) \[?\d+(?:\]\([^)]*\))?)*)"
)
PLACES = ("vault", "keys", "tests", "docs", "migrations", "scripts", ".ci")
TEXTS = {".py", ".md", ".sql", ".toml", ".sh", ".html", ".txt", ""}


def heads() -> dict[int, re.Match[str]]:
    """Return the first lines of each decision, by the number in its file's name."""
    found = dict[int, re.Match[str]]()
    for path in FILES:
        head = HEAD.match(path.read_text())
        assert head, f"{path.name}: number and title, status, area, a line each"
        found[int(path.name[:4])] = head
    return found


def references(text: str) -> set[int]:
    """Return the numbers of the decisions that a text names."""
    named = " ".join(re.sub(r"\]\([^)]*\)", "]", found[1]) for found in REFERENCE.finditer(text))
    links = re.findall(r"decisions/(\d{4})-[a-z0-9-]+\.md", text)
    return {int(number) for number in [*re.findall(r"\d+", named), *links]}


def test_each_decision_is_numbered_and_has_title_status_and_area() -> None:
    """Numbers run on from 1, and the one in the file's name is the one in its title."""
    found = heads()
    assert list(found) == list(range(1, len(found) + 1))
    assert [int(head["number"]) for head in found.values()] == list(found)
    assert len({head["title"] for head in found.values()}) == len(found)
    assert all(re.fullmatch(r"\d{4}(-[a-z0-9]+)+\.md", path.name) for path in FILES)
    assert not (ROOT / "docs/decisions.md").exists()


def test_what_replaces_a_decision_is_a_later_one() -> None:
    """A status names decisions that exist and came later."""
    found = heads()
    for number, head in found.items():
        later = [int(one) for one in re.findall(r"\d+", head["status"])]
        assert all(number < one <= len(found) for one in later), f"{number}: {head['status']}"


def test_the_index_has_each_decision_once() -> None:
    """Number, title, status and file of each stand in the table of its area, in order."""
    wanted = list[tuple[str, str, str, str, str]]()
    for path, head in zip(FILES, heads().values(), strict=True):
        wanted.append((head["area"], head["number"], head["title"], path.name, head["status"]))
    shown, area = list[tuple[str, str, str, str, str]](), ""
    for line in (DECISIONS / "README.md").read_text().splitlines():
        if line.startswith("## "):
            area = line[3:].lower()
        elif row := re.fullmatch(r"\| (\d+) \| \[(.+)\]\(([^()]+)\) \| (.+) \|", line):
            shown.append((area, row[1], row[2], row[3], row[4]))
    assert sorted(shown) == sorted(wanted)
    for name in {area for area, *_ in shown}:
        numbers = [int(number) for area, number, *_ in shown if area == name]
        assert numbers == sorted(numbers), name


@pytest.mark.parametrize(
    "text, named",
    [
        ("see decision 7.", {7}),
        ("Decisions 77 to 80, in 2026", {77, 80}),
        ("decision [81](0081-own-s3-client.md) and one more", {81}),
        ("[why](decisions/0012-canary.md)", {12}),
        ("a decision of 3 people", set[int]()),
    ],
)
def test_a_reference_is_found(text: str, named: set[int]) -> None:
    """In whatever form it stands."""
    assert references(text) == named


def test_no_reference_leads_to_a_decision_that_is_not_there() -> None:
    """Code, tests, migrations and documents name decisions that exist, by files that exist."""
    files = [path for place in PLACES for path in (ROOT / place).rglob("*") if path.is_file()]
    files += [path for path in ROOT.iterdir() if path.is_file()]
    names, numbers = {path.name for path in FILES}, set(heads())
    texts = [path for path in files if path.suffix in TEXTS and "node_modules" not in path.parts]
    assert len(texts) > 300
    for path in texts:
        if path == Path(__file__):
            continue
        text = path.read_text(errors="replace")
        assert references(text) <= numbers, path
        linked = re.findall(r"(?:decisions/|\]\()(\d{4}-[a-z0-9-]+\.md)", text)
        assert set(linked) <= names, path
        assert "docs/decisions.md" not in text, path
