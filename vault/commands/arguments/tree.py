"""Builds the tree of subcommands; each has an example, `--json` and `--verbose`."""

import argparse
from collections.abc import Callable, Iterable
from typing import Any
from uuid import UUID

from vault.domain.documents import ALIASES, Kind, parse_kind
from vault.domain.purposes import is_reference

_AN_ID = "4f9c2a71-08d3-4c55-9b1e-6a7d20f3c8e4"
COUNT_MAX = 36500  # A hundred years, where it counts days.


class Tree:
    """A command that has commands below it."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self._below = parser.add_subparsers(metavar="COMMAND", required=True)
        self._runs: dict[str, dict[str, str]] = {}
        self._groups: dict[str, Tree] = {}

    def group(self, name: str, summary: str, example: str) -> "Tree":
        """Add a command that has commands of its own."""
        self._groups[name] = Tree(self._add(name, summary, example))
        self._runs[name] = {}
        return self._groups[name]

    def runs(self) -> dict[str, dict[str, str]]:
        """Return of each name what its commands run, each under its whole name."""
        found = dict[str, dict[str, str]]()
        for name, runs in self._runs.items():
            below = self._groups[name].runs() if name in self._groups else {}
            inner = {f"{name} {sub}": run for each in below.values() for sub, run in each.items()}
            found[name] = {**runs, **inner}
        return found

    def command(
        self, name: str, run: str, summary: str, example: str, **defaults: Any
    ) -> argparse.ArgumentParser:
        """Add a command; `run` is MODULE.FUNCTION within `vault.commands`."""
        parser = self._add(name, summary, example)
        self._runs[name] = {name: run}
        # Left out, they must not undo what stood before the command.
        add_common(parser, default=argparse.SUPPRESS)
        parser.set_defaults(run=run, **defaults)
        return parser

    def _add(self, name: str, summary: str, example: str) -> argparse.ArgumentParser:
        return self._below.add_parser(
            name,
            help=summary,
            description=summary,
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )


def add_common(parser: argparse.ArgumentParser, default: Any) -> None:
    """Add what every command takes, before its name and behind it."""
    parser.add_argument("--json", action="store_true", default=default, help="print JSON")
    parser.add_argument(
        "--verbose", action="store_true", default=default, help="log more, and show tracebacks"
    )


def count(text: str) -> int:
    """Return a whole number; for `type=`."""
    number = int(text) if text.isascii() and text.isdigit() else 0
    if not 1 <= number <= COUNT_MAX:
        raise argparse.ArgumentTypeError(f"it must be a whole number from 1 to {COUNT_MAX}")
    return number


def kind(text: str) -> str:
    """Return a kind or an alias as it was written; for `type=`."""
    if parse_kind(text) is None:
        raise argparse.ArgumentTypeError(
            f"there is no kind {text!r}: {', '.join(Kind)}, or as carriers say {', '.join(ALIASES)}"
        )
    return text


def several(words: Iterable[str]) -> Callable[[str], str]:
    """Return what takes one of these words, or several with commas between; for `type=`."""
    known = tuple(words)

    def check(text: str) -> str:
        for word in (part.strip() for part in text.split(",")):
            if word and word not in known:
                raise argparse.ArgumentTypeError(f"there is no {word!r}: {', '.join(known)}")
        return text

    return check


def reason(words: Iterable[str]) -> Callable[[str], str]:
    """Return what takes one of these words, or the number of a case; for `type=`."""
    known = tuple(words)

    def check(text: str) -> str:
        if text not in known and not is_reference(text):
            raise argparse.ArgumentTypeError(
                f"it is the number of a case, or one of {', '.join(known)}: it is kept, so it is "
                "no sentence"
            )
        return text

    return check


def identity(text: str) -> str:
    """Return an id in its usual form; for `type=`."""
    try:
        return str(UUID(text))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not an id: an id looks like {_AN_ID}, and is printed by the command that "
            "makes or lists the thing"
        ) from None
