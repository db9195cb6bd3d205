"""What machines ask a process: is it up, can it serve, how does it do, what can it be asked."""

import math
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import partial

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from keys.ground.cache import Lookups
from vault.actions.expire import why_stopped
from vault.actions.health import parts_away, queues_of
from vault.actions.look import known_damage
from vault.context import Vault
from vault.errors import DatabaseUnavailableError, InvalidRequestError, VaultError
from vault.process.listener import Connections
from vault.sql.connection import connection
from vault.sql.health import last_times
from vault.web.problems import NOT_READY, problem
from vault.web.route import REGION, Parameter, Route

#: How long one look counts.
READY_SECONDS = 1.0
EXPIRY_SECONDS = 30.0
QUEUES_SECONDS = 30.0

REGISTRY = web.AppKey("registry", CollectorRegistry)
OPENAPI = web.AppKey("openapi", dict)
#: What became of carriers' webhooks, by carrier, result and reason.
HOOKS = web.AppKey("hooks", Counter)
#: When it was last written down that a carrier's webhook was not signed (monotonic seconds).
UNSIGNED: web.AppKey[dict[str, float]] = web.AppKey("unsigned", dict)


class Metrics:
    """Counts and times of requests, by route and status; never by anything a client chose."""

    def __init__(
        self, registry: CollectorRegistry, vault: Vault, connections: Connections | None
    ) -> None:
        self.requests = Counter(
            "portvault_requests_total",
            "Requests.",
            ["method", "route", "status"],
            registry=registry,
        )
        self.seconds = Histogram(
            "portvault_request_seconds", "Time to answer.", ["route"], registry=registry
        )
        self.hooks = Counter(
            "portvault_hooks_total",
            "Carriers' webhooks, and what became of them.",
            ["carrier", "result", "reason"],
            registry=registry,
        )
        limits = Gauge(
            "portvault_limit_signals",
            "How often a principal came near its limit of reads, reached it, or broke the glass.",
            ["level"],
            registry=registry,
        )
        for level in vault.meter.signals:
            limits.labels(level).set_function(partial(vault.meter.signals.__getitem__, level))
        waiting = Gauge(
            "portvault_log_waiting_seconds",
            "How long the oldest access record waits to be published, at most.",
            ["region"],
            registry=registry,
        )
        for region in vault.config.regions:
            waiting.labels(region).set_function(partial(vault.log_watch.seconds, region))
        if connections is not None:
            self._show(registry, connections)

    def _show(self, registry: CollectorRegistry, account: Connections) -> None:
        shown = Gauge(
            "portvault_connections",
            "Connections: open now, room for, and so far refused, or cut to make room.",
            ["state"],
            registry=registry,
        )
        shown.labels("open").set_function(lambda: account.open)
        shown.labels("room").set(account.room.places)
        shown.labels("refused").set_function(lambda: account.refused)
        shown.labels("cut").set_function(lambda: account.cut)


async def check_alive(request: web.Request) -> web.Response:
    """Answer that the process runs."""
    del request
    return web.json_response({"status": "alive"})


class Readiness:
    """
    What `parts_away` found, for all who ask within a moment.

    Strangers may ask as often as they like: the custodian and the store are asked once a second.
    """

    def __init__(self, vault: Vault, registry: CollectorRegistry) -> None:
        self._vault = vault
        self._looks = Lookups[None, Mapping[str, tuple[str, ...]]]()
        self._found: Mapping[str, tuple[str, ...]] = {}
        self._found_at = -math.inf
        self._ready = Gauge(
            "portvault_ready",
            "Whether this process could hand out a document of the region, when last asked.",
            ["region"],
            registry=registry,
        )

        passed_over = Gauge(
            "portvault_objects_passed_over",
            "Objects in the region's bucket that claim to be the vault's and do not verify.",
            ["region"],
            registry=registry,
        )
        for region in vault.config.regions:
            count = partial(vault.keyring.passed_over.count, region)
            passed_over.labels(region).set_function(count)
        met = Gauge(
            "portvault_damage_met",
            "How often something was asked for that is damaged at rest, since the process began.",
            ["region"],
            registry=registry,
        )
        for region in vault.config.regions:
            met.labels(region).set_function(partial(vault.keyring.met.count, region))

        self._damaged = Gauge(
            "portvault_damaged",
            "What is known to be damaged at rest in the region.",
            ["region"],
            registry=registry,
        )
        self._counted_at = -math.inf

    async def count_damage(self) -> None:
        """Bring the count of what is damaged up to date, once a second at most."""
        if time.monotonic() - self._counted_at <= READY_SECONDS:
            return
        self._counted_at = time.monotonic()
        with suppress(VaultError):
            found = await known_damage(self._vault)
            for region in self._vault.config.regions:
                self._damaged.labels(region).set(found.get(region, 0))

    async def parts_away(self) -> Mapping[str, tuple[str, ...]]:
        """Return, for each region, the parts without which nothing is handed out."""
        if time.monotonic() - self._found_at > READY_SECONDS:
            await self._looks.share(None, self._look)
        return self._found

    async def _look(self) -> Mapping[str, tuple[str, ...]]:
        self._found = await parts_away(self._vault)
        self._found_at = time.monotonic()
        for region, away in self._found.items():
            self._ready.labels(region).set(not away)
        return self._found


