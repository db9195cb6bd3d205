"""What the doctor looks at beside settings: stores, what lies at rest, expiry, policy."""

from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import asyncpg

from keys.damage import DamagedError, PassedOver
from keys.errors import (
    CustodianConfigurationError,
    CustodianUnavailableError,
    KeysError,
    RolledBackError,
)
from keys.keyring import Keyring
from keys.mirror import Mirror
from keys.notes.signing import SigningKeys
from vault.actions.bucket import (
    CHECKPOINT,
    MINIMUM,
    newest_note,
    require_identity,
    require_own_store,
    stored_identity,
)
from vault.actions.expire import why_stopped
from vault.actions.log_publish import less_than_bucket
from vault.actions.look import PARTS
from vault.adapters.objects import open_store
from vault.app import attached, login, open_region_custodian
from vault.commands.output import time_text
from vault.config.policies import load_policy
from vault.config.settings import Config
from vault.context import SIGNER_NAME, STORE_IDENTITY, ObjectStore
from vault.domain.checkpoint import open_checkpoint, open_minimum
from vault.domain.retention import parse_policy
from vault.errors import VaultError
from vault.sql import damage as damage_sql
from vault.sql import orders as orders_sql
from vault.sql.connection import Connection
from vault.sql.damage import Look
from vault.sql.documents import LivingRows

# ---- What the doctor takes from the database, to hold the other parts against. ------------------


@dataclass(slots=True)
class Known:
    """What the database says of each region: its tree's generation, its store, its log's state."""

    trees: dict[str, int] = field(default_factory=dict)
    #: Regions, each with a generation that was ever named.
    named: set[tuple[str, int]] = field(default_factory=set)
    #: Regions, each with a generation that its rows call destroyed, before the tree's.
    destroyed: set[tuple[str, int]] = field(default_factory=set)
    #: What the custodian opens where a tree's rows are the ones of its root key.
    root_wraps: dict[str, bytes] = field(default_factory=dict)
    stores: dict[str, str] = field(default_factory=dict)
    logs: dict[str, tuple[str, str]] = field(default_factory=dict)
    #: The mirror's highest number, and for how many seconds something has been waiting for a seal.
    mirrors: dict[str, int] = field(default_factory=dict)
    #: How long the log is that was signed, and how long the one that was published.
    sizes: dict[str, int] = field(default_factory=dict)
    published: dict[str, int] = field(default_factory=dict)
    waiting: dict[str, float] = field(default_factory=dict)
    #: Whether the schema is this release's, and there is a tree.
    current: bool = False
    #: Why the worker lets nothing go by its time.
    stopped: dict[str, str] = field(default_factory=dict)
    #: Orders of which a restore could not tell whether they have ended.
    orders: dict[str, tuple[str, str]] = field(default_factory=dict)
    #: What waits for too long.
    queues: dict[str, tuple[str, str]] = field(default_factory=dict)
    #: Whether a process of this vault runs, as far as the database knows.
    serving: tuple[str, str] | None = None
    #: How long an end waits for its reversal, where the database says it.
    grace: timedelta | None = None

    def state(self, region: str) -> tuple[int | None, ...]:
        """Return what a seal, a mirror or a published log changes."""
        each = (self.trees, self.mirrors, self.sizes, self.published)
        return tuple(found.get(region) for found in each)


# ---- The doctor's look at a region's store: it is the region's own, and knows no more than it
# may.


