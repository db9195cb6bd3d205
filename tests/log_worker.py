"""Orders and publishes a log, again and again, in a process that may be killed at any moment."""

import asyncio
import sys
from pathlib import Path

from vault.actions.log_publish import publish_log, sequence_log
from vault.app import open_vault
from vault.config.settings import Config


async def work(home: str, dsn: str) -> None:
    """Work until killed; says when it has begun."""
    config = Config(home=Path(home), database=dsn, regions=("uk",), worker=False)
    async with open_vault(config, dsn=dsn) as vault:
        print("working", flush=True)
        while True:
            await sequence_log(vault, "uk")
            await publish_log(vault, "uk")


if __name__ == "__main__":
    asyncio.run(work(*sys.argv[1:]))
