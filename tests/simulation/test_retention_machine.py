"""
Random lives of orders and documents on a clock of the test's, against what retention promises.

A machine opens and ends orders, reverses them, uploads, instructs, holds, releases, restricts,
changes the policy, asks for shreds, lets time pass and lets the worker crash at any record. After
each sweep: nothing that was held or under its floor is gone, and everything past its ceiling that
is not held is gone. At the end each shred has its records, and one certificate that holds offline.
"""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.fixtures_postgres import Address, fresh_database
from tests.fixtures_server import PORTING
from tests.retention_house import (
    ADMIN,
    COMPLIANCE,
    DPO,
    clocked,
    end,
    hold,
    new_order,
    put,
    release,
    sweep,
)
from vault.actions.approvals import approve, request_approval
from vault.actions.certificates import certify
from vault.actions.expire import expire
from vault.actions.holds import restrict, unrestrict
from vault.actions.keys import mark_sealed, seal
from vault.actions.log_publish import sequence_log
from vault.actions.orders import change_order
from vault.actions.policy import apply_policy, give_instruction, policy_subject
from vault.actions.shred import purge_shredded, shred
from vault.audit.certificate_auditor import verify
from vault.config.settings import Config
from vault.domain.approvals import Act, Terms
from vault.domain.documents import Kind
from vault.domain.orders import Status
from vault.domain.records import Record
from vault.errors import ConflictError, FloorError, HeldError, VaultError
from vault.sql.connection import connection

KINDS = (Kind.PASSPORT, Kind.LOA, Kind.INVOICE)
CUSTOMERS = ("one", "two")
GRACE = timedelta(hours=1)


class CrashError(Exception):
    """The worker dies here."""


class Dying:
    """A real recorder whose process dies before or after it has written."""

    def __init__(self, real: Any, *, after: bool) -> None:
        self._real, self._after = real, after

    async def append_many(self, records: list[Record]) -> None:
        """Write, or not, and die."""
        if self._after:
            await self._real.append_many(records)
        raise CrashError


class Known:
    """What the machine knows of a document, by itself."""

    def __init__(self, order: UUID, customer: str, kind: Kind, at: datetime) -> None:
        self.order, self.customer, self.kind, self.stored_at = order, customer, kind, at
        self.gone = False


