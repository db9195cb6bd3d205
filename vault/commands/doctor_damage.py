"""The doctor's look at what lies at rest: key trees and mirrors now, the rest as it is known."""

from datetime import UTC, datetime

import asyncpg

from keys.damage import DamagedError
from keys.errors import KeysError
from keys.keyring import Keyring
from vault.adapters.objects import open_store
from vault.app import attached, login, open_region_custodian
from vault.config import Config
from vault.errors import VaultError
from vault.sql import damage as damage_sql
from vault.sql.living import LivingRows

#: So many damaged things are named.
NAMED_MAX = 5
#: The worker's look is late when so many of its times have passed since one began.
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
    if look is None:
        return "ok", f"{region}: {walk.keys} keys open; the worker has not looked at the rest yet"
    late = (datetime.now(UTC) - look.began_at).total_seconds() / config.damage_look_seconds
    if late > LATE:
        return "warn", (
            f"{region}: {walk.keys} keys open; the worker has been looking at the rest since "
            f"{look.began_at:%Y-%m-%d}: let one run, or see in its log what keeps it"
        )
    return "ok", f"{region}: {walk.keys} keys open, and what the worker looked at"
