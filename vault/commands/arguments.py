"""What `portvault` takes: the tree of commands, each with an example in its help."""

import argparse
from pathlib import Path
from typing import Any

from vault import __version__
from vault.domain.access import Purpose, Role
from vault.domain.documents import Kind
from vault.domain.regions import REGIONS

COUNT_MAX = 36500  # A hundred years, where it counts days.

_EXAMPLE = """\
example:
  export PORTVAULT_TOKEN=$(portvault token create --role porting --region uk)
  portvault order create --region uk --customer acme --number +442079460123
  portvault put scan.jpg --order ORDER --kind passport
  portvault get DOCUMENT --purpose verify-identity -o scan.jpg

"""
_EXITS = """\
exit status: 0 done, 1 failed, 2 wrong usage, 3 not found or gone, 4 not permitted,
5 temporarily unavailable (try again), 130 interrupted

order, put, get, show, shred, certificate, log tail and log search speak to a running vault:
  PORTVAULT_SERVER    its address (http://127.0.0.1:8700)
  PORTVAULT_TOKEN     a token, or PORTVAULT_TOKEN_FILE, a file that holds it
All others work on the machine of the vault, with its settings; see `portvault config`.
"""


class _Tree:
    """Builds the subcommands; each has an example, `--json` and `--verbose`."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self._below = parser.add_subparsers(metavar="COMMAND", required=True)

    def group(self, name: str, summary: str, example: str) -> "_Tree":
        """Add a command that has commands of its own."""
        return _Tree(self._add(name, summary, example))

    def command(
        self, name: str, run: str, summary: str, example: str, **defaults: Any
    ) -> argparse.ArgumentParser:
        """Add a command; `run` is MODULE.FUNCTION within `vault.commands`."""
        parser = self._add(name, summary, example)
        # Left out, they must not undo what stood before the command.
        _add_common(parser, default=argparse.SUPPRESS)
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


def _add_common(parser: argparse.ArgumentParser, default: Any) -> None:
    parser.add_argument("--json", action="store_true", default=default, help="print JSON")
    parser.add_argument(
        "--verbose", action="store_true", default=default, help="log more, and show tracebacks"
    )


def _count(text: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() else 0
    if not 1 <= number <= COUNT_MAX:
        raise argparse.ArgumentTypeError(f"it must be a whole number from 1 to {COUNT_MAX}")
    return number


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of every command."""
    parser = argparse.ArgumentParser(
        prog="portvault",
        description="A vault for number-porting identity proofs.",
        epilog=_EXAMPLE + _EXITS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"portvault {__version__}")
    _add_common(parser, default=False)
    tree = _Tree(parser)
    _add_service(tree)
    _add_orders(
        tree.group(
            "order",
            "Open, list, show, complete or cancel porting orders.",
            "portvault order create --region uk --customer acme --number +442079460123",
        )
    )
    _add_documents(tree)
    _add_operator(tree)
    return parser


def _add_service(tree: _Tree) -> None:
    tree.command(
        "serve", "operator.run_server", "Serve, and work.", "PORTVAULT_PORT=9000 portvault serve"
    )
    tree.command("worker", "operator.run_worker", "Run the reconcilers alone.", "portvault worker")
    tree.command(
        "migrate", "operator.run_migrate", "Bring the database up to date.", "portvault migrate"
    )
    tree.command(
        "doctor", "doctor.doctor", "Check every part and say what to do.", "portvault doctor"
    )
    tree.command("config", "operator.run_config", "Print every setting.", "portvault config --json")


def _add_orders(tree: _Tree) -> None:
    create = tree.command(
        "create",
        "client.order_create",
        "Open a porting order and print its id.",
        "portvault order create --region uk --customer acme --number +442079460123",
    )
    create.add_argument("--region", required=True, choices=REGIONS)
    create.add_argument("--customer", required=True, help="the customer's id, not a name")
    create.add_argument("--number", required=True, action="append", help="E.164; may be repeated")
    create.add_argument("--reference", help="the customer's own reference")
    listed = tree.command(
        "list", "client.order_list", "List the newest orders.", "portvault order list"
    )
    listed.add_argument("--limit", type=_count, default=50, help="1 to 200 (50)")
    show = tree.command(
        "show", "client.order_show", "Show an order and its documents.", "portvault order show ID"
    )
    show.add_argument("order", metavar="ORDER")
    for end, what in (("complete", "The numbers were ported."), ("cancel", "Nothing was ported.")):
        ended = tree.command(
            end,
            "client.order_end",
            f"{what} Starts the retention of the order's documents.",
            f"portvault order {end} ID",
            end=end,
        )
        ended.add_argument("order", metavar="ORDER")


