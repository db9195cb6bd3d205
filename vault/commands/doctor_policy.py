"""What `portvault doctor` says of the retention policy: its rows, and the grace in force."""

from datetime import timedelta

from vault.app import load_policy
from vault.config import Config
from vault.domain.retention import parse_policy


async def policy(config: Config, grace: timedelta | None) -> tuple[str, str]:
    """Say how many rows there are, and whether this machine's grace is the one in force."""
    rules = f"{len(parse_policy(load_policy(config)))} retention rules"
    own = config.reversal_grace_seconds
    if grace is None or grace.total_seconds() == own:
        return "ok", rules
    return "warn", (
        f"reversal_grace_seconds is {own:g} here, and {grace.total_seconds():g} is in force: "
        "the last `portvault serve` or `worker` that started said it; set the same on every "
        "machine, and start them again"
    )
