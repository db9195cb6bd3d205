"""What `portvault` takes: the tree of commands, a file for each area, an example in each help."""

import argparse
from textwrap import fill

from vault import __version__
from vault.commands.arguments.approvals import add_approvals
from vault.commands.arguments.backups import add_backups
from vault.commands.arguments.break_glass import add_break_glass
from vault.commands.arguments.documents import add_documents
from vault.commands.arguments.faxes import add_faxes
from vault.commands.arguments.keys import add_keys
from vault.commands.arguments.log import add_log
from vault.commands.arguments.orders import add_orders
from vault.commands.arguments.retention import add_retention
from vault.commands.arguments.service import add_service
from vault.commands.arguments.signals import add_signals
from vault.commands.arguments.tokens import add_tokens
from vault.commands.arguments.tree import Tree, add_common

# In the order in which the help lists them.
_AREAS = (
    add_service,
    add_orders,
    add_documents,
    add_retention,
    add_signals,
    add_approvals,
    add_break_glass,
    add_tokens,
    add_log,
    add_keys,
    add_backups,
    add_faxes,
)

#: The modules of `vault.commands` that speak to a running vault, as their imports say.
SPEAKING = frozenset(
    ("approvals", "break_glass", "client", "content", "hylafax", "log", "retention", "signals")
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
5 temporarily unavailable (try again), 130 interrupted

{speaking}
  PORTVAULT_SERVER    its address (http://127.0.0.1:8700); without http:// or https:// it is
                      plain on this machine, and TLS anywhere else
  PORTVAULT_TOKEN     a token, or PORTVAULT_TOKEN_FILE, a file that holds it
All others work on the machine of the vault, with its settings; see `portvault config`.
"""


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of every command."""
    parser = argparse.ArgumentParser(
        prog="portvault",
        description="A vault for number-porting identity proofs.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"portvault {__version__}")
    add_common(parser, default=False)
    tree = Tree(parser)
    for add in _AREAS:
        add(tree)
    parser.epilog = _EXAMPLE + _EXITS.format(speaking=_speaking(tree))
    return parser


def _speaking(tree: Tree) -> str:
    """Return the commands that speak to a running vault; a group of them alone by its name."""
    shown = list[str]()
    for name, runs in tree.runs().items():
        ours = [command for command, run in runs.items() if run.partition(".")[0] in SPEAKING]
        shown += [name] if len(ours) == len(runs) else ours
    names = f"{', '.join(shown[:-1])} and {shown[-1]}"
    return fill(f"{names} speak to a running vault:", 95, break_on_hyphens=False)