async def check_store(
    config: Config, region: str, known: Known, *, new: bool = False
) -> tuple[str, str]:
    """Look whether a region's store is its own, and knows no more than the database."""
    address = config.objects_uri(region)
    # A directory is its first start's to make: what is not known as the store is not written to.
    first = new or (region in known.mirrors and region not in known.stores)
    directory = address.partition(":")[2] if address.startswith("dir:") else None
    if first and directory is not None and not Path(directory).expanduser().exists():
        return "warn", f"{address} is not there yet; `portvault serve` makes it"
    store = open_store(
        address,
        access_key=config.s3_access_key,
        secret_key=config.s3_secret_key,
        region=config.s3_region,
        timeout_seconds=config.store_timeout_seconds,
    )
    try:
        if region in known.stores:
            await require_identity(store, region, known.stores[region])
        elif directory is not None and await stored_identity(store) is None:
            return "warn", (
                f"{address} carries no {STORE_IDENTITY}, and the database does not say that it "
                "should: `portvault serve` begins it, if that is the right directory, mounted"
            )
        await store.check()
        junk, noted = await _junk(config, region, known, store)
    except RolledBackError:
        return "fail", less_than_bucket(region)
    finally:
        await store.close()
    if noted is not None and noted > known.sizes.get(region, noted):
        return "fail", less_than_bucket(region)
    if noted is None and known.published.get(region):
        return "fail", (
            f"{address} holds no checkpoint of the log that this vault signed, though the log was "
            "published there. If it is the right bucket, and the signing key the right one, "
            f"`portvault repair --region {region}` writes it anew from the database; if the "
            f"bucket is another one, mend PORTVAULT_OBJECTS"
        )
    if junk:
        return "warn", (
            f"{address}: {len(junk)} objects claim to be the vault's and do not verify; they are "
            f"passed over, find out who put them there, then remove them: {', '.join(junk)}"
        )
    return "ok", address


async def _junk(
    config: Config, region: str, known: Known, store: ObjectStore
) -> tuple[list[str], int | None]:
    """
    Return names of objects in the bucket that the vault passes over, and the checkpoint's size.

    Raises `RolledBackError` where the bucket knows a later segment of the mirror.
    """
    passed_over, sizes = PassedOver(), dict[str, int]()
    if config.signing_key_path.exists():
        signer = SigningKeys(config.signing_key_path, SIGNER_NAME)
        for kind, opened in ((CHECKPOINT, open_checkpoint), (MINIMUM, open_minimum)):
            verify = partial(opened, opener=signer, region=region)
            found = await newest_note(store, region, kind, verify, passed_over, required=False)
            sizes |= {kind: found[0].size} if found else {}
    if region in known.mirrors:
        # A custodian that cannot be used is a finding of its own.
        with suppress(CustodianConfigurationError, CustodianUnavailableError):
            await _pass_over_segments(config, region, known.mirrors[region], store, passed_over)
    return passed_over.names(region), sizes.get(CHECKPOINT)


async def _pass_over_segments(
    config: Config, region: str, mirrored: int, store: ObjectStore, passed_over: PassedOver
) -> None:
    """Look for segments of the mirror that are later than any that was written."""
    custodian = open_region_custodian(config, region)
    try:
        await Mirror(store, custodian, region, passed_over).require_none_later(mirrored)
    finally:
        await custodian.close()


# ---- The doctor's look at what lies at rest: key trees and mirrors now, the rest as it is known.

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


# ---- What the doctor says of what does not go by its time, though it may have come. -------------


async def stopped(config: Config, conn: Connection) -> dict[str, str]:
    """Return of each region in which not everything goes by its time why that is."""
    now, found = datetime.now(UTC), dict[str, str]()
    for region in config.regions:
        if why := await why_stopped(config, conn, region, now):
            found[region] = why
    return found


async def ends_not_known(config: Config, conn: Connection) -> dict[str, tuple[str, str]]:
    """Return of each region that orders in it may have ended, which a restore could not tell."""
    found = dict[str, tuple[str, str]]()
    for region in config.regions:
        if count := await orders_sql.count_end_not_known(conn, region):
            orders = "1 order is" if count == 1 else f"{count} orders are"
            said = (
                f"{orders} open since a restore though a carrier had said its end, so nothing of "
                "it goes by its time: `portvault order list` shows what was recovered; say the end "
                "with `portvault order complete ID` or `cancel ID`"
            )
            found[region] = ("warn", said)
    return found


# ---- What `portvault doctor` says of the retention policy: its rows, and the grace in force.


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
