"""`portvault signal`."""

from vault.commands.arguments.tree import Tree, count, identity

STATES = ("waiting", "delivered", "dead")


def add_signals(tree: Tree) -> None:
    """Add the commands of signals."""
    signal = tree.group(
        "signal",
        "See what the porting system was told, and tell it again.",
        "portvault signal list --state dead",
    )
    listed = signal.command(
        "list",
        "signals.listed",
        "List signals and how their deliveries fare, newest first.",
        "portvault signal list --state dead",
    )
    listed.add_argument("--state", choices=STATES, help="only those")
    listed.add_argument("--limit", type=count, default=50, help="1 to 200 (50)")
    replay = signal.command(
        "replay",
        "signals.replay",
        "Send a signal again to every endpoint.",
        "portvault signal replay ID",
    )
    replay.add_argument("signal", type=identity, metavar="ID")
