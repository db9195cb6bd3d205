"""`portvault doctor`: checks each part on its own, and says what to do about what is wrong."""

import argparse
import asyncio
import re
import resource
import shutil
import stat
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import asyncpg

from keys import generations
from keys.custodian import Custodian, MovingCustodian, destroy_elsewhere
from keys.errors import CUSTODIAN_CHANGED, ForeignKeysError, KeysError
from keys.mirror_rows import progress
from keys.status import seal_overdue
from keys.wrap import root_context
from vault.actions.health import queues_of
from vault.adapters.committer import APPLICATION
from vault.adapters.postgres.cluster import is_confined
from vault.adapters.sandbox import MagicSniffer
from vault.app import EMBEDDED, attached, login, make_sandbox, open_region_custodian
from vault.commands.doctor_looks import Known, check_store, damage, ends_not_known, policy, stopped
from vault.commands.operator import database_errors
from vault.commands.output import show, table
from vault.commands.parser import SUMMARIES, Tree
from vault.config.settings import Config, load_config
from vault.errors import VaultError
from vault.migrate import pending
from vault.process.listener import DESCRIPTORS_EACH, DESCRIPTORS_KEPT, Room
from vault.sql import expiry as expiry_sql
from vault.sql.connection import Connection
from vault.sql.health import store_ids
from vault.sql.log import latest_checkpoint, waiting_seconds
from vault.sql.log_published import published_size
from vault.sql.retention import newest_policy
from vault.sql.session import (
    SERVICE_ROLE,
    powers,
    require_durable_tables,
    require_own_session,
    require_server,
    require_session,
)

