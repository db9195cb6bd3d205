"""The only wiring: from a configuration to a vault, a server and a worker."""

import asyncio
import contextlib
import logging
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from importlib.resources import files
from typing import Any

import asyncpg

from keys.custodian import Custodian, MovingCustodian
from keys.custodians import open_custodian
from keys.errors import RolledBackError
from keys.generations import listen_for_seals
from keys.ground.cache import Cache
from keys.keyring import Keyring
from keys.notes.signing import SigningKeys
from vault.actions.bucket import is_store_known, require_own_store, take_store
from vault.actions.log_publish import less_than_bucket, require_not_behind, require_own_key
from vault.actions.policy import start_grace, start_policy
from vault.adapters.committer import GroupCommitter, GroupRecorder
from vault.adapters.courier import HttpCourier
from vault.adapters.mailer import SmtpMailer
from vault.adapters.objects import open_store
from vault.adapters.postgres.embedded import EmbeddedPostgres, embedded_database, service_address
from vault.adapters.process import keep_pages, look_less, stop_signals
from vault.adapters.sandbox import MagicSniffer, SandboxedChildren
from vault.config.policies import load_policy, read_rules
from vault.config.settings import Config
from vault.context import SIGNER_NAME, ObjectStore, People, Vault
from vault.domain.fax_mail import Routes, check_hosts, parse_routes
from vault.domain.records import LogPolicy, parse_log_policy
from vault.migrate import migrate
from vault.process.meter import Meter, Refused
from vault.process.streams import Streams
from vault.process.watches import DamageWatch, IntakeMemory, LogWatch
from vault.sql.connection import connection
from vault.sql.documents import LivingRows
from vault.sql.session import (
    SERVICE_SESSION,
    powers,
    require_durable_tables,
    require_own_session,
    require_session,
)

# ---- Wires what faxes need beside the rest: their table, the sandbox, and who takes their mail.


def load_routes(config: Config) -> Routes:
    """Read where faxes go by mail, from `faxes.toml` beside the data; without it none does."""
    own = config.home / "faxes.toml"
    routes = parse_routes(own.read_text(encoding="utf-8")) if own.exists() else Routes()
    return check_hosts(routes, config.fax_smtp)


def make_sandbox(config: Config) -> SandboxedChildren:
    """Return the sandbox, whose children start when they are needed."""
    return SandboxedChildren(
        processes=config.sandbox_processes_max,
        timeout_seconds=config.sandbox_timeout_seconds,
        memory_bytes=config.sandbox_memory_bytes_max,
    )


def make_mailer(config: Config) -> SmtpMailer:
    """Return who hands mail to its next hop."""
    return SmtpMailer(
        host=config.fax_smtp,
        sender=config.fax_mail_from,
        user=config.fax_smtp_user,
        password_file=config.fax_smtp_password_file,
        timeout_seconds=config.fax_mail_seconds_max,
    )


# ---- App. ---------------------------------------------------------------------------------------

log = logging.getLogger(__name__)

EMBEDDED = "embedded:"
ORDER_REGIONS_SECONDS, ORDER_REGIONS_MAX = 3600.0, 10_000
#: After what runs beside the vault has failed.
BEGIN_AGAIN_SECONDS = 0.5


def load_log_policy(config: Config) -> LogPolicy:
    """Read how long the log is kept, in the same way."""
    own = config.home / "log.toml"
    shipped = files("vault") / "policy" / "log.toml"
    return parse_log_policy((own if own.exists() else shipped).read_text(encoding="utf-8"))