class RetentionMachine(RuleBasedStateMachine):
    """What may happen to documents, in any order."""

    def __init__(self, server: Address, template: str, place: Path) -> None:
        super().__init__()
        self._runner = asyncio.Runner()
        self._databases = fresh_database(server, template)
        self._home = place
        self.orders: dict[UUID, tuple[str, Status, datetime | None]] = {}
        self.documents: dict[UUID, Known] = {}
        self.held_by: dict[UUID, Callable[[UUID, Known], bool]] = {}
        self.papers_days = 90
        self._run(self._open)

    def _run(self, step: Callable[..., Any], *arguments: Any) -> Any:
        return self._runner.run(step(*arguments))

    async def _open(self) -> None:
        dsn = await anext(self._databases)
        config = Config(
            home=self._home / "home",
            database=dsn,
            port=0,
            regions=("uk",),
            reversal_grace_seconds=GRACE.total_seconds(),
            key_cache_seconds=0.01,
            worker=False,
        )
        self._opening = clocked(config)
        self.vault, self.clock = await self._opening.__aenter__()

    def teardown(self) -> None:
        """Seal, certify, and look at the whole again."""
        try:
            self._run(self._finish)
        finally:
            self._run(self._close)
            self._runner.close()

    async def _close(self) -> None:
        await self._opening.__aexit__(None, None, None)
        await anext(self._databases, None)

    @rule(customer=st.sampled_from(CUSTOMERS), kinds=st.sets(st.sampled_from(KINDS), min_size=1))
    def upload(self, customer: str, kinds: set[Kind]) -> None:
        """An order is opened and documents arrive."""
        self._run(self._upload, customer, kinds)

    async def _upload(self, customer: str, kinds: set[Kind]) -> None:
        order = await new_order(self.vault, customer)
        self.orders[order] = customer, Status.DRAFT, None
        for kind in sorted(kinds):
            at = self.clock.now
            self.documents[await put(self.vault, order, kind)] = Known(order, customer, kind, at)

    @precondition(lambda self: self.orders)
    @rule(data=st.data(), status=st.sampled_from([Status.PORTED, Status.CANCELLED]))
    def end_order(self, data: st.DataObject, status: Status) -> None:
        """An order ends."""
        order = data.draw(st.sampled_from(sorted(self.orders)))
        customer, old, _ = self.orders[order]
        if old not in (Status.PORTED, Status.CANCELLED):
            self._run(end, self.vault, order, status)
            self.orders[order] = customer, status, self.clock.now

    @precondition(lambda self: any(s is Status.PORTED for _, s, _ in self.orders.values()))
    @rule(data=st.data())
    def reverse(self, data: st.DataObject) -> None:
        """A port is reversed."""
        ported = sorted(key for key, (_, s, _) in self.orders.items() if s is Status.PORTED)
        order = data.draw(st.sampled_from(ported))
        self._run(change_order, self.vault, PORTING, order, Status.EXCEPTION)
        self.orders[order] = self.orders[order][0], Status.EXCEPTION, None

    @rule(
        customer=st.sampled_from(CUSTOMERS),
        kind=st.none() | st.sampled_from([kind.value for kind in KINDS]),
        keep=st.sampled_from(["at once", "P10D", "P400D", "P5000D"]),
    )
    def instruct(self, customer: str, kind: str | None, keep: str) -> None:
        """A customer asks for something, which may contradict the policy."""

        async def give() -> None:
            await give_instruction(
                self.vault,
                DPO,
                region="uk",
                customer=customer,
                kind=kind,
                keep=keep,
                reference=None,
            )

        self._run(give)

    @precondition(lambda self: any(not known.gone for known in self.documents.values()))
    @rule(data=st.data(), how=st.sampled_from(["documents", "orders", "customers"]))
    def place_hold(self, data: st.DataObject, how: str) -> None:
        """A case begins."""
        living = sorted(key for key, known in self.documents.items() if not known.gone)
        document = data.draw(st.sampled_from(living))
        known = self.documents[document]
        target = {"documents": document, "orders": known.order, "customers": known.customer}[how]
        self._run(self._place, how, target)

    async def _place(self, how: str, target: Any) -> None:
        case = await hold(self.vault, **{how: (target,)})
        self.held_by[case] = lambda key, known: (
            target == {"documents": key, "orders": known.order, "customers": known.customer}[how]
        )

    @rule(
        customer=st.sampled_from(CUSTOMERS),
        how=st.sampled_from(["documents", "orders", "customers"]),
    )
    def end_while_held(self, customer: str, how: str) -> None:
        """A case begins, the order ends, and more time passes than any ceiling allows."""
        self._run(self._upload, customer, {Kind.PASSPORT, Kind.INVOICE})
        order = list(self.orders)[-1]
        document = next(key for key, known in self.documents.items() if known.order == order)
        self._run(
            self._place, how, {"documents": document, "orders": order, "customers": customer}[how]
        )
        self._run(end, self.vault, order, Status.PORTED)
        self.orders[order] = customer, Status.PORTED, self.clock.now
        self.clock.forward(days=800)
        self._run(self._sweep)

    @precondition(lambda self: self.held_by)
    @rule(data=st.data())
    def release_hold(self, data: st.DataObject) -> None:
        """A case ends; somebody else agreed."""
        case = data.draw(st.sampled_from(sorted(self.held_by)))
        self._run(release, self.vault, case)
        del self.held_by[case]

    @precondition(lambda self: any(not known.gone for known in self.documents.values()))
    @rule(data=st.data(), lift=st.booleans())
    def restrict(self, data: st.DataObject, lift: bool) -> None:
        """Somebody contests a document; its time goes on."""
        living = sorted(key for key, known in self.documents.items() if not known.gone)
        document = data.draw(st.sampled_from(living))
        self._run(unrestrict if lift else restrict, self.vault, DPO, document, "contested")

    @precondition(lambda self: any(not known.gone for known in self.documents.values()))
    @rule(data=st.data())
    def ask_for_shred(self, data: st.DataObject) -> None:
        """Somebody asks for erasure: refused under a hold or a floor, done otherwise."""
        living = sorted(key for key, known in self.documents.items() if not known.gone)
        document = data.draw(st.sampled_from(living))
        self._run(self._ask, document)

    async def _ask(self, document: UUID) -> None:
        known = self.documents[document]
        try:
            await shred(self.vault, PORTING, document, "asked")
        except HeldError:
            assert self._held(document)
        except FloorError:
            assert self._floored(known)
        else:
            assert not self._held(document)
            assert not self._floored(known)
            known.gone = True

    @rule(days=st.sampled_from([10, 60, 90, 120]))
    def change_policy(self, days: int) -> None:
        """Papers are kept longer, or shorter with somebody else's agreement."""
        self._run(self._change_policy, days)

    async def _change_policy(self, days: int) -> None:
        text = self.vault.policy_text.replace('"P90D"', f'"P{days}D"')
        approval = None
        if days < self.papers_days:
            terms = Terms(Act.POLICY_SHORTEN, policy_subject(text), "uk")
            asked = await request_approval(self.vault, ADMIN, terms, reason="law-changed")
            await approve(self.vault, COMPLIANCE, asked.id)
            approval = asked.id
        with contextlib.suppress(ConflictError):
            await apply_policy(self.vault, ADMIN, text, approval)
        self.papers_days = days

    @rule(hours=st.sampled_from([1, 24, 24 * 15, 24 * 100, 24 * 400]))
    def pass_time(self, hours: int) -> None:
        """Time passes, and the worker sweeps."""
        self.clock.forward(hours=hours)
        self._run(self._sweep)

    @rule(after=st.booleans(), hours=st.sampled_from([1, 24 * 100]))
    def crash(self, after: bool, hours: int) -> None:
        """The worker dies in a sweep, before or after its records are durable; another goes on."""
        self.clock.forward(hours=hours)
        dying: Any = Dying(self.vault.recorder, after=after)
        with contextlib.suppress(CrashError):
            self._run(expire, replace(self.vault, recorder=dying), "uk")
        self._run(self._sweep)

    async def _sweep(self) -> None:
        now = self.clock.now
        await sweep(self.vault)
        async with connection(self.vault.pool) as conn:
            rows = await conn.fetch("select id, custody <> 'stored' gone from document")
        for row in rows:
            known = self.documents[row["id"]]
            if known.gone:
                assert row["gone"]
                continue
            if row["gone"]:
                assert not self._held(row["id"]), f"{known.kind} was shredded while it was held"
                still = self.orders[known.order][2] is None and now >= self._ceiling(known)
                assert still or not self._floored(known), f"{known.kind} was shredded too early"
                known.gone = True
            elif not self._held(row["id"]):
                assert now < self._ceiling(known), f"{known.kind} outlives its ceiling"

    def _held(self, document: UUID) -> bool:
        return any(covers(document, self.documents[document]) for covers in self.held_by.values())

    def _floored(self, known: Known) -> bool:
        """Whether the floor of a letter of authorisation stands: a year from the port."""
        _, status, ended_at = self.orders[known.order]
        if known.kind is not Kind.LOA or status is Status.CANCELLED:
            return False
        if status is not Status.PORTED or ended_at is None:
            return True
        return self.clock.now < ended_at + timedelta(days=365)

    def _ceiling(self, known: Known) -> datetime:
        _, status, ended_at = self.orders[known.order]
        if ended_at is None:
            days = 730 if known.kind is Kind.LOA else 365
            return known.stored_at + timedelta(days=days, minutes=1)
        days = {
            Kind.PASSPORT: 0,
            Kind.LOA: 730 if status is Status.PORTED else 365,
            Kind.INVOICE: self.papers_days,
        }[known.kind]
        return ended_at + max(timedelta(days=days), GRACE) + timedelta(minutes=1)

    async def _finish(self) -> None:
        """Every shred has exactly one certificate, which holds offline, and its records."""
        vault = self.vault
        await self._sweep()
        gone = {key for key, known in self.documents.items() if known.gone}
        for case in list(self.held_by):
            await release(vault, case)
        with contextlib.suppress(VaultError):
            await seal(vault, ADMIN, "uk")
        self.clock.forward(seconds=5)
        await mark_sealed(vault, "uk")
        while await purge_shredded(vault, "uk"):
            pass
        while await sequence_log(vault, "uk"):
            pass
        while await certify(vault, "uk"):
            pass
        async with connection(vault.pool) as conn:
            notes = await conn.fetch("select document, note from certificate")
            shreds = await conn.fetch(
                """
                select document, count(*) from access_record where action = 'document.shred'
                    and phase = 'outcome' and result = 'completed' and reason is null
                group by document
                """
            )
            issues = await conn.fetch(
                """
                select document, count(*) from access_record
                where action = 'certificate.issue' and phase = 'intent' and document is not null
                group by document
                """
            )
        assert {row["document"] for row in notes} == gone
        assert {(row["document"], row["count"]) for row in shreds} == {(key, 1) for key in gone}
        assert {(row["document"], row["count"]) for row in issues} == {(key, 1) for key in gone}
        for row in notes:
            assert verify(row["note"], vault.signer.vkey)["document"] == str(row["document"])


def test_retention_keeps_its_promises_whatever_happens(
    postgres_server: Address, database_template: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Held and floored documents stay, the others go in time, and each shred is certified once."""

    def machine() -> RetentionMachine:
        place = tmp_path_factory.mktemp("machine")
        return RetentionMachine(postgres_server, database_template, place)

    run_state_machine_as_test(
        machine,  # type: ignore[arg-type] # a factory is taken, too
        settings=settings(
            max_examples=10,
            stateful_step_count=25,
            deadline=None,
            phases=[Phase.explicit, Phase.reuse, Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
