"""What commands print: text for people, or JSON with `--json`; and progress on a terminal."""

import json
import os
import re
import shutil
import sys
from contextlib import suppress
from datetime import UTC, datetime
from textwrap import fill, wrap
from types import TracebackType
from typing import Any, Self

from vault.domain.people import called
from vault.domain.text import said_time

#: What is said where a list is empty.
NOTHING = "nothing found"
#: Narrower than this a last column is not wrapped.
LAST_COLUMN_MIN = 24
_TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d)")


def show(answer: Any, text: str, *, as_json: bool, exact: bool = False) -> None:
    """Print an answer; text fits the terminal, unless it is to be copied exactly as it is."""
    said = text if exact else fitted(text)
    print(json.dumps(answer, indent=2, default=_plain) if as_json else said, flush=True)


def tell(line: str) -> None:
    """Say a line beside the answer, on standard error: wrapped on a terminal, else as one line."""
    print(_beside(line), file=sys.stderr, flush=True)


def _beside(line: str) -> str:
    if not sys.stderr.isatty():
        return line
    with suppress(OSError):
        if width := os.get_terminal_size(sys.stderr.fileno()).columns:
            return fill(line, width, break_on_hyphens=False, break_long_words=False)
    return line


def fitted(text: str) -> str:
    """Return text whose lines are no wider than the terminal, but for a word that is."""
    width = _terminal_width()
    whole = text.split("\n")
    if width is None or max(map(len, whole)) <= width:
        return text
    return "\n".join(part for line in whole for part in _parts(line, width, many=len(whole) > 1))


def _parts(line: str, width: int, *, many: bool) -> list[str]:
    """Return a line in parts; of several lines each goes on further to the right."""
    if len(line) <= width:
        return [line]
    left = len(line) - len(line.lstrip())
    first = line[:left] + (_wrapped(line[left:], width - left)[0])
    rest = line[len(first) :].strip()
    right = left + 2 * many
    return [first, *(_placed(part, right, width) for part in _wrapped(rest, width - right) if part)]


def _placed(part: str, left: int, width: int) -> str:
    """Return a part of a text in its column, or further to the left where it is too wide."""
    return " " * max(0, min(left, width - len(part))) + part


def _plain(value: object) -> str:
    """Return what JSON has no form for: a time as RFC 3339 in UTC, all else as text."""
    if not isinstance(value, datetime):
        return str(value)
    at = value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)
    return at.isoformat().replace("+00:00", "Z")


def lines(rows: list[dict[str, Any]], columns: tuple[str, ...], *, as_json: bool) -> None:
    """Print rows one a line, as they come: JSON objects, or columns without alignment."""
    for row in rows:
        text = "  ".join(_text(row.get(name)) for name in columns)
        print(json.dumps(row, default=_plain) if as_json else fitted(text), flush=True)


def table(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> str:
    """
    Return rows as aligned columns under their names.

    On a terminal it fits: the last column is wrapped, or, where there is no room for that, each row
    is a block of facts. Elsewhere each row is one line, however long. No rows are a sentence.
    """
    if not rows:
        return NOTHING
    cells = [list(columns)] + [[_cell(row, name) for name in columns] for row in rows]
    widths = [max(len(line[n]) for line in cells) for n in range(len(columns))]
    first, width = sum(widths[:-1]) + 2 * (len(columns) - 1), _terminal_width()
    if width is None or first + widths[-1] <= width:
        return "\n".join(_aligned(line, widths) for line in cells)
    if width - first < LAST_COLUMN_MIN:
        return "\n\n".join(facts(_some(row, columns)) for row in rows)
    wrapped = []
    for line in cells:
        last = _wrapped(line[-1], width - first)
        if len(last[0]) > width - first:
            last.insert(0, "")
        wrapped.append(_aligned([*line[:-1], last[0]], widths))
        wrapped += [_placed(rest, first, width) for rest in last[1:]]
    return "\n".join(wrapped)


def _cell(row: dict[str, Any], name: str) -> str:
    """Return a field; of a principal its name, where it has one."""
    return _text(row.get(called(name)) or row.get(name))


def _some(row: dict[str, Any], columns: tuple[str, ...]) -> dict[str, Any]:
    names = {name: row[called(name)] for name in columns if called(name) in row}
    return {name: row.get(name) for name in columns} | {called(n): v for n, v in names.items()}


def _aligned(line: list[str], widths: list[int]) -> str:
    return "  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip()


def _wrapped(text: str, width: int) -> list[str]:
    return wrap(text, max(width, 1), break_on_hyphens=False, break_long_words=False) or [""]


def indented(text: str, first: str, rest: str) -> list[str]:
    """Return a text as lines that fit the terminal, the first and the others behind a margin."""
    width = _terminal_width()
    said = [text] if width is None else _wrapped(text, width - len(rest))
    return [first + said[0], *(rest + line for line in said[1:])]


def _terminal_width() -> int | None:
    """Return how wide the terminal is that is written to; None where it is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def marked(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> str:
    """Return such a table with a column for what a restore brought back, where there is any."""
    recovered = any(row.get("recovered_at") for row in rows)
    return table(rows, (*columns, "recovered_at") if recovered else columns)


def facts(fields: dict[str, Any]) -> str:
    """Return one fact a line; what is made of parts itself is shown elsewhere."""
    names = {called(name) for name in fields}
    plain = {
        name: f"{fields[called(name)]} ({value})" if fields.get(called(name)) else value
        for name, value in fields.items()
        if name not in names and not _has_parts(value)
    }
    first = max(len(name) for name in plain) + 2
    width, shown = _terminal_width(), list[str]()
    for name, value in plain.items():
        text = _text(value)
        said = [text] if width is None else _wrapped(text, width - first)
        if width is not None and len(said[0]) > width - first:
            said.insert(0, "")
        shown.append((name.replace("_", " ").ljust(first) + said[0]).rstrip())
        shown += [_placed(rest, first, width or first) for rest in said[1:]]
    return "\n".join(shown)


def _has_parts(value: Any) -> bool:
    items = value if isinstance(value, list) else []
    return isinstance(value, dict) or any(isinstance(item, dict) for item in items)


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value)) or "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else time_text(value)


def time_text(value: Any) -> str:
    """Return a time in the one form of the terminal: UTC, to the second; all else as it is."""
    if isinstance(value, str) and _TIME.fullmatch(value):
        value = datetime.fromisoformat(value)
    if isinstance(value, datetime):
        return said_time(value)
    return str(value)


class Progress:
    """A bar on the terminal of standard error; nothing where there is none."""

    WIDTH = 30

    def __init__(self, what: str, total_bytes: int | None) -> None:
        self._what, self._total, self._done = what, total_bytes, 0
        self._shown = sys.stderr.isatty()

    def advance(self, size_bytes: int) -> None:
        """Count bytes."""
        self._done += size_bytes
        if not self._shown:
            return
        kib = f"{self._done // 1024} KiB"
        if self._total:
            filled = self.WIDTH * self._done // self._total
            bar = "#" * filled + "." * (self.WIDTH - filled)
            kib = f"[{bar}] {100 * self._done // self._total:3d} % of {self._total // 1024} KiB"
        print(f"\r{self._what} {kib}", end="", file=sys.stderr, flush=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the line, so that what is said next stands on its own."""
        if self._shown and self._done:
            print(file=sys.stderr)