@asynccontextmanager
async def open_vault(
    config: Config, *, dsn: str | None = None, restoring: bool = False
) -> AsyncIterator[Vault]:
    """
    Wire a vault for a command that comes and goes, or for a server that has its database already.

    `dsn` is where the service logs in; without it the embedded database is attached to, or run
    meanwhile, and migrations are applied. A database that was rolled back is refused, unless it is
    about to be restored.
    """
    async with AsyncExitStack() as stack:
        if dsn is None:
            await migrate(await stack.enter_async_context(attached(config)))
            dsn = login(config)
        # A restore changes what nobody else may, and takes its time for it.
        asked = {} if restoring else _session(config)
        pool = await stack.enter_async_context(
            asyncpg.create_pool(
                dsn,
                min_size=1,
                max_size=config.database_pool_max,
                command_timeout=config.database_timeout_seconds,
                # Every statement leaves its connection as it was: there is nothing to reset.
                reset=_keep_session,
                server_settings=asked,
                init=partial(require_session, asked=asked),
            )
        )
        await _look_at(pool, dsn)
        stores: dict[str, ObjectStore] = {}
        custodians: dict[str, Custodian] = {}
        for region in config.regions:
            custodians[region] = open_region_custodian(config, region)
            stack.push_async_callback(custodians[region].close)
            stores[region] = open_store(
                config.objects_uri(region),
                access_key=config.s3_access_key,
                secret_key=config.s3_secret_key,
                region=config.s3_region,
                timeout_seconds=config.store_timeout_seconds,
                make=not restoring and not await is_store_known(pool, region),
            )
            stack.push_async_callback(stores[region].close)
            if restoring:
                await require_own_store(pool, stores[region], region)
            else:
                await take_store(pool, stores[region], region, uuid.uuid4().hex)
        keyring = Keyring(
            pool,
            custodians,
            stores,
            LivingRows(),
            standbys=config.standbys,
            cache_seconds=config.key_cache_seconds,
        )
        for region in config.regions:
            await custodians[region].check()
            if not restoring:
                await _start_region(keyring, region)
        if not restoring:
            await stack.enter_async_context(
                _running(partial(listen_for_seals, dsn, keyring.forget))
            )
        recorder = await stack.enter_async_context(
            GroupRecorder(dsn, timeout_seconds=config.record_timeout_seconds)
        )
        committer = await stack.enter_async_context(
            GroupCommitter(
                dsn,
                pool,
                timeout_seconds=config.database_timeout_seconds,
                record_timeout_seconds=config.record_timeout_seconds,
            )
        )
        meter = Meter(pool, config, _now)
        await stack.enter_async_context(_running(meter.run))
        watch = LogWatch(pool, config.regions, seconds_max=config.record_publish_seconds_max)
        if not restoring:
            await watch.look()
            await stack.enter_async_context(_running(watch.run))
        damage_watch = DamageWatch(pool, keyring.met, _now)
        if not restoring:
            await stack.enter_async_context(_running(damage_watch.run))
        rules = read_rules(config.home)
        streams = Streams(pool, config, rules, meter, _now)
        await stack.enter_async_context(_running(streams.run))
        refused = Refused(config, recorder, _now, uuid.uuid4)
        await stack.enter_async_context(_running(refused.run))
        sandbox = make_sandbox(config)
        stack.push_async_callback(sandbox.close)
        vault = Vault(
            config=config,
            pool=pool,
            keyring=keyring,
            recorder=recorder,
            committer=committer,
            stores=stores,
            sniffer=MagicSniffer(sandbox),
            sandbox=sandbox,
            mailer=make_mailer(config),
            signer=SigningKeys(config.signing_key_path, SIGNER_NAME),
            courier=HttpCourier(),
            policy_text=load_policy(config),
            log_policy=load_log_policy(config),
            order_regions=Cache(ORDER_REGIONS_SECONDS, ORDER_REGIONS_MAX),
            rules=rules,
            fax_routes=load_routes(config),
            meter=meter,
            log_watch=watch,
            damage_watch=damage_watch,
            streams=streams,
            refused=refused,
            people=_open_people(config),
            memory=IntakeMemory(config.intake_memory_bytes_max),
            clock=_now,
            new_id=uuid.uuid4,
        )
        if not restoring:
            for region in config.regions:
                async with connection(pool) as conn:
                    await require_own_key(vault, conn, region)
                    await require_not_behind(vault, conn, region)
            if not await start_policy(vault):
                log.warning(
                    "retention.toml is not the policy in force: `portvault retention effect` says "
                    "what it would change, `portvault retention apply` puts it in force"
                )
        yield vault


async def _start_region(keyring: Keyring, region: str) -> None:
    try:
        await keyring.start_region(region)
    except RolledBackError:
        raise RolledBackError(less_than_bucket(region)) from None


def _open_people(config: Config) -> People | None:
    """Open the identity provider, where there is one."""
    if not config.oidc_issuer:
        return None
    from vault.adapters.oidc import open_people

    return open_people(config)


def open_region_custodian(config: Config, region: str) -> Custodian:
    """Open the region's custodian, with the one before it while its key is moved."""
    custodian = open_custodian(config.custodian_uri(region))
    before = config.custodian_before_uri(region)
    return MovingCustodian(custodian, open_custodian(before)) if before else custodian