def _add_documents(tree: _Tree) -> None:
    put = tree.command(
        "put",
        "content.put",
        "Upload a document and print its id.",
        "portvault put scan.jpg --order ID --kind passport",
    )
    put.add_argument("file", type=Path, metavar="FILE")
    put.add_argument("--order", required=True)
    put.add_argument("--kind", required=True, help=", ".join(Kind))
    put.add_argument("--digest", action="store_true", help="send Content-Digest (SHA-256)")
    get = tree.command(
        "get",
        "content.get",
        "Read a document, and say why.",
        "portvault get ID --purpose verify-identity -o scan.jpg",
    )
    get.add_argument("document", metavar="DOCUMENT")
    get.add_argument("--purpose", required=True, help=", ".join(Purpose))
    get.add_argument("--reference", help="the case, where the purpose needs one")
    get.add_argument(
        "-o", "--output", metavar="FILE", help="- for standard output, never a terminal"
    )
    show = tree.command(
        "show", "client.document_show", "Show why a document is here.", "portvault show ID"
    )
    show.add_argument("document", metavar="DOCUMENT")
    shred = tree.command(
        "shred",
        "client.document_shred",
        "Put a document beyond use, for ever.",
        "portvault shred ID --reason withdrawn",
    )
    shred.add_argument("document", metavar="DOCUMENT")
    shred.add_argument("--reason", required=True, help="without names")
    certificate = tree.command(
        "certificate",
        "client.certificate",
        "Print the signed certificate of a document's destruction.",
        "portvault certificate ID",
    )
    certificate.add_argument("document", metavar="DOCUMENT")


def _add_operator(tree: _Tree) -> None:
    tokens = tree.group(
        "token",
        "Make, list and revoke tokens.",
        "portvault token create --role porting --region uk --label desk-1",
    )
    create = tokens.command(
        "create",
        "operator.token_create",
        "Make a token and print it, once.",
        "portvault token create --role porting --region uk --label desk-1",
    )
    create.add_argument("--role", required=True, choices=[role.value for role in Role])
    create.add_argument("--region", required=True, action="append", help="one, or several: uk,sg")
    create.add_argument("--label", help="what it is for (the role)")
    create.add_argument("--days", type=_count, help="how long it is good for (until revoked)")
    tokens.command("list", "operator.token_list", "List tokens.", "portvault token list")
    revoke = tokens.command(
        "revoke", "operator.token_revoke", "Revoke a token.", "portvault token revoke ID"
    )
    revoke.add_argument("token", metavar="ID")
    log = tree.group("log", "Look into the access log and verify it.", "portvault log verify")
    tail = log.command(
        "tail", "client.log_tail", "Show the newest records.", "portvault log tail --follow"
    )
    tail.add_argument("--region", choices=REGIONS, help="needed with several")
    tail.add_argument("--document", help="only of this document")
    tail.add_argument("--limit", type=_count, default=20, help="1 to 200 (20)")
    tail.add_argument(
        "--follow", action="store_true", help="go on until stopped; leaves out readings of the log"
    )
    tail.add_argument("--interval", type=float, default=2.0, help=argparse.SUPPRESS)
    search = log.command(
        "search",
        "client.log_search",
        "Find records: about a document, by a person, for a purpose, refused, out of the region.",
        "portvault log search --order ID --action document.read",
    )
    search.add_argument("--region", choices=REGIONS, help="needed with several")
    search.add_argument("--document", help="everything about this document")
    search.add_argument("--order", help="everything about this order")
    search.add_argument("--principal", help="everything this person or machine did")
    search.add_argument("--purpose", help=f"reads for one of {', '.join(Purpose)}")
    search.add_argument("--action", help="only this action, as document.read or log.read")
    search.add_argument("--refused", action="store_true", help="only refusals")
    search.add_argument("--transfers", action="store_true", help="only what left its region")
    search.add_argument("--from", dest="since", metavar="TIME", help="from this time or date (UTC)")
    search.add_argument("--to", dest="until", metavar="TIME", help="before this time or date (UTC)")
    search.add_argument("--limit", type=_count, default=1000, help="so many at most (1000)")
    verify = log.command(
        "verify", "operator.log_verify", "Check that nothing was edited.", "portvault log verify"
    )
    verify.add_argument("--region", choices=REGIONS)
    keys = tree.group("keys", "Look after the key trees.", "portvault keys status")
    status = keys.command("status", "keys.status", "Show the key trees.", "portvault keys status")
    status.add_argument("--region", choices=REGIONS)
    seal = keys.command(
        "seal",
        "keys.run_seal",
        "Make all shreds so far irrecoverable, now.",
        "portvault keys seal --region uk",
    )
    seal.add_argument("--region", choices=REGIONS)
    seal.add_argument("--force", action="store_true", help="replace the root anyway")
    check = keys.command(
        "verify",
        "keys.verify",
        "Open every key of the trees, and name what does not open.",
        "portvault keys verify --region uk",
    )
    check.add_argument("--region", choices=REGIONS)
    rotate = keys.command(
        "rotate-custodian",
        "keys.rotate",
        "Move a region's root key from `custodian_before` to `custodian`; content stays as it is.",
        "portvault keys rotate-custodian --region uk",
    )
    rotate.add_argument("--region", choices=REGIONS, required=True)
    backup = tree.command(
        "backup",
        "backups.backup",
        "Write a dump of the database (pg_dump); a running vault need not stop.",
        "portvault backup /srv/backup/portvault.dump",
    )
    backup.add_argument("file", type=Path, metavar="FILE")
    restore = tree.command(
        "restore",
        "backups.restore",
        "Bring an older database up to date, and say what lives and what is gone.",
        "portvault restore /srv/backup/portvault.dump --dry-run",
    )
    restore.add_argument(
        "file",
        type=Path,
        metavar="FILE",
        nargs="?",
        help="a dump for an empty database (the one there is)",
    )
    restore.add_argument("--region", choices=REGIONS, help="only this one (all)")
    restore.add_argument("--dry-run", action="store_true", help="load FILE, and say what would be")
    restore.add_argument(
        "--leave-unknown",
        action="store_true",
        help="go on although documents were stored after the backup; their objects stay",
    )
