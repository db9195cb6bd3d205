"""
What `portvault` takes: its commands, area by area, with an example in each help.

An area is a module of `vault.commands` that adds its commands to the tree. It is imported when the
command line names one of them, so that the first help and each command start at once.
"""

import argparse
import importlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from textwrap import fill
from typing import Any, NamedTuple
from uuid import UUID

from vault import __version__
from vault.domain.documents import ALIASES, Kind, parse_kind
from vault.domain.text import is_reference

_AN_ID = "4f9c2a71-08d3-4c55-9b1e-6a7d20f3c8e4"
COUNT_MAX = 36500  # A hundred years, where it counts days.


class Area(NamedTuple):
    """A module of `vault.commands`, and what it adds: names and summaries."""

    module: str
    commands: tuple[tuple[str, str], ...]


#: Every area, in the order in which the first help lists its commands.
AREAS = (
    Area(
        "service",
        (
            ("serve", "Serve, and work."),
            ("worker", "Run the reconcilers alone."),
            ("migrate", "Bring the database up to date."),
        ),
    ),
    Area(
        "config",
        (("config", "Print every setting, as the TOML that one would write."),),
    ),
    Area(
        "doctor",
        (("doctor", "Check every part and say what to do."),),
    ),
    Area(
        "orders",
        (("order", "Open, list, find, show, move, complete or cancel porting orders."),),
    ),
    Area(
        "documents",
        (
            (
                "put",
                "Upload documents, and print the id of each; a file that fails stops no other.",
            ),
            ("get", "Read a document, and say why."),
            ("show", "Show why a document is here."),
            ("shred", "Put a document beyond use, for ever."),
            ("correct", "Say that a document is of another kind; its retention is computed anew."),
            ("certificate", "Print the signed certificate of a document's destruction."),
        ),
    ),
    Area(
        "retention",
        (
            (
                "retention",
                "Say why documents are here and until when; look after policy and instructions.",
            ),
            ("hold", "Keep documents as long as a case goes on."),
            ("restrict", "Let nobody read a document for the time being (GDPR art. 18)."),
            ("unrestrict", "Let a document be read again."),
        ),
    ),
    Area(
        "signals",
        (("signal", "See what the porting system was told, and tell it again."),),
    ),
    Area(
        "approvals",
        (("approval", "Ask for what takes four eyes, and agree to what others ask for."),),
    ),
    Area(
        "break_glass",
        (("break-glass", "For the day the identity provider is down."),),
    ),
    Area(
        "tokens",
        (("token", "Make, list, rename and revoke tokens."),),
    ),
    Area(
        "log",
        (("log", "Look into the access log and verify it."),),
    ),
    Area(
        "keys",
        (
            ("keys", "Look after the key trees."),
            ("repair", "Mend what is damaged at rest from what is sound, and name what is left."),
        ),
    ),
    Area(
        "backups",
        (
            ("backup", "Write a dump of the database (pg_dump); a running vault need not stop."),
            ("restore", "Bring an older database up to date, and say what lives and what is gone."),
        ),
    ),
    Area(
        "faxes",
        (("fax", "Pass faxes through, and look at receipts."),),
    ),
)
#: What each command at the top does, in a sentence.
SUMMARIES = {name: summary for area in AREAS for name, summary in area.commands}
#: The commands, or whole groups of them, that speak to a running vault.
SPEAKING = (
    "order, put, get, show, shred, correct, certificate, retention, restrict, unrestrict, hold, "
    "signal, approval, break-glass, log tail, log search, log export, log receipt and fax"
)
_EXAMPLE = """\
example:
  export PORTVAULT_TOKEN=$(portvault token create --role porting --region uk)
  portvault order create --region uk --customer acme --number +442079460123
  portvault put scan.jpg --order ORDER --kind passport
  portvault get DOCUMENT --purpose verify-identity -o scan.jpg

"""
_EXITS = """\
exit status: 0 done, 1 failed, 2 wrong usage, 3 not found or gone, 4 not permitted,
5 temporarily unavailable (try again; of several files, where that may mend all that failed:
else the status of those that it does not mend, 1 where they differ), 130 interrupted

{speaking}
  PORTVAULT_SERVER    its address (http://127.0.0.1:8700); without http:// or https:// it is
                      plain on this machine, and TLS anywhere else
  PORTVAULT_TOKEN     a token, or PORTVAULT_TOKEN_FILE, a file that holds it
All others work on the machine of the vault, with its settings; see `portvault config`.
"""

Run = Callable[[argparse.Namespace], Awaitable[None]]


def make_parser(line: Sequence[str] | None = None) -> argparse.ArgumentParser:
    """
    Return the parser of a command line, or of every command.

    Of a `line` only the area is loaded that it names; the others have their names and summaries.
    """
    parser = argparse.ArgumentParser(
        prog="portvault",
        description="A vault for number-porting identity proofs.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"portvault {__version__}")
    add_common(parser, default=False)
    tree = Tree(parser)
    named = None if line is None else next((word for word in line if word[:1] != "-"), "")
    for area in AREAS:
        if named is None or named in dict(area.commands):
            importlib.import_module(f"vault.commands.{area.module}").add(tree)
        else:
            tree.name_only(area.commands)
    speaking = fill(f"{SPEAKING} speak to a running vault:", 95, break_on_hyphens=False)
    parser.epilog = _EXAMPLE + _EXITS.format(speaking=speaking)
    return parser


class Tree:
    """A command that has commands below it."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self._below = parser.add_subparsers(metavar="COMMAND", required=True)

    def group(self, name: str, summary: str, example: str) -> "Tree":
        """Add a command that has commands of its own."""
        return Tree(self._add(name, summary, example))

    def name_only(self, commands: Iterable[tuple[str, str]]) -> None:
        """Add commands that the line does not call, so that the help and a wrong word list them."""
        for name, summary in commands:
            self._below.add_parser(name, help=summary)

    def command(
        self, name: str, run: Run, summary: str, example: str, **defaults: Any
    ) -> argparse.ArgumentParser:
        """
        Add a command that calls `run`; `defaults` are what else its arguments say.

        One that `serves` logs what it does and has the faster loop; it, and one that `checks` the
        installation, warn of a Python that the tests do not run on.
        """
        parser = self._add(name, summary, example)
        # Left out, they must not undo what stood before the command.
        add_common(parser, default=argparse.SUPPRESS)
        parser.set_defaults(run=run, **{"serves": False, "checks": False, **defaults})
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
