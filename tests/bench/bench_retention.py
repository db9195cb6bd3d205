"""
The sweep: documents judged and shredded a second, and what it costs when nothing is due.

A durable database with so many stored documents; their objects are not there, which a shred does
not touch. First everything is judged anew, as after a change of policy; then a tenth is due at
once, and is shredded with its records. Then the cost of a look at nothing, at this size and on a
database a hundred times smaller.
"""

import argparse
import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import uvloop

from tests.bench.grown_tree import grow
from vault.actions.expire import expire, review, shred_due
from vault.adapters.postgres.embedded import EmbeddedPostgres
from vault.app import open_vault
from vault.config.settings import Config
from vault.context import Vault
from vault.migrate import migrate
from vault.sql.connection import connection

REGION = "uk"
LOOKS = 50
# One order for every ten documents; those of the first tenth of orders ended long ago.
_ORDERS = """
    insert into porting_order
        (id, region, customer, status, details, created_at, changed_at, ended_at)
    select gen_random_uuid(), $1, 'acme', case when n <= $2 / 10 then 'ported' else 'submitted' end,
        '', now() - interval '2 days', now() - interval '1 day',
        case when n <= $2 / 10 then now() - interval '1 day' end
    from generate_series(1, $2) n
"""
_DOCUMENTS = """
    insert into document (id, region, order_id, kind, custody, media_type, size_bytes,
        stream_header, metadata, received_at, stored_at)
    select k.id, $1, o.id, 'passport', 'stored', 'image/jpeg', 1000, ''::bytea, ''::bytea,
        now() - interval '2 days', now() - interval '2 days'
    from (select id, row_number() over () n from data_key where region = $1) k
        join (select id, row_number() over (order by ended_at nulls last, id) n
            from porting_order) o on o.n = (k.n - 1) / 10 + 1
"""


@asynccontextmanager
async def stocked(documents: int) -> AsyncIterator[tuple[Vault, str]]:
    """Give a vault with so many stored documents, a tenth of them due, and where its rows are."""
    place = Path(tempfile.mkdtemp(prefix="portvault-bench-"))
    place.chmod(0o711)
    server = EmbeddedPostgres(place / "home")
    config = Config(
        home=place / "home",
        regions=(REGION,),
        custodian=f"file:{place}/keys",
        database_timeout_seconds=600.0,
        record_timeout_seconds=60.0,
        # A tenth of all is due at once here.
        expire_share_max=1.0,
        worker=False,
    )
    try:
        dsn = await server.start()
        await migrate(dsn)
        async with open_vault(config, dsn=dsn) as vault:
            custodian = vault.keyring._custodians[REGION]
            await grow(dsn, custodian, REGION, documents)
            async with connection(vault.pool) as conn:
                await conn.execute(_ORDERS, REGION, documents // 10)
                await conn.execute(_DOCUMENTS, REGION)
                await conn.execute("analyze")
            yield vault, dsn
    finally:
        await server.stop()
        shutil.rmtree(place, ignore_errors=True)


async def measure(documents: int) -> None:
    """Print the figures at one size."""
    async with stocked(documents) as (vault, dsn):
        started, judged = time.perf_counter(), 0
        while found := await review(vault, REGION):
            judged += found
        seconds = time.perf_counter() - started
        print(f"  {judged:>9} documents judged:   {judged / seconds:>8.0f}/s")
        started, shredded = time.perf_counter(), 0
        while found := await shred_due(vault, REGION):
            shredded += found
        seconds = time.perf_counter() - started
        print(f"  {shredded:>9} due at once, shredded: {shredded / seconds:>6.0f}/s")
        # As the owner: who serves may not, and is only warned of that.
        owner = await asyncpg.connect(dsn)
        await owner.execute("vacuum analyze document")
        await owner.close()
        started = time.perf_counter()
        for _ in range(LOOKS):
            assert await expire(vault, REGION) == 0
        look = (time.perf_counter() - started) / LOOKS
        print(f"  {documents:>9} documents, nothing due: {look * 1000:.2f} ms a look")


async def main() -> None:
    """Measure both sizes."""
    parser = argparse.ArgumentParser(prog="bench retention", description=__doc__)
    parser.add_argument("--documents", type=int, default=1_000_000)
    args = parser.parse_args()
    for documents in (args.documents // 100, args.documents):
        await measure(documents)


if __name__ == "__main__":
    uvloop.run(main())
