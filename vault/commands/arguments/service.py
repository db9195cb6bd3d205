"""`portvault serve`, `worker`, `migrate`, `doctor`, `config`."""

from vault.commands.arguments.tree import Tree


def add_service(tree: Tree) -> None:
    """Add the commands that run the vault, check it and set it up."""
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
    tree.command(
        "config",
        "settings.run_config",
        "Print every setting, as the TOML that one would write.",
        "portvault config",
    )
