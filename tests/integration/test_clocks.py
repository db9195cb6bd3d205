"""A clock that jumps shreds nothing: not where it is the database's own clock, and not in bulk."""

from datetime import timedelta
from uuid import UUID

import pytest

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
from vault.actions.expire import expire
from vault.actions.fax_ending import expire_faxes
from vault.actions.fax_sweep import forget_receipts
from vault.actions.order_details import forget_orders
from vault.actions.sequence import sequence_log
from vault.config import Config
from vault.context import Vault
from vault.domain.access import Principal
from vault.domain.approvals import Act, Terms
from vault.domain.documents import Kind
from vault.errors import BulkExpiryError, ClockError, ForbiddenError, InvalidRequestError

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