READINESS = web.AppKey("readiness", Readiness)


class Expiry:
    """
    Whether the worker has stopped to let go what is due, for all who ask for metrics.

    It is no part that is away: what is kept for too long can be read all the same.
    """

    def __init__(self, vault: Vault, registry: CollectorRegistry) -> None:
        self._vault = vault
        self._looks = Lookups[None, None]()
        self._looked_at = -math.inf
        self._stopped = Gauge(
            "portvault_expiry_stopped",
            "Whether nothing, or not everything, in the region goes by its time; see doctor.",
            ["region"],
            registry=registry,
        )

    async def look(self) -> None:
        """Ask the database, unless that was done within the last half minute."""
        if time.monotonic() - self._looked_at > EXPIRY_SECONDS:
            await self._looks.share(None, self._look)

    async def _look(self) -> None:
        try:
            async with connection(self._vault.pool) as conn:
                for region in self._vault.config.regions:
                    why = await why_stopped(self._vault.config, conn, region, self._vault.clock())
                    self._stopped.labels(region).set(why is not None)
        except DatabaseUnavailableError:
            # It is not known; that the database is away is told by others.
            self._stopped.clear()
        self._looked_at = time.monotonic()


EXPIRY = web.AppKey("expiry", Expiry)


class Queues:
    """How much waits, and when what is done again and again was last done, for metrics."""

    def __init__(self, vault: Vault, registry: CollectorRegistry) -> None:
        self._vault = vault
        self._looks = Lookups[None, None]()
        self._looked_at = -math.inf

        def gauge(name: str, help_text: str, label: str = "queue") -> Gauge:
            return Gauge(f"portvault_{name}", help_text, [label, "region"], registry=registry)

        self._count = gauge("queue_waiting", "How much waits in a queue; 10,000: that, or more.")
        self._oldest = gauge("queue_oldest_seconds", "How long the oldest of a queue waits.")
        self._late = gauge("queue_overdue", "Whether a queue waits for too long; see doctor.")
        self._last = gauge(
            "last_seconds", "How long ago a checkpoint, a seal, a mirror was written.", "what"
        )

    async def look(self) -> None:
        """Ask the database, unless that was done within the last half minute."""
        if time.monotonic() - self._looked_at > QUEUES_SECONDS:
            await self._looks.share(None, self._look)

    async def _look(self) -> None:
        try:
            async with connection(self._vault.pool) as conn:
                for region in self._vault.config.regions:
                    for queue in await queues_of(self._vault.config, conn, region):
                        labels = (queue.name, region)
                        self._count.labels(*labels).set(queue.length.count)
                        self._oldest.labels(*labels).set(queue.length.seconds)
                        self._late.labels(*labels).set(queue.late)
                    for what, seconds in (await last_times(conn, region)).items():
                        self._last.labels(what, region).set(seconds)
        except DatabaseUnavailableError:
            # It is not known; that the database is away is told by others.
            for known in (self._count, self._oldest, self._late, self._last):
                known.clear()
        self._looked_at = time.monotonic()


QUEUES = web.AppKey("queues", Queues)


async def check_ready(request: web.Request) -> web.Response:
    """
    Answer whether a document of every region, or of `?region=`, could be handed out; 503 where not.

    It names the parts that are away, `records`, `keys`, `tree`, `objects`, or overdue: `log`,
    `seals`.
    """
    found = await request.app[READINESS].parts_away()
    region = request.query.get("region")
    if region is not None and region not in found:
        raise InvalidRequestError(f"region is one of {', '.join(found)}")
    regions = {name: list(away) for name, away in found.items() if region in {None, name}}
    if not any(regions.values()):
        return web.json_response({"status": "ready", "regions": regions})
    away = "; ".join(f"{name}: {', '.join(parts)}" for name, parts in regions.items() if parts)
    return problem(
        NOT_READY,
        f"away or overdue are {away}; `portvault doctor` says what to do",
        regions=regions,
    )


async def show_metrics(request: web.Request) -> web.Response:
    """Answer in the Prometheus text format."""
    await request.app[READINESS].count_damage()
    await request.app[EXPIRY].look()
    await request.app[QUEUES].look()
    return web.Response(
        body=generate_latest(request.app[REGISTRY]), content_type="text/plain", charset="utf-8"
    )


async def show_openapi(request: web.Request) -> web.Response:
    """Answer the OpenAPI document."""
    return web.json_response(request.app[OPENAPI])


# ---- The routes that machines ask, without a token. ---------------------------------------------

ROUTES = (
    Route("GET", "/healthz", check_alive, "Is the process up?", 200, "Health", public=True),
    Route(
        "GET",
        "/readyz",
        check_ready,
        "Could a document be handed out?",
        200,
        "Readiness",
        query={"region": Parameter("Look at this region alone.", REGION)},
        refusals=(422, 503),
        public=True,
    ),
    Route("GET", "/metrics", show_metrics, "Prometheus metrics", 200, "text/plain", public=True),
    Route(
        "GET",
        "/openapi.json",
        show_openapi,
        "This document",
        200,
        "application/json",
        public=True,
    ),
)
