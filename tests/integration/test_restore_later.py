"""What came, was tried, ended or was left behind after a backup: faxes, shredded documents."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest

from tests.fixtures_server import PORTING
from tests.fixtures_telefax import CALLEE, CALLER
from tests.restore_house import REGION, House, read, shred_it, states
from tests.retention_house import (
    COMPLIANCE,
    clocked,
    custody,
    end,
    hold,
    new_order,
    put,
    release,
    sweep,
)
from tests.states import take_state
from vault.actions.access import recorded
from vault.actions.certificates import certificate, certify
from vault.actions.fax_delivery import deliver_fax, describe_fax, fail_fax, open_fax
from vault.actions.fax_intake import Incoming, receive_fax
from vault.actions.keys import mark_sealed
from vault.actions.log_publish import sequence_log
from vault.actions.look import PARTS
from vault.actions.order_list import read_numbers
from vault.actions.orders import show_order, take_event
from vault.actions.read import describe
from vault.actions.shred import purge_shredded
from vault.audit.certificate_auditor import verify
from vault.commands.doctor_looks import ends_not_known
from vault.config.settings import Config
from vault.context import Vault
from vault.domain.access import CARRIER_ROLE, Action, Principal
from vault.domain.carriers import CarrierEvent
from vault.domain.documents import Custody, Ground
from vault.domain.faxes import UNKNOWN_NUMBER, Fax, State
from vault.domain.orders import END_NOT_KNOWN, Status
from vault.errors import ConflictError, LeftBehindError, ShreddedError
from vault.sql import damage as damage_sql
from vault.sql.connection import connection
from vault.sql.damage import Look

GATEWAY = Principal("gateway", "fax-gateway", frozenset({REGION}))


@pytest.fixture
def house(config: Config) -> House:
    """Give a region to lose."""
    return House(replace(config, regions=(REGION,)))


async def take(vault: Vault, content: bytes) -> UUID:
    """Take a fax."""
    incoming = Incoming(content, "outbound", CALLER, CALLEE, region=REGION)
    return (await receive_fax(vault, GATEWAY, incoming)).id


async def fetch(vault: Vault, fax: UUID) -> tuple[bytes, str]:
    """Fetch a fax and the number that it is for, as a gateway does."""
    async with open_fax(vault, GATEWAY, fax) as opened:
        return b"".join([chunk async for chunk in opened.chunks]), opened.numbers.callee


async def shown(vault: Vault, fax: UUID) -> Fax:
    """Return a fax, or its receipt."""
    return (await describe_fax(vault, GATEWAY, fax)).fax


async def test_faxes_that_came_later_are_here_again_or_leave_their_receipt(
    house: House, fax: bytes
) -> None:
    """What waits is read, and for whom is said to be unknown; what went has a receipt."""
    async with clocked(house.config) as (vault, _):
        kept, tried, failed = [await take(vault, fax) for _ in range(3)]
        await house.back_up(vault)
        later, fetched, delivered, gone = [await take(vault, fax) for _ in range(4)]
        for one in (tried, failed, fetched):
            assert await fetch(vault, one) == (fax, CALLEE)
        await fail_fax(vault, GATEWAY, failed, reason="busy")
        await deliver_fax(vault, GATEWAY, delivered)
        await fail_fax(vault, GATEWAY, gone, reason="busy", final=True)
        await house.publish(vault)
    said = dict[UUID, str]()
    for _ in range(2):
        async with house.restored() as done:
            assert done.refused is None
            assert states(done) == {
                kept: "living",
                tried: "living",
                failed: "living",
                later: "recovered",
                fetched: "recovered",
                delivered: "shredded",
                gone: "shredded",
            }
            said = {line.document: line.detail or "" for line in done.documents}
    assert said[kept] == said[failed] == ""
    assert "may arrive twice" in said[tried]
    assert "whom it is for is not known" in said[later]
    assert ("may have been delivered" in said[later], "may have been" in said[fetched]) == (0, 1)
    async with clocked(house.config) as (vault, _):
        for one, state, attempts in (
            (kept, State.RECEIVED, 0),
            (tried, State.QUEUED, 1),
            (failed, State.QUEUED, 1),
            (later, State.RECEIVED, 0),
            (fetched, State.QUEUED, 1),
        ):
            row = await shown(vault, one)
            assert (row.state, row.attempts) == (state, attempts)
        assert "may have been delivered" in str((await shown(vault, tried)).result)
        row = await shown(vault, later)
        assert row.not_known == ["direction", "channel", "from", "to", "facts"]
        assert (row.pages, row.media_type, row.callee_masked) == (2, "image/tiff", UNKNOWN_NUMBER)
        assert await fetch(vault, later) == (fax, UNKNOWN_NUMBER)
        assert (await deliver_fax(vault, GATEWAY, later)).state is State.DELIVERED
        for one, state in ((delivered, State.DELIVERED), (gone, State.FAILED)):
            row = await shown(vault, one)
            assert (row.state, row.custody, row.size_bytes) == (state, Custody.SHREDDED, len(fax))
            with pytest.raises(ShreddedError):
                await fetch(vault, one)
        assert (await vault.keyring.verify(REGION)).findings == ()


async def test_a_fax_that_cannot_be_brought_back_says_why(house: House, fax: bytes) -> None:
    """Its object is cut, altered or missing, or is no fax as the limits are now."""
    async with clocked(house.config) as (vault, _):
        await house.back_up(vault)
        later = await take(vault, fax)
        await house.publish(vault)
    path = Path(house.config.objects_uri(REGION).removeprefix("dir:")) / f"documents/{later}"
    kept = path.read_bytes()
    for damaged, detail in (
        (b"", "its object is missing"),
        (kept[:-1], "its object is not of the size that was recorded"),
        (kept[:-1] + bytes([kept[-1] ^ 1]), "its object does not open"),
    ):
        path.write_bytes(damaged) if damaged else path.unlink()
        async with house.restored() as done:
            (line,) = done.documents
            assert (line.state, line.detail) == ("unknown", f"stored after the backup: {detail}")
    path.write_bytes(kept)
    whole = house.config
    for changed, detail in (
        (replace(whole, fax_pages_max=1), "it is not taken for a fax"),
        (replace(whole, fax_bytes_max=len(fax) - 1), "larger than the setting fax_bytes_max"),
    ):
        house.config = changed
        async with house.restored() as done:
            assert detail in str(done.documents[0].detail)


async def finish(vault: Vault) -> None:
    """Seal, purge and certify what was shredded."""
    await vault.keyring.seal(REGION, force=True)
    await asyncio.sleep(vault.config.key_cache_seconds)
    await mark_sealed(vault, REGION)
    await purge_shredded(vault, REGION)
    await sequence_log(vault, REGION)
    await certify(vault, REGION)


async def test_what_came_and_was_shredded_later_says_so_and_is_certified(house: House) -> None:
    """Asked for or by its time, in an old order or a new one, even one whose key is lost."""
    async with clocked(house.config) as (vault, clock):
        order, ended = await new_order(vault), await new_order(vault)
        before = await put(vault, order)
        await house.back_up(vault)
        asked = await put(vault, order)
        elsewhere = await put(vault, await new_order(vault))
        due = await put(vault, ended)
        await end(vault, ended)
        for one in (before, asked, elsewhere):
            await shred_it(vault, one)
        clock.forward(days=900)
        await sweep(vault)
        await house.publish(vault)
        unmirrored = await new_order(vault)
        lost = await put(vault, unmirrored)
        await shred_it(vault, lost)
        await house.publish_log(vault)
    for _ in range(2):
        async with house.restored() as done:
            assert (done.refused, set(states(done).values())) == (None, {"shredded"})
    async with clocked(house.config) as (vault, clock):
        clock.forward(days=900)
        for one in (before, asked, elsewhere, due, lost):
            assert (await describe(vault, PORTING, one)).document.custody is Custody.SHREDDED
            with pytest.raises(ShreddedError):
                await read(vault, one)
        held = await hold(vault, customers=("acme",))
        await finish(vault)
        with pytest.raises(ConflictError, match=r"a hold keeps its object .* after the release"):
            await certificate(vault, COMPLIANCE, before)
        await release(vault, held)
        await finish(vault)
        await house.publish(vault)
        for one, ground in ((asked, Ground.NOT_NEEDED.value), (due, "retention"), (lost, None)):
            note = (await certificate(vault, COMPLIANCE, one)).note
            fields = verify(note, vault.signer.vkey)
            assert fields["trigger"]["ground"] == (ground or Ground.NOT_NEEDED.value)
            assert fields["policy"] == dict.fromkeys(fields["policy"])
            assert "policy" in fields["not_known"]
            assert fields["beyond_use_since"] <= fields["irrecoverable_since"]
        fields = verify((await certificate(vault, COMPLIANCE, before)).note, vault.signer.vkey)
        assert (fields["policy"]["row"], "policy" in fields["not_known"]) == (None, True)
        assert (await show_order(vault, PORTING, unmirrored)).details is None


async def test_what_was_left_behind_is_not_asked_about_again(house: House) -> None:
    """The log remembers it, whatever backup is restored next; it comes back once it can."""
    async with clocked(house.config) as (vault, _):
        order = await new_order(vault)
        async with connection(vault.pool) as conn:
            look = Look(PARTS[-1], None, vault.clock(), vault.clock())
            await damage_sql.set_look(conn, REGION, look)
        await house.back_up(vault)
        document = await put(vault, order)
        await house.publish(vault)
        lost = await put(vault, order)
        await house.publish_log(vault)
        await put(vault, order)
    path = Path(house.config.objects_uri(REGION).removeprefix("dir:")) / f"documents/{document}"
    kept = path.read_bytes()
    path.unlink()
    async with house.restored() as done:
        assert "cannot be brought back" in (done.refused or "")
        # What was answered and not yet published: only its object is left.
        assert done.unknown_objects == 1
    async with house.restored(leave_unknown=True) as done:
        assert states(done) == {document: "unknown", lost: "lost"}
    async with clocked(house.config) as (vault, _):
        async with connection(vault.pool) as conn:
            assert await damage_sql.look_of(conn, REGION) is None
        await house.publish(vault)
    async with house.restored() as done:
        assert (done.refused, states(done)) == (None, {document: "left", lost: "left"})
        detail = {line.document: str(line.detail) for line in done.documents}
        assert "a restore left it behind on" in detail[lost]
        assert "its object is missing" in detail[document]
    path.write_bytes(kept)
    async with house.restored() as done:
        assert (done.refused, states(done)) == (None, {document: "recovered", lost: "left"})


async def test_an_order_that_a_carrier_ended_is_ended_since_when_it_said(house: House) -> None:
    """Late and overtaken ends are sorted by their own times, as before the loss."""
    async with clocked(house.config) as (vault, clock):
        ported, overtaken = await new_order(vault), await new_order(vault)
        await house.back_up(vault)
        began = clock.now
        clock.forward(days=3)

        async def say(order: UUID, status: Status, event: str, *, days: float) -> CarrierEvent:
            at = began + timedelta(days=days)
            said = CarrierEvent("telnyx", event, "r-1", str(order), status, at)
            assert await take_event(vault, said) is True
            return said

        again = await say(ported, Status.PORTED, "e-1", days=1)
        await say(overtaken, Status.EXCEPTION, "e-2", days=2)
        await say(overtaken, Status.PORTED, "e-3", days=1)
        await house.publish(vault)
    for _ in range(2):
        async with house.restored() as done:
            assert {line.state for line in done.decisions} == {"again"}
    async with clocked(house.config) as (vault, clock):
        clock.forward(days=3)
        for _ in range(2):
            order = (await show_order(vault, PORTING, ported)).order
            assert (order.status, order.ended_at) == (Status.PORTED, began + timedelta(days=1))
            await take_event(vault, again)
        order = (await show_order(vault, PORTING, overtaken)).order
        assert (order.status, order.ended_at) == (Status.EXCEPTION, None)


async def test_an_end_without_its_time_is_left_to_be_said_and_not_forgotten(house: House) -> None:
    """As earlier releases recorded it: the order is kept, the doctor warns, and the end is said."""
    async with clocked(house.config) as (vault, clock):
        order, moved = await new_order(vault), await new_order(vault)
        document = await put(vault, order)
        await house.back_up(vault)
        carrier = Principal("carrier:telnyx", CARRIER_ROLE, frozenset({REGION}))
        for who, action, thing in (
            (carrier, Action.ORDER_EVENT, order),
            (PORTING, Action.ORDER_CHANGE, moved),
        ):
            async with recorded(vault, who, action, region=REGION, order=thing) as access:
                await vault.recorder.append(access.conclude(reason=Status.PORTED.value))
        at = clock.now
        await house.publish(vault)
    async with house.restored() as done:
        found = {line.action: line for line in done.decisions}
        line = found["order.event"]
        assert (line.state, f"portvault order complete {order}" in line.detail) == ("lost", True)
        assert found["order.change"].state == "again"
    async with clocked(house.config) as (vault, clock):
        row = (await show_order(vault, PORTING, order)).order
        assert (row.ended_at, row.not_known) == (None, [END_NOT_KNOWN])
        row = (await show_order(vault, PORTING, moved)).order
        assert row.ended_at is not None
        assert timedelta() <= row.ended_at - at <= timedelta(days=1)
        async with connection(vault.pool) as conn:
            ((_, said),) = (await ends_not_known(house.config, conn)).values()
            assert "1 order is open since a restore" in said
            await end(vault, order)
            assert await ends_not_known(house.config, conn) == {}
        assert (await show_order(vault, PORTING, order)).order.not_known == []
        assert await custody(vault, document) == "stored"


async def test_a_key_that_died_with_its_generation_is_lost_and_never_called_shredded(
    house: House, fax: bytes
) -> None:
    """The database that has rows and keys comes back after a restore without it sealed."""
    async with clocked(house.config) as (vault, _):
        order, elsewhere = await new_order(vault), await new_order(vault)
        gone = await put(vault, elsewhere)
        await house.back_up(vault)
        early = house.state
        left, left_fax = await put(vault, order), await take(vault, fax)
        later = await new_order(vault)
        await shred_it(vault, gone)
        await house.publish_log(vault)
        unsaid, unsaid_fax = await put(vault, order), await take(vault, fax)
        async with connection(vault.pool) as conn:
            whole = await take_state(conn)
    house.state = early
    async with house.restored() as done:
        assert states(done) == {left: "lost", left_fax: "lost", gone: "shredded"}
        assert "brings none of them back" in str(done.refused)
    async with house.restored(leave_unknown=True) as done:
        assert done.refused is None
    async with clocked(house.config) as (vault, _):
        await house.publish(vault)
    house.state = whole
    async with house.restored() as done:
        assert "2 documents of uk cannot be brought back" in str(done.refused)
    lost = {left: "left", left_fax: "left", unsaid: "lost", unsaid_fax: "lost"}
    for again in range(2):
        async with house.restored(leave_unknown=not again) as done:
            found = dict.fromkeys(lost, "left") if again else lost
            assert (done.refused, states(done)) == (None, found | {gone: "shredded"})
            said = {line.document: str(line.detail) for line in done.documents}
            for one in lost:
                assert ("the seal of the restore of" in said[one]) or again
                assert "knows of no shred, and its object stays" in said[one]
        async with clocked(house.config) as (vault, clock):
            clock.forward(days=1)
            await finish(vault)
            for one in (left, unsaid):
                assert await custody(vault, one) == "stored"
                with pytest.raises(LeftBehindError, match="nobody shredded it"):
                    await read(vault, one)
                assert (await describe(vault, PORTING, one)).filename is None
                with pytest.raises(ConflictError, match="its certificate is issued once"):
                    await certificate(vault, COMPLIANCE, one)
            for one in (left_fax, unsaid_fax):
                row = await shown(vault, one)
                assert (row.custody, row.ended_at) == (Custody.STORED, None)
                with pytest.raises(LeftBehindError):
                    await fetch(vault, one)
            with pytest.raises(LeftBehindError, match="nobody shredded them"):
                await read_numbers(vault, PORTING, later, purpose="verify-identity", reference=None)
            assert (await vault.keyring.verify(REGION)).findings == ()
            assert await custody(vault, gone) == "sealed"
            await house.publish(vault)
    objects = Path(house.config.objects_uri(REGION).removeprefix("dir:")) / "documents"
    assert {path.name for path in objects.iterdir()} == {str(one) for one in lost}
