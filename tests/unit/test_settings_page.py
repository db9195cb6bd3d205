"""The page of settings says what the code says."""

from dataclasses import fields
from pathlib import Path

from tests.settings_page import PAGE, TABLES, page, refusal
from vault.config.settings import SECRETS, Config


def test_the_page_is_what_the_settings_say() -> None:
    """Sentence, unit, default, limits of each; write it anew with `tests.settings_page`."""
    assert PAGE.read_text() == page()


def test_each_setting_has_a_row() -> None:
    """By its name in the file and by its variable, once."""
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    for item in fields(Config):
        if item.name not in {"home", *TABLES}:
            start = f"| `{item.name}`<br>`PORTVAULT_{item.name.upper()}`"
            (row,) = [row for row in rows if row.startswith((f"{start} ", f"{start}<"))]
            assert (f"PORTVAULT_{item.name.upper()}_FILE" in row) >= (item.name in SECRETS)
            assert row.count(" | ") == 4


def test_a_limit_that_the_page_says_is_refused(tmp_path: Path) -> None:
    """What the page calls too small stops a start, and its smallest value does not."""
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    numbers = [row for row in rows if row.endswith(("| more than 0 |", "| 0 or more |"))]
    assert len(numbers) > 50
    for row in numbers:
        name = row.split("`")[1]
        assert refusal(name, "-1", tmp_path), name
        assert bool(refusal(name, "0", tmp_path)) == row.endswith("more than 0 |"), name
        assert not refusal(name, "1", tmp_path), name
