"""A clock that jumps shreds nothing: not where it is the database's own clock, and not in bulk."""

from datetime import timedelta
from uuid import UUID

import pytest

from tests.fixtures_server import OPERATOR, SAMPLES, Api, serving
from tests.retention_house import (
    ADMIN,
    DPO,
    OTHER_DPO,
    Clock,
    clocked,
    custody,
    end,
    new_order,
    put,
    sweep,
)
from vault.actions.approvals import approve, decline, request_approval
from vault.actions.credentials import create_token
from vault.actions.expire import expire, why_stopped
from vault.actions.fax_delivery import deliver_fax, expire_faxes, forget_receipts
from vault.actions.fax_intake import Incoming, receive_fax
from vault.actions.log_publish import sequence_log
from vault.actions.order_details import forget_orders
from vault.config.settings import Config
from vault.context import Vault
from vault.domain.access import Principal
from vault.domain.approvals import Act, Terms
from vault.domain.credentials import Grant
from vault.domain.documents import Kind
from vault.domain.people import named_person
from vault.errors import BulkExpiryError, ClockError, ForbiddenError, InvalidRequestError
from vault.sql.connection import connection

WEEK = timedelta(days=7)
LOOKS = (expire, forget_orders, expire_faxes, forget_receipts)


async def ended(vault: Vault, documents: int, kind: Kind = Kind.PASSPORT) -> list[UUID]:
    """Take documents in whose order has ended."""
    order = await new_order(vault)
    made = [await put(vault, order, kind) for _ in range(documents)]
    await end(vault, order)
    return made


async def ask(vault: Vault, day: str, who: Principal = DPO) -> UUID:
    """Ask that what is due may go until the end of a day."""
    terms = Terms(Act.EXPIRY_RESUME, day, "uk")
    return (await request_approval(vault, who, terms, reason="incident")).id


def today(clock: Clock) -> str:
    """Return the day by the test's clock."""
    return f"{clock.now:%Y-%m-%d}"


async def test_a_clock_goes_a_step_and_no_further(config: Config) -> None:
    """At the step everything looks; past it nothing does, in whatever order, until it is back."""
    step = WEEK.total_seconds()
    async with clocked(config, clock_step_seconds_max=step) as (vault, clock):
        (letter,) = await ended(vault, 1, Kind.LOA)
        for look in LOOKS:
            await look(vault, "uk")
        seen = await vault.pool.fetchval("select seen_at from expiry_clock where region = 'uk'")
        clock.now = seen + WEEK - timedelta(seconds=1)
        for look in LOOKS:
            await look(vault, "uk")
        clock.forward(days=3 * 366)
        # What the clock itself has written by now confirms nothing.
        await new_order(vault)
        await sequence_log(vault, "uk")
        for look in LOOKS:
            with pytest.raises(ClockError, match="after the worker last looked at uk"):
                await look(vault, "uk")
        assert await custody(vault, letter) == "stored"
        clock.forward(days=-3 * 366)
        for look in LOOKS:
            await look(vault, "uk")
        assert await custody(vault, letter) == "stored"


async def test_two_people_let_time_go_on(config: Config) -> None:
    """One is not enough, nor another day; what they agreed to is used once, and recorded."""
    step = WEEK.total_seconds()
    async with clocked(config, clock_step_seconds_max=step) as (vault, clock):
        (letter,) = await ended(vault, 1, Kind.LOA)
        await expire(vault, "uk")
        clock.forward(days=3 * 366)
        asked = await ask(vault, today(clock))
        with pytest.raises(ClockError):
            await expire(vault, "uk")
        with pytest.raises(ForbiddenError):
            await approve(vault, DPO, asked)
        await approve(vault, OTHER_DPO, asked)
        await decline(vault, OTHER_DPO, asked)
        other_day = await ask(vault, f"{clock.now - timedelta(days=2):%Y-%m-%d}")
        await approve(vault, OTHER_DPO, other_day)
        with pytest.raises(ClockError):
            await expire(vault, "uk")
        assert await custody(vault, letter) == "stored"
        again = await ask(vault, today(clock), ADMIN)
        await approve(vault, OTHER_DPO, again)
        await sweep(vault)
        assert await custody(vault, letter) == "shredded"
        said = await vault.pool.fetchval(
            "select count(*) from access_record where action = 'expiry.resume' and reference = $1",
            f"approval/{again}",
        )
        assert said == 1
        clock.forward(days=8)
        with pytest.raises(ClockError):
            await expire(vault, "uk")


