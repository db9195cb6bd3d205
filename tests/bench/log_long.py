"""A long log: ordered, published, exported, audited, verified, and searched."""

import os
import time
from collections.abc import Awaitable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg

from tests.bench.bench_ingest import forget_peak, peak_mib
from tests.retention_house import COMPLIANCE
from vault.actions.log_prove import export_log
from vault.actions.log_publish import publish_log, sequence_log
from vault.actions.log_records import list_records, verify_region
from vault.audit.auditor import Audit
from vault.context import Vault
from vault.domain.records import Found, Wanted
from vault.errors import NotFoundError

START = datetime(2024, 1, 1, tzinfo=UTC)
HOUR = 3600.0
SEARCHES = 50
#: So many records, one every 10 s, intents and outcomes in turn: 500 people, eight records a
#: document, forty an order; one in fifty refused, one in a thousand carried to another region.
_RECORDS = """
    insert into access_record (id, region, at, phase, principal, role, action, intent, document,
        "order", kind, purpose, region_to, decision, reason, result, size_bytes)
    select case when begins then md5('intent' || n)::uuid else gen_random_uuid() end, 'uk',
        $1::timestamptz + make_interval(secs => n * 10),
        case when begins then 'intent' else 'outcome' end,
        'token:' || (hashint8(n / 2) & 511), 'porting', 'document.read',
        case when not begins then md5('intent' || n - 1)::uuid end,
        md5((n / 8)::text)::uuid, md5((n / 40)::text || 'o')::uuid, 'passport',
        case when begins then
            (array['verify-identity', 'submit-port', 'answer-carrier'])[1 + n / 2 % 3] end,
        case when begins then case when n % 1000 = 0 then 'sg' else 'uk' end end,
        case when n / 2 % 50 = 0 then 'deny' when begins then 'allow' end,
        case when n / 2 % 50 = 0 then 'role-may-not' when begins then 'allowed' end,
        case when not begins then 'completed' end, case when not begins then 61440 end
    from generate_series(0, $2::bigint - 1) n,
        lateral (select n % 2 = 0 or n / 2 % 50 = 0) pair (begins)
"""
_LEAVES = """
    insert into log_leaf (region, index, record, leaf_hash, at, action, principal, document,
        "order", purpose, decision, region_to)
    select region, row_number() over (order by at) - 1, id, sha256(uuid_send(id)), at, action,
        principal, document, "order", purpose, decision, region_to
    from access_record where region = 'uk'
"""


async def timed(what: str, count: int, step: Awaitable[object]) -> None:
    """Print how many records a second a step takes."""
    began = time.perf_counter()
    await step
    took = time.perf_counter() - began
    print(f"{what:>30} {count / took:>12,.0f} records/s ({took:.1f} s)", flush=True)


async def long_log(vault: Vault, owner: asyncpg.Connection, file: Path, records: int) -> None:
    """Print what is done with a log of so many records."""
    await owner.execute(_RECORDS, START, records, timeout=HOUR)

    async def order() -> None:
        while await sequence_log(vault, "uk"):
            pass

    print(f"a log of {records:,} records")
    await timed("ordering and signing", records, order())
    await timed("publishing", records, publish_log(vault, "uk"))

    async def export() -> None:
        with file.open("wb") as out:
            async with export_log(
                vault, COMPLIANCE, "uk", since=None, until=None, as_csv=False
            ) as pieces:
                async for piece in pieces:
                    out.write(piece)

    async def audit() -> None:
        made = Audit(vault.signer.vkey)
        with file.open("rb") as lines:
            for line in lines:
                made.take(line)
        assert made.verdict()["intact"]

    for what, step in (
        ("exporting", export()),
        ("auditing the export", audit()),
        ("verifying the database", verify_region(vault, COMPLIANCE, "uk")),
    ):
        forget_peak(os.getpid())
        before = peak_mib(os.getpid())
        await timed(what, records, step)
        print(f"{'':>30} memory {before:.0f} MiB before, {peak_mib(os.getpid()):.0f} at most")


async def fill(owner: asyncpg.Connection, records: int) -> None:
    """Put so many records into an empty log, with their places, by statements of the owner's."""
    indexes = await owner.fetch(
        """
        select indexrelid::regclass::text name, pg_get_indexdef(indexrelid) made from pg_index
        where indrelid = 'log_leaf'::regclass and not indisunique
        """
    )
    for index in indexes:
        await owner.execute(f"drop index {index['name']}")
    await owner.execute("alter table access_record disable trigger access_record_queue")
    await owner.execute(_RECORDS, START, records, timeout=HOUR)
    await owner.execute(_LEAVES, timeout=HOUR)
    for index in indexes:
        await owner.execute(index["made"], timeout=HOUR)
    await owner.execute("alter table access_record enable trigger access_record_queue")
    await owner.execute("vacuum analyze access_record, log_leaf", timeout=HOUR)
    await owner.execute("checkpoint", timeout=HOUR)


async def questions(vault: Vault, size: int) -> dict[str, Wanted]:
    """Return the questions of compliance, each about something that is in the log."""
    some = await vault.pool.fetchrow(
        'select document, "order", principal, at from log_leaf where index = $1', size // 2
    )
    assert some is not None
    return {
        "of a document": Wanted(document=some["document"]),
        "of an order": Wanted(order=some["order"]),
        "of a person": Wanted(principal=some["principal"]),
        "for a purpose": Wanted(purpose="verify-identity"),
        "of an action that is common": Wanted(action="document.read"),
        "of an action that is rare": Wanted(action="keys.seal"),
        "of an action that never was": Wanted(action="hold.release"),
        "refused": Wanted(refused=True),
        "transfers": Wanted(transfers=True),
        "of a person, in an old week": Wanted(
            principal=some["principal"], since=some["at"], until=some["at"] + timedelta(days=7)
        ),
        "of a person, for a purpose": Wanted(
            principal=some["principal"], purpose="verify-identity"
        ),
    }


async def searches(vault: Vault, size: int) -> None:
    """Print how long the questions take, each with its own record."""
    print(f"searches in a log of {size:,} records")
    for name, wanted in (await questions(vault, size)).items():
        took, found = list[float](), list[Found]()
        for _ in range(SEARCHES):
            began = time.perf_counter()
            # Of whom nothing is found and nothing is known is said to be nobody.
            with suppress(NotFoundError):
                found, _ = await list_records(
                    vault, COMPLIANCE, region="uk", wanted=wanted, cursor=None, limit=50
                )
            took.append((time.perf_counter() - began) * 1000)
        took.sort()
        print(
            f"{name:>30}: {len(found):>2} found, p50 {took[SEARCHES // 2]:.1f} ms, p10 to p90"
            f" {took[SEARCHES // 10]:.1f} to {took[SEARCHES * 9 // 10]:.1f} ms, worst"
            f" {took[-1]:.1f} ms",
            flush=True,
        )
