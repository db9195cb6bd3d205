"""`portvault log`."""

import argparse
from pathlib import Path

from vault.commands.arguments.tree import Tree, count, identity
from vault.domain.access import Action, Purpose
from vault.domain.regions import REGIONS

#: The auditor's own, which is slow to import for a help; a test compares the two.
WAITING_SECONDS_MAX = 60.0


def add_log(tree: Tree) -> None:
    """Add the commands of the access log."""
    log = tree.group("log", "Look into the access log and verify it.", "portvault log verify")
    tail = log.command(
        "tail", "log.tail", "Show the newest records.", "portvault log tail --follow"
    )
    tail.add_argument("--region", choices=REGIONS, help="needed with several")
    tail.add_argument("--document", type=identity, help="only of this document")
    tail.add_argument("--limit", type=count, default=20, help="1 to 200 (20)")
    tail.add_argument(
        "--follow", action="store_true", help="go on until stopped; leaves out readings of the log"
    )
    tail.add_argument("--interval", type=float, default=2.0, help=argparse.SUPPRESS)
    search = log.command(
        "search",
        "log.search",
        "Find records: about a document, by a person, for a purpose, refused, out of the region.",
        "portvault log search --order ID --action document.read",
    )
    search.add_argument("--region", choices=REGIONS, help="needed with several")
    search.add_argument("--document", type=identity, help="everything about this document")
    search.add_argument("--order", type=identity, help="everything about this order")
    search.add_argument(
        "--principal", help="everything this one did: an id, a token's label, a person's name"
    )
    search.add_argument(
        "--purpose",
        metavar="PURPOSE",
        choices=[purpose.value for purpose in Purpose],
        help=f"reads for one of {', '.join(Purpose)}, and whether bytes went out",
    )
    search.add_argument(
        "--action",
        metavar="ACTION",
        choices=sorted(Action),
        help=f"only this action: {', '.join(sorted(Action))}",
    )
    search.add_argument("--refused", action="store_true", help="only refusals")
    search.add_argument(
        "--transfers",
        action="store_true",
        help="only what left its region, with where to and the basis",
    )
    search.add_argument("--from", dest="since", metavar="TIME", help="from this time or date (UTC)")
    search.add_argument("--to", dest="until", metavar="TIME", help="before this time or date (UTC)")
    search.add_argument("--limit", type=count, default=1000, help="so many at most (1000)")
    _add_export(log)
    _add_verify(log)
    _add_witness(log)
    log.command(
        "key",
        "log_proofs.key",
        "Print the public key that signs the log and the certificates.",
        "portvault log key",
    )
    forget = log.command(
        "forget-name",
        "log_proofs.forget",
        "Forget what a principal was called, a label or a name; its id stays in the log.",
        "portvault log forget-name person:0123456789abcdef0123456789abcdef",
    )
    forget.add_argument("principal", metavar="PRINCIPAL", help="its id, as the log has it")
    receipt = log.command(
        "receipt",
        "log.receipt",
        "Prove that a reading is in the log, from the receipt that was given for it.",
        "portvault log receipt scan.receipt --key portvault.vkey",
    )
    receipt.add_argument("file", type=Path, metavar="RECEIPT", help="what `get --receipt` kept")
    receipt.add_argument("--key", metavar="VKEY", help="the log's key, or a file that holds it")
    rotate = log.command(
        "rotate-key",
        "log_proofs.rotate",
        "Replace the key that signs the log: begin, and later finish.",
        "portvault log rotate-key --finish",
    )
    how = rotate.add_mutually_exclusive_group()
    how.add_argument("--finish", action="store_true", help="let the new key sign alone")
    how.add_argument(
        "--stolen", action="store_true", help="replace the key at once, and say that it was stolen"
    )
    how.add_argument("--revoke", metavar="VKEY", help="say that an earlier key was stolen")


def _add_export(log: Tree) -> None:
    export = log.command(
        "export",
        "log.export",
        "Write the log into a file that proves itself, or into a table for people.",
        "portvault log export --region uk --from 2025-01-01 --to 2025-04-01 -o quarter.jsonl",
    )
    export.add_argument("--region", choices=REGIONS, required=True)
    export.add_argument("--from", dest="since", metavar="TIME", help="from this time or date (UTC)")
    export.add_argument("--to", dest="until", metavar="TIME", help="before this time or date (UTC)")
    export.add_argument("--format", choices=("jsonl", "csv"), default="jsonl")
    export.add_argument("-o", "--output", metavar="FILE", required=True)


def _add_verify(log: Tree) -> None:
    verify = log.command(
        "verify",
        "log_proofs.verify",
        "Check that nothing was edited: in the database, a running vault, or a file.",
        "portvault log verify --file quarter.jsonl --key portvault.vkey --held last.checkpoint",
    )
    verify.add_argument("--region", choices=REGIONS)
    source = verify.add_mutually_exclusive_group()
    source.add_argument("--file", type=Path, metavar="FILE", help="what `log export` wrote")
    source.add_argument("--server", metavar="URL", help="the log that a running vault shows")
    verify.add_argument("--key", metavar="VKEY", help="the public key, or a file that holds it")
    verify.add_argument(
        "--held",
        type=Path,
        metavar="FILE",
        action="append",
        default=[],
        help="a checkpoint that you kept from before; may be repeated",
    )
    verify.add_argument(
        "--witness",
        metavar="VKEY",
        action="append",
        default=[],
        help="a witness that you trust (file and server; else `witnesses` of the settings)",
    )
    verify.add_argument(
        "--waiting-max",
        type=float,
        default=WAITING_SECONDS_MAX,
        metavar="SECONDS",
        help="how long a record may wait to be published (file and server; 60)",
    )


def _add_witness(log: Tree) -> None:
    witness = log.command(
        "witness",
        "witness.witness",
        "Remember the log's checkpoints, cosign what follows them, and shout at what does not.",
        "portvault log witness --server https://vault.example --region uk --state /var/lib/witness",
    )
    witness.add_argument("--server", metavar="URL", help="the vault; its token is PORTVAULT_TOKEN")
    witness.add_argument("--region", choices=REGIONS, action="append", help="may be repeated")
    witness.add_argument("--state", type=Path, metavar="DIR", required=True)
    witness.add_argument("--key", metavar="VKEY", help="the log's key (the one it shows at first)")
    witness.add_argument("--name", help="of this witness (witness.HOST)")
    witness.add_argument("--interval", type=float, default=60.0, help="seconds between looks (60)")
    witness.add_argument(
        "--still-max",
        type=float,
        default=WAITING_SECONDS_MAX,
        metavar="SECONDS",
        help="how long the log may stay as it is though these looks are recorded in it (60)",
    )
    witness.add_argument("--once", action="store_true", help="look once")
    witness.add_argument("--print-key", action="store_true", help="print its public key, no more")