async def serve(config: Config) -> None:
    """Serve, and work where the configuration says so, until a signal asks to stop."""
    # Entrances and their libraries are loaded by who serves, not by every command.
    from vault.adapters.warm import warm
    from vault.mail.listener import listening
    from vault.web.listening import open_account, serving
    from vault.worker import work, write_last

    keep_pages()
    warm()
    async with _owned(config) as (owner, postgres):
        await migrate(owner)
        async with (
            open_vault(config, dsn=login(config)) as vault,
            _ending(vault, write_last if config.worker else None),
            serving(config, vault, connections := open_account(config)) as address,
            listening(vault, connections),
        ):
            await _start_grace(vault)
            print(
                f"Portvault serves on {address}\n"
                "To make a token, in another terminal: "
                "portvault token create --role porting --region uk\n"
                "Stop with Ctrl-C.",
                flush=True,
            )
            steps = [work(vault)] if config.worker else []
            if postgres is not None:
                steps.append(postgres.supervise())
            look_less()
            await _until_stopped(*steps)


@asynccontextmanager
async def _ending(
    vault: Vault, last: Callable[[Vault], Coroutine[Any, Any, None]] | None
) -> AsyncIterator[None]:
    """Do what comes last, once the block has ended without an error."""
    yield
    if last is not None:
        await last(vault)


async def work_only(config: Config) -> None:
    """Run the reconcilers without a server, until a signal asks to stop."""
    from vault.adapters.warm import warm
    from vault.worker import work, write_last

    warm()
    async with open_vault(config) as vault:
        await _start_grace(vault)
        look_less()
        await _until_stopped(work(vault))
        await write_last(vault)


async def _start_grace(vault: Vault) -> None:
    if (earlier := await start_grace(vault)) is not None:
        log.warning(
            "reversal_grace_seconds was %g, and from now on is %g in every process; set the same "
            "on every machine, since the last one that starts says it",
            earlier.total_seconds(),
            vault.config.reversal_grace_seconds,
        )


async def _until_stopped(*steps: Coroutine[Any, Any, None]) -> None:
    """Run the steps until a signal asks to stop; a step that fails ends them all."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in stop_signals():
        loop.add_signal_handler(number, stop.set)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(step) for step in steps]
        await stop.wait()
        for task in tasks:
            task.cancel()


@asynccontextmanager
async def _running(step: Callable[[], Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    """Run a step beside the block, and cancel it at the end."""
    task = asyncio.create_task(_for_good(step))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _for_good(step: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a step until cancelled; one that fails, in whatever way, begins again."""
    task = asyncio.current_task()
    while task is not None and not task.cancelling():
        try:
            await step()
        except Exception:
            log.exception("something that runs beside the vault failed, and begins again")
            if not task.cancelling():
                await asyncio.sleep(BEGIN_AGAIN_SECONDS)


@asynccontextmanager
async def _owned(config: Config) -> AsyncIterator[tuple[str, EmbeddedPostgres | None]]:
    """Give the owner's address of the database that this process is to serve for its life."""
    if config.database != EMBEDDED:
        yield config.database_owner or config.database, None
        return
    postgres = EmbeddedPostgres(config.home)
    dsn = await postgres.start()
    try:
        yield dsn, postgres
    finally:
        await postgres.stop()


@asynccontextmanager
async def attached(config: Config) -> AsyncIterator[str]:
    """Give the owner's address of the database; the embedded one is attached to, or run."""
    if config.database != EMBEDDED:
        yield config.database_owner or config.database
        return
    async with embedded_database(config.home) as dsn:
        yield dsn


def login(config: Config) -> str:
    """Return the address at which the service logs in, once the database runs."""
    return service_address(config.home) if config.database == EMBEDDED else config.database


async def _look_at(pool: asyncpg.Pool, dsn: str) -> None:
    """Refuse sessions that are shared and tables that lose rows; warn of an account too strong."""
    async with connection(pool) as conn:
        await require_own_session(conn, dsn)
        await require_durable_tables(conn)
        if (much := await powers(conn)) is not None:
            log.warning("the vault logs in with more than it needs: %s (`portvault doctor`)", much)


def _session(config: Config) -> dict[str, str]:
    idle = f"{int(config.database_idle_seconds * 1000)}ms"
    return {
        **SERVICE_SESSION,
        "idle_session_timeout": idle,
        "idle_in_transaction_session_timeout": idle,
    }


async def _keep_session(conn: object) -> None:
    del conn


def _now() -> datetime:
    return datetime.now(UTC)
