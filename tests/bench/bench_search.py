"""
What compliance's questions cost as the access log grows, by their statements alone.

Each log, of BENCH_SEARCH_SIZES records (1000, 10000 and 100000), is in a database of its own. What
a search costs with its own record is in the benchmark `log`.

    BENCH_SEARCH_SIZES=1000000 ./scripts/bench search
"""

import os
import tempfile
import time
from pathlib import Path
from uuid import UUID

import uvloop

from tests.bench.bench_log import database, opened
from tests.bench.log_long import fill, questions
from vault.context import Vault
from vault.sql.connection import connection
from vault.sql.log_search import page

LOOKS = 100
SIZES = [int(size) for size in os.environ.get("BENCH_SEARCH_SIZES", "1000,10000,100000").split(",")]


async def ask(vault: Vault, size: int) -> None:
    """Print the median of each question, and how far the middle four fifths spread."""
    for name, wanted in (await questions(vault, size)).items():
        took = list[float]()
        async with connection(vault.pool) as conn:
            for _ in range(LOOKS):
                began = time.perf_counter()
                await page(conn, "uk", wanted, before=None, limit=51, without=UUID(int=0))
                took.append((time.perf_counter() - began) * 1000)
        took.sort()
        low, median, high = (took[LOOKS * part // 10] for part in (1, 5, 9))
        print(
            f"{size:>9,} records {name:>30}: {median:.2f} ms, p10 to p90 {low:.2f} to {high:.2f}",
            flush=True,
        )


async def main() -> None:
    """Ask every question of each log."""
    for size in SIZES:
        with tempfile.TemporaryDirectory(prefix="bench-search-") as place:
            home = Path(place) / "home"
            async with database(home) as dsn, opened(home, dsn) as (vault, owner):
                await fill(owner, size)
                await ask(vault, size)


if __name__ == "__main__":
    uvloop.run(main())