@pytest.mark.parametrize("day", ["2026-11", "20261128", "2026-11-28T00:00:00Z", "for ever"])
async def test_only_a_day_can_be_asked_for(config: Config, day: str) -> None:
    """What is no day is refused, so that who agrees sees which one it is."""
    async with clocked(config) as (vault, _):
        with pytest.raises(InvalidRequestError):
            await ask(vault, day)


async def test_more_than_a_share_waits_for_two_people(config: Config) -> None:
    """At the bounds everything goes; past both of them nothing does, and then what was agreed."""
    async with clocked(config, expire_documents_min=2, expire_share_max=0.5) as (vault, clock):
        await ended(vault, 2)
        assert await sweep(vault) > 0
        order = await new_order(vault)
        for _ in range(4):
            await put(vault, order)
        # Four and these two are kept, and two went today: four of eight are the half.
        more = await ended(vault, 2)
        await sweep(vault)
        assert [await custody(vault, document) for document in more] == ["shredded"] * 2
        (last,) = await ended(vault, 1)
        with pytest.raises(BulkExpiryError, match="1 documents are due in uk and 4 went"):
            await sweep(vault)
        assert await custody(vault, last) == "stored"
        clock.forward(hours=25)
        await sweep(vault)
        assert await custody(vault, last) == "shredded"
        await end(vault, order)
        with pytest.raises(BulkExpiryError):
            await sweep(vault)
        await approve(vault, OTHER_DPO, await ask(vault, today(clock)))
        await sweep(vault)
        kept = await vault.pool.fetchval("select count(*) from document where custody = 'stored'")
        assert kept == 0


async def test_who_agreed_is_looked_at_again_when_it_is_used(config: Config) -> None:
    """Agreed to by what counts as one person now, as by a rule of later, it lets nothing go."""
    uk = frozenset({"uk"})
    async with clocked(config, expire_documents_min=1, expire_share_max=0.5) as (vault, clock):
        people = []
        for role, person in (("admin", "staff-1"), ("dpo", "staff-2")):
            grant = Grant(role, uk, person=named_person("", person))
            token, _ = await create_token(vault, OPERATOR, grant, label=person)
            people.append(Principal(f"token:{token}", role, uk))
        documents = await ended(vault, 2)
        await approve(vault, people[1], await ask(vault, today(clock), people[0]))
        await vault.pool.execute("update token set person = null")
        with pytest.raises(BulkExpiryError):
            await sweep(vault)
        assert await vault.pool.fetchval("select count(used_at) from approval") == 0
        named = "update token set person = $2 where 'token:' || id = $1"
        for one in people:
            await vault.pool.execute(named, one.id, named_person("", one.id))
        await sweep(vault)
        assert [await custody(vault, document) for document in documents] == ["shredded"] * 2


async def test_more_faxes_than_a_share_wait_for_two_people(config: Config) -> None:
    """Those that nobody delivered go by their time; more than a share of all that came do not."""
    gateway = Principal("gateway", "fax-gateway", frozenset({"uk"}))
    content = (SAMPLES / "fax-1p-g4.tif").read_bytes()
    incoming = Incoming(content, "inbound", None, "+442079460123", region="uk")

    async def take(vault: Vault, faxes: int) -> list[UUID]:
        return [(await receive_fax(vault, gateway, incoming)).id for _ in range(faxes)]

    async with clocked(config, expire_documents_min=2, expire_share_max=0.5) as (vault, clock):
        for fax in (await take(vault, 6))[:3]:
            await deliver_fax(vault, gateway, fax)
        clock.forward(hours=25)
        # Three of six are the half.
        assert await expire_faxes(vault, "uk") == 3
        await take(vault, 3)
        clock.forward(hours=26)
        assert await stopped(vault) is not None
        with pytest.raises(
            BulkExpiryError, match="the time of 3 faxes in uk is over and 0 expired"
        ):
            await expire_faxes(vault, "uk")
        kept = "select count(*) from fax where custody = 'stored'"
        assert await vault.pool.fetchval(kept) == 3
        async with serving(vault) as api:
            assert 'portvault_expiry_stopped{region="uk"} 1.0' in await metrics(api)
        await approve(vault, OTHER_DPO, await ask(vault, today(clock)))
        assert await expire_faxes(vault, "uk") == 3
        assert await stopped(vault) is None
        async with serving(vault) as api:
            assert 'portvault_expiry_stopped{region="uk"} 0.0' in await metrics(api)


async def stopped(vault: Vault) -> str | None:
    """Return why the worker lets nothing go, as it is said to operators."""
    async with connection(vault.pool) as conn:
        return await why_stopped(vault.config, conn, "uk", vault.clock())


async def metrics(api: Api) -> str:
    """Return what a process counts."""
    _, said, _ = await api.call("GET", "/metrics")
    return bytes(said).decode()
