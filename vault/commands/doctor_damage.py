"""The doctor's look at what lies at rest: key trees and mirrors now, the rest as it is known."""

from datetime import UTC, datetime

import asyncpg

from keys.damage import DamagedError
from keys.errors import KeysError
from keys.keyring import Keyring
from vault.actions.bucket import require_own_store
from vault.actions.look import PARTS
from vault.adapters.objects import open_store
from vault.app import attached, login, open_region_custodian
from vault.commands.output import time_text
from vault.config import Config
from vault.errors import VaultError
from vault.sql import damage as damage_sql
from vault.sql.damage import Look
from vault.sql.documents import LivingRows

#: So many damaged things are named.
NAMED_MAX = 5
#: The worker's look is late when so many of its times have passed since one was whole.
LATE = 3


async def damage(config: Config, regions: list[str]) -> tuple[str, str]:
    """Open every key, read every mirror, and say what the worker's look has found."""
    async with (
        attached(config),
        asyncpg.create_pool(
            login(config),
            min_size=1,
            max_size=2,
            timeout=config.database_timeout_seconds,
        ) as pool,
    ):
        looked = [await _looked(config, pool, region) for region in regions]
    bad = [text for verdict, text in looked if verdict == "fail"]
    late = [text for verdict, text in looked if verdict == "warn"]
    if bad:
        return "fail", (
            f"{'; '.join(bad)}; `portvault repair --dry-run` looks at all of it again, forgets "
            "what is sound by now, and says what can be mended, and of the rest what to do"
        )
    return ("warn" if late else "ok"), "; ".join(late or [text for _, text in looked])


async def _looked(config: Config, pool: asyncpg.Pool, region: str) -> tuple[str, str]:
    """Look, where the parts are there: that they are not is a finding of its own."""
    try:
        return await _region(config, pool, region)
    except DamagedError as error:
        return "fail", str(error)
    except (KeysError, VaultError, OSError):
        return "warn", f"{region} could not be looked at: see what else failed"


async def _region(config: Config, pool: asyncpg.Pool, region: str) -> tuple[str, str]:
    custodian = open_region_custodian(config, region)
    store = open_store(
        config.objects_uri(region),
        access_key=config.s3_access_key,
        secret_key=config.s3_secret_key,
        region=config.s3_region,
        timeout_seconds=config.store_timeout_seconds,
    )
    try:
        await require_own_store(pool, store, region)
        keyring = Keyring(
            pool, {region: custodian}, {region: store}, LivingRows(), cache_seconds=0.0
        )
        walk = await keyring.verify(region)
    finally:
        await store.close()
        await custodian.close()
    async with pool.acquire() as conn:
        count, known = await damage_sql.known(conn, region, NAMED_MAX)
        look = await damage_sql.look_of(conn, region)
    found = {item.place: item for item in (*walk.findings, *known)}
    if found:
        more = max(count, len(found)) - NAMED_MAX
        named = "; ".join(str(item) for item in list(found.values())[:NAMED_MAX])
        return "fail", named + (f"; and {more} more in {region}" if more > 0 else "")
    verdict, rest = rest_of(look, datetime.now(UTC), config.damage_look_seconds)
    return verdict, (
        f"{region}: {walk.keys} keys open; {rest}; `portvault repair --region {region} --dry-run` "
        "looks at all of it now"
    )


def rest_of(look: Look | None, now: datetime, every_seconds: float) -> tuple[str, str]:
    """Return how far the worker has looked at what the doctor does not open, and since when."""
    if look is None:
        return "ok", "the worker has not looked at the rest yet"
    whole = "not yet" if look.whole_at is None else f"last at {time_text(look.whole_at)}"
    said = f"the worker looked at all of the rest {whole}"
    if look.ended_at is None:
        done = PARTS[: PARTS.index(look.part)] if look.part in PARTS else ()
        said += (
            f", and has been at it again since {time_text(look.began_at)}: "
            f"{', '.join(done) or 'nothing'} done, {look.part} under way"
        )
    if (now - (look.whole_at or look.began_at)).total_seconds() > LATE * every_seconds:
        return "warn", f"{said}: let a worker run, or see in its log what keeps it"
    return "ok", said
