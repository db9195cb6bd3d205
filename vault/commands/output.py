"""What commands print: text for people, or JSON with `--json`; and progress on a terminal."""

import json
import sys
from types import TracebackType
from typing import Any, Self


def show(answer: Any, text: str, *, as_json: bool) -> None:
    """Print an answer."""
    print(json.dumps(answer, indent=2, default=str) if as_json else text, flush=True)


def lines(rows: list[dict[str, Any]], columns: tuple[str, ...], *, as_json: bool) -> None:
    """Print rows one a line, as they come: JSON objects, or columns without alignment."""
    for row in rows:
        text = "  ".join(_text(row.get(name)) for name in columns)
        print(json.dumps(row, default=str) if as_json else text, flush=True)


def table(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> str:
    """Return rows as aligned columns under their names."""
    cells = [list(columns)] + [[_text(row.get(name)) for name in columns] for row in rows]
    widths = [max(len(line[n]) for line in cells) for n in range(len(columns))]
    aligned = ("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) for line in cells)
    return "\n".join(line.rstrip() for line in aligned)


def marked(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> str:
    """Return such a table with a column for what a restore brought back, where there is any."""
    recovered = any(row.get("recovered_at") for row in rows)
    return table(rows, (*columns, "recovered_at") if recovered else columns)


def facts(fields: dict[str, Any]) -> str:
    """Return one fact a line; what is made of parts itself is shown elsewhere."""
    plain = {name: value for name, value in fields.items() if not _has_parts(value)}
    width = max(len(name) for name in plain)
    return "\n".join(
        f"{name.replace('_', ' ').ljust(width)}  {_text(value)}" for name, value in plain.items()
    )


def _has_parts(value: Any) -> bool:
    items = value if isinstance(value, list) else []
    return isinstance(value, dict) or any(isinstance(item, dict) for item in items)


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "-"
    return "-" if value is None else str(value)


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