CHECK_SECONDS = 60.0
CLOCK_SECONDS_MAX = 2.0
#: Whoever looked at a region so lately is at work: a worker looks every few seconds.
LOOKED_SECONDS = 10.0
FREE_BYTES_MIN = 1024**3
#: They stand for the region while findings are compared, and for it within an address.
REGION, PLACE = "\N{PLACE OF INTEREST SIGN}", "\N{ROUND PUSHPIN}"
#: Queues that a check of their own looks at.
OWN_LINES = frozenset({"log", "seal"})


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found: `ok`, `warn` or `fail`, and a sentence."""

    check: str
    verdict: str
    detail: str


#: How often what moves meanwhile is looked at again.
LOOKS_MAX = 20
Check = Callable[[], Awaitable[tuple[str, str]]]


async def doctor(args: argparse.Namespace) -> None:
    """Check each part on its own, all but the database at once; raises when something failed."""
    config = load_config()
    # Asked once: a look must not make a home.
    new = not config.home.exists()
    known = Known()
    database = await _find("database", partial(_database, config, known, new=new))
    checks: dict[str, Check] = {
        "home": partial(_home, config),
        "descriptors": partial(_descriptors, config),
        "libmagic": partial(_libmagic, config),
        "policy": partial(policy, config, known.grace),
    }
    if known.current:
        checks["at rest"] = partial(damage, config, [r for r in config.regions if r in known.trees])
    for region in config.regions:
        checks[f"store {region}"] = partial(check_store, config, region, known, new=new)
        checks[f"custodian {region}"] = partial(check_custodian, config, region, known)
        if known.waiting.get(region, 0) > config.seal_seconds_max:
            checks[f"seal {region}"] = partial(_seal, region, known.waiting[region])
    findings = await asyncio.gather(*(_find(name, check) for name, check in checks.items()))
    findings = [await settled(config, known, item, checks[item.check]) for item in findings]
    expiry = [Finding(f"expiry {region}", "fail", why) for region, why in known.stopped.items()]
    published = [Finding(f"log {region}", *found) for region, found in known.logs.items()]
    queues = [Finding(f"queues {region}", *found) for region, found in known.queues.items()]
    orders = [Finding(f"orders {region}", *found) for region, found in known.orders.items()]
    serving = [Finding("serving", *known.serving)] if known.serving else []
    found = (database, *serving, *findings, *expiry, *orders, *published, *queues)
    rows = [asdict(finding) for finding in found]
    told = [asdict(finding) for finding in together(found)]
    show(rows, table(told, ("verdict", "check", "detail")), as_json=args.json)
    failed = [row["check"] for row in rows if row["verdict"] == "fail"]
    if failed:
        raise VaultError(f"mend what failed, then check again: {', '.join(failed)}")


def together(findings: Iterable[Finding]) -> list[Finding]:
    """Return findings for people: what is found alike of several regions is said once."""
    alike: dict[tuple[str, str, str], list[str]] = {}
    for finding in findings:
        part, _, region = finding.check.partition(" ")
        detail = finding.detail
        if region:
            # Within an address, as the settings write it.
            detail = re.sub(rf"(?<=[/-]){region}\b", PLACE, detail)
            detail = re.sub(rf"\b{region}\b", REGION, detail)
        alike.setdefault((part, finding.verdict, detail), []).append(region)
    return [
        Finding(
            f"{part} {(names := ', '.join(regions))}".rstrip(),
            verdict,
            detail.replace(REGION, names).replace(PLACE, "{region}" if len(regions) > 1 else names),
        )
        for (part, verdict, detail), regions in alike.items()
    ]


async def _find(name: str, check: Check) -> Finding:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            return Finding(name, *await check())
    except (VaultError, KeysError) as error:
        return Finding(name, "fail", " ".join(str(error).split()))
    except TimeoutError:
        return Finding(
            name, "fail", f"no answer within {CHECK_SECONDS:g} seconds; is it reachable?"
        )
    except Exception as error:  # noqa: BLE001 - a check that breaks must not hide the others
        return Finding(name, "fail", f"{type(error).__name__}: {error}")


async def settled(config: Config, known: Known, finding: Finding, check: Check) -> Finding:
    """
    Return what a check finds while the database says the same before and after it.

    A running vault seals, mirrors and publishes between a look at the database and one at a bucket
    or custodian, which then would seem to know more than the database.
    """
    part, _, region = finding.check.partition(" ")
    wrong = {"custodian": {"fail"}, "store": {"warn", "fail"}}.get(part, set())
    for _ in range(LOOKS_MAX):
        if finding.verdict not in wrong or region not in known.mirrors:
            break
        before = known.state(region)
        async with attached(config):
            conn = await asyncpg.connect(login(config), timeout=config.database_timeout_seconds)
            try:
                await ask_state(config, conn, known)
            finally:
                await conn.close()
        if known.state(region) == before:
            break
        finding = await _find(finding.check, check)
    return finding


async def _home(config: Config) -> tuple[str, str]:
    for path in (config.home, config.signing_key_path.parent):
        if path.exists() and stat.S_IMODE(path.stat().st_mode) & 0o077:
            return "fail", f"others may enter {path}: chmod 700 {path}"
    key = config.signing_key_path
    if key.exists() and stat.S_IMODE(key.stat().st_mode) & 0o077:
        return "fail", f"others may read {key}: chmod 600 {key}"
    free = shutil.disk_usage(_existing(config.home)).free
    if free < FREE_BYTES_MIN:
        return "warn", f"only {free // 1024**2} MiB are free at {config.home}; make room"
    return "ok", f"{config.home}, {free // 1024**3} GiB free"


async def _descriptors(config: Config) -> tuple[str, str]:
    """Say what the limit of descriptors is worth: this shell's; a service may have another."""
    room = Room.of(config, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    worth = (
        f"{room.descriptors} descriptors are worth {room.places} connections, "
        f"{room.places_per_address} of one address"
    )
    if room.places < config.connections_max:
        wanted = DESCRIPTORS_KEPT + DESCRIPTORS_EACH * config.connections_max
        return "warn", (
            f"{worth}, of the {config.connections_max} of connections_max: raise the hard limit to "
            f"{wanted} (LimitNOFILE= in a systemd unit, ulimit -Hn in a shell)"
        )
    return "ok", worth


def _existing(path: Path) -> Path:
    return path if path.exists() else _existing(path.parent)


async def _database(config: Config, known: Known, *, new: bool) -> tuple[str, str]:
    if config.database == EMBEDDED and new:
        return "warn", f"{config.home} holds no vault yet; `portvault serve` makes one"
    with database_errors():
        return await _ask_database(config, known)


async def _ask_database(config: Config, known: Known) -> tuple[str, str]:
    """Look at the database; `known` receives what other checks take from it."""
    async with attached(config) as dsn:
        conn = await asyncpg.connect(login(config), timeout=config.database_timeout_seconds)
        try:
            require_server(conn)
            await require_own_session(conn, login(config))
            version = conn.get_server_version().major
            sums = await conn.fetchval("select current_setting('data_checksums')")
            now = await conn.fetchval("select clock_timestamp()")
            known.stores.update(await store_ids(conn))
            waiting = await pending(dsn)
            await ask_state(config, conn, known, old=bool(waiting))
            if not waiting:
                known.logs.update(await _logs(config, conn))
                known.stopped.update(await stopped(config, conn))
                known.orders.update(await ends_not_known(config, conn))
                newest = await newest_policy(conn)
                known.grace = newest.grace if newest else None
                known.queues.update(await _queues(config, conn))
                known.serving = await _serving(conn)
            for region in () if waiting else known.trees:
                known.waiting[region] = await generations.waiting_seconds(conn, region)
            known.current = not waiting and bool(known.trees)
            if wrong := await _wrong_session(conn):
                return "fail", wrong
        finally:
            await conn.close()
        off = abs((datetime.now(UTC) - now).total_seconds())
    if off > CLOCK_SECONDS_MAX:
        return "fail", f"its clock and this machine's are {off:.0f} s apart; set both by NTP"
    if waiting:
        return "warn", f"{len(waiting)} migrations wait: portvault migrate"
    if config.database == EMBEDDED and not is_confined():
        return "warn", (
            "the kernel has no Landlock, so the embedded PostgreSQL may read what its account may, "
            "and where root runs it in a closed directory every file: use a kernel of 5.13 or later"
        )
    if sums != "on":
        return "warn", "data checksums are off; enable them with pg_checksums"
    return "ok", f"PostgreSQL {version}, checksums on, clocks agree"


async def ask_state(
    config: Config, conn: asyncpg.Connection, known: Known, *, old: bool = False
) -> None:
    """Ask what is to agree with the buckets and custodians; of an old schema only the trees."""
    empty = await conn.fetchval("select to_regclass('key_tree') is null")
    if not empty:
        rows = await conn.fetch("select region, generation, root_wrap from key_tree")
        known.trees.update((row["region"], row["generation"]) for row in rows)
        known.root_wraps.update((row["region"], row["root_wrap"]) for row in rows)
        rows = await conn.fetch("select region, generation, state from key_generation")
        known.named.update((row["region"], row["generation"]) for row in rows)
        known.destroyed.update(
            (row["region"], row["generation"])
            for row in rows
            if row["state"] == "destroyed" and row["generation"] < known.trees.get(row["region"], 0)
        )
        if old:
            return
    for region in config.regions:
        mirror = None if empty else await progress(conn, region)
        signed = None if empty else await latest_checkpoint(conn, region)
        known.mirrors[region] = mirror.intended if mirror else 0
        known.sizes[region] = signed.size if signed else 0
        known.published[region] = 0 if empty else await published_size(conn, region)


async def _wrong_session(conn: asyncpg.Connection) -> str | None:
    """Return what makes the service's sessions unsafe, if anything."""
    await require_session(conn, {})
    await require_durable_tables(conn)
    if (much := await powers(conn)) is None:
        return None
    return (
        f"the vault logs in with more than it needs: {much}. Make an account that owns nothing "
        f"(create role NAME login password '…' in role {SERVICE_ROLE}), give its address in "
        "PORTVAULT_DATABASE, and the owner's in PORTVAULT_DATABASE_OWNER to who migrates"
    )


async def _logs(config: Config, conn: Connection) -> dict[str, tuple[str, str]]:
    """Return of each region's log whether it is published, which takes a worker."""
    seconds_max, found = config.record_publish_seconds_max, dict[str, tuple[str, str]]()
    serving = await _is_serving(conn)
    for region, seconds in (await waiting_seconds(conn, config.regions)).items():
        if seconds is None or seconds <= seconds_max:
            found[region] = "ok", "published"
            continue
        detail = (
            f"records wait for {seconds:.0f} s to be published, so nothing is handed out: let "
            "`portvault worker` run, or `portvault serve` with worker = true; where one runs, its "
            "log says why it cannot publish"
        )
        found[region] = "fail" if serving else "warn", detail
    return found


async def _serving(conn: Connection) -> tuple[str, str]:
    """Return whether anything serves; where nothing does, when a worker last looked."""
    look = await expiry_sql.seconds_since_look(conn)
    if await _is_serving(conn) or (look is not None and look[1] < LOOKED_SECONDS):
        return "ok", "a process of this vault is at work"
    last = f"; a worker last looked at {look[0]:%Y-%m-%d %H:%M:%S} UTC" if look else ""
    return "warn", (
        f"no process of this vault is connected to the database{last}: start `portvault serve`, "
        "unless it was stopped on purpose"
    )


async def _is_serving(conn: Connection) -> bool:
    found: bool = await conn.fetchval(
        "select exists (select from pg_stat_activity where application_name = $1)", APPLICATION
    )
    return found


async def _queues(config: Config, conn: Connection) -> dict[str, tuple[str, str]]:
    """Return of each region what waits for too long, but for what has a line of its own."""
    found, serving = dict[str, tuple[str, str]](), await _is_serving(conn)
    for region in config.regions:
        late = [
            str(queue)
            for queue in await queues_of(config, conn, region)
            if queue.late and queue.name not in OWN_LINES
        ]
        verdict = "fail" if serving else "warn"
        found[region] = (verdict, "; ".join(late)) if late else ("ok", "nothing waits for too long")
    return found


async def _seal(region: str, waiting: float) -> tuple[str, str]:
    return "fail", seal_overdue(region, waiting)


async def check_custodian(config: Config, region: str, known: Known) -> tuple[str, str]:
    """Look whether a region's custodian has the root key that the database names."""
    tree = known.trees.get(region)
    custodians = {each: open_region_custodian(config, each) for each in config.regions}
    custodian = custodians[region]
    try:
        await custodian.check()
        living = await custodian.generations(region)
        returned = await _returned(custodian, region, living, known)
        for generation in returned:
            await custodian.destroy(region, generation)
        elsewhere = await destroy_elsewhere(custodians, region)
        moved = isinstance(custodian, MovingCustodian) and await custodian.is_moved(region)
    finally:
        for each in custodians.values():
            await each.close()
    if returned or elsewhere:
        where = custodian.name if returned else "a custodian where the region was before"
        numbers = sorted({*returned, *elsewhere})
        said = "key of generation" if len(numbers) == 1 else "keys of generations"
        return "fail", (
            f"the destroyed root {said} {', '.join(map(str, numbers))} of {region} had come back "
            f"to {where}, and opened what was sealed; just now destroyed again: find the copy "
            "that was used, and who made it"
        )
    if tree is not None and tree not in living:
        return "fail", (
            f"{custodian.name} has no root key of generation {tree}, under which all of {region} "
            f"lies: mount its disk or bring its keys back; {CUSTODIAN_CHANGED}; where the database "
            "is from a backup or a late standby, `portvault restore --dry-run`"
        )
    foreign = [generation for generation in living if (region, generation) not in known.named]
    if foreign and tree is None and region in known.mirrors:
        return "fail", str(ForeignKeysError(custodian.name, region, foreign))
    if not living:
        return "warn", (
            f"{custodian.name} has no root key of {region}: `portvault serve` makes the first one"
        )
    if moved:
        return "warn", f"{custodian.name} holds all of {region}: done, take custodian_before out"
    if config.custodian_before_uri(region) is not None:
        return "warn", (
            f"{custodian.name} takes over from {config.custodian_before_uri(region)}: run "
            f"`portvault keys rotate-custodian --region {region}`, then take custodian_before out"
        )
    if custodian.destroy_level == 0:
        return "warn", (
            f"{custodian.name}, level 0: {custodian.destroy_promise} Where that is not enough, "
            "name an HSM (pkcs11:) or a key service (transit:) as the custodian and run `portvault "
            "keys rotate-custodian` for each region; else keep copies of that directory nowhere"
        )
    return "ok", (
        f"{custodian.name}, {len(living)} generations, level {custodian.destroy_level}: "
        f"{custodian.destroy_promise}"
    )


async def _returned(
    custodian: Custodian, region: str, living: list[int], known: Known
) -> list[int]:
    """
    Return what was destroyed and lies in the custodian, by its own word or by the tree's rows.

    The rows are believed only beside a tree that opens, as before a seal.
    """
    returned = set(await custodian.returned(region))
    said = {number for number in living if (region, number) in known.destroyed}
    if said:
        tree, root_wrap = known.trees[region], known.root_wraps[region]
        with suppress(KeysError):
            await custodian.unwrap(region, tree, root_wrap, root_context(region, tree))
            returned |= said
    return sorted(returned)


async def _libmagic(config: Config) -> tuple[str, str]:
    sandbox = make_sandbox(config)
    try:
        await MagicSniffer(sandbox).check()
    finally:
        await sandbox.close()
    return "ok", "works"


def add(tree: Tree) -> None:
    """Add the command `doctor`."""
    tree.command("doctor", doctor, SUMMARIES["doctor"], "portvault doctor", checks=True)
