"""What was decided or brought after a backup is so again after a restore, or is named."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures_server import OPERATOR, PORTING
from tests.restore_house import REGION, House, read, resume, shred_it, states
from tests.retention_house import (
    DPO,
    JPEG,
    OTHER_DPO,
    clocked,
    custody,
    end,
    hold,
    look,
    new_order,
    put,
    release,
    sweep,
)
from vault.actions import follow
from vault.actions.correct import Changed, correct_kind, correct_order
from vault.actions.credentials import authenticate, create_token, rename_token, revoke_token
from vault.actions.holds import restrict, show_hold, unrestrict
from vault.actions.orders import change_order, show_order
from vault.actions.people import forget_name
from vault.actions.policy import give_instruction, resolve_instruction, withdraw_instruction
from vault.config.settings import Config
from vault.domain.access import Action
from vault.domain.credentials import Grant
from vault.domain.documents import Kind
from vault.domain.orders import UNKNOWN_CUSTOMER, Status
from vault.errors import ConflictError, DoubtError, HeldError, NotFoundError, RestrictedError

ACME = replace(PORTING, id="token:acme", customers=frozenset({"acme"}))


@pytest.fixture
def house(config: Config) -> House:
    """Give a region to lose."""
    return House(replace(config, regions=(REGION,)))


async def test_a_hold_that_came_after_the_backup_holds_and_a_released_one_does_not(
    house: House,
) -> None:
    """Placed: kept against shred and time, twice in a row. Released: it stays released."""
    async with clocked(house.config) as (vault, _):
        order = await new_order(vault)
        first, second, third = [await put(vault, order) for _ in range(3)]
        kept = await hold(vault, documents=(third,))
        await house.back_up(vault)
        placed = await hold(vault, documents=(first, second))
        await release(vault, kept)
        await end(vault, order)
        await house.publish(vault)
    for _ in range(2):
        async with house.restored() as done:
            assert {line.state for line in done.decisions} == {follow.AGAIN}
            assert done.doubt is None
        async with clocked(house.config) as (vault, clock):
            view = await show_hold(vault, DPO, placed)
            assert set(view.targets.documents) == {first, second}
            assert view.hold.recovered_at is not None
            assert view.hold.not_known == ["reason", "authority", "reference"]
            released = (await show_hold(vault, DPO, kept)).hold
            assert (released.released_by, released.approved_by) == (DPO.id, OTHER_DPO.id)
            with pytest.raises(HeldError):
                await shred_it(vault, first)
            clock.forward(days=900)
            await sweep(vault)
            assert [await custody(vault, one) for one in (first, second, third)] == [
                "stored",
                "stored",
                "shredded",
            ]
            await vault.keyring.seal(REGION, force=True)


async def test_a_hold_of_which_the_log_does_not_say_what_it_covers_keeps_its_region(
    house: House,
) -> None:
    """A hold on a customer keeps everything until two people release it."""
    async with clocked(house.config) as (vault, _):
        order, other = await new_order(vault), await new_order(vault, "other")
        document, foreign = await put(vault, order), await put(vault, other)
        await house.back_up(vault)
        placed = await hold(vault, customers=("acme",))
        await house.publish(vault)
    async with house.restored() as done:
        (line,) = [line for line in done.decisions if line.action == Action.HOLD_PLACE]
        assert "holds all of uk" in line.detail
    async with clocked(house.config) as (vault, clock):
        assert (await show_hold(vault, DPO, placed)).hold.not_known == [
            "reason",
            "authority",
            "reference",
            "customers",
        ]
        later = await new_order(vault, "later")
        fresh = await put(vault, later)
        for one in (order, other, later):
            await end(vault, one)
        clock.forward(days=900)
        await sweep(vault)
        documents = (document, foreign, fresh)
        assert {await custody(vault, one) for one in documents} == {"stored"}
        await release(vault, placed)
        await sweep(vault)
        assert {await custody(vault, one) for one in documents} == {"shredded"}


async def test_what_came_after_the_backup_is_here_again(house: House) -> None:
    """An order and its documents are brought back, read, corrected, kept by holds, and expire."""
    async with clocked(house.config) as (vault, _):
        order = await new_order(vault)
        await house.back_up(vault)
        later = await new_order(vault)
        document, mine, gone = (
            await put(vault, order),
            await put(vault, later),
            await put(vault, later),
        )
        wrong = await put(vault, later, Kind.NATIONAL_ID)
        await correct_kind(vault, PORTING, wrong, Kind.PASSPORT)
        await shred_it(vault, gone)
        await house.publish(vault)
    for _ in range(2):
        async with house.restored() as done:
            assert states(done) == {
                document: "recovered",
                mine: "recovered",
                wrong: "recovered",
                gone: "shredded",
            }
            assert [(line.order, line.state) for line in done.orders] == [(later, "recovered")]
            assert done.refused is None
    async with clocked(house.config) as (vault, clock):
        assert [await read(vault, one) for one in (document, mine, wrong)] == [JPEG] * 3
        row = await look(vault, mine)
        assert (row.order_id, row.kind, row.media_type) == (later, Kind.PASSPORT, "image/jpeg")
        assert (row.size_bytes, row.not_known) == (len(JPEG), ["filename"])
        assert row.recovered_at is not None
        assert (await look(vault, wrong)).kind is Kind.PASSPORT
        view = await show_order(vault, PORTING, later)
        assert view.order.customer == UNKNOWN_CUSTOMER
        assert (view.details and view.details.numbers) == ()
        assert {item.id for item in view.documents} == {mine, wrong, gone}
        with pytest.raises(NotFoundError):
            await show_order(vault, ACME, later)
        # Whose order it is nobody knows, so every customer's hold keeps it.
        placed = await hold(vault, customers=("somebody",))
        with pytest.raises(HeldError):
            await shred_it(vault, mine)
        # What is not known is said under the hold, too, and the hold goes on.
        said = Changed(numbers=["+442079460123"], customer="acme")
        await correct_order(vault, PORTING, later, said)
        with pytest.raises(HeldError):
            await correct_order(vault, PORTING, later, Changed(numbers=["+442079460124"]))
        with pytest.raises(HeldError):
            await shred_it(vault, mine)
        await release(vault, placed)
        with pytest.raises(ConflictError):
            await correct_order(vault, PORTING, later, Changed(customer="other"))
        assert (await show_order(vault, ACME, later)).order.not_known == [
            "customer_reference",
            "type",
            "losing_carrier",
            "gaining_carrier",
        ]
        await shred_it(vault, wrong)
        await end(vault, later)
        await end(vault, order)
        clock.forward(days=900)
        await sweep(vault)
        assert {await custody(vault, one) for one in (document, mine)} == {"shredded"}
        assert (await vault.keyring.verify(REGION)).findings == ()


async def test_other_decisions_since_the_backup_are_followed(house: House) -> None:
    """Restrictions, kinds, the order's way and instructions are as they were left."""
    async with clocked(house.config) as (vault, _):
        order, reopened = await new_order(vault), await new_order(vault)
        asked, freed, kind = [await put(vault, order) for _ in range(3)]
        kept = await put(vault, reopened)
        await restrict(vault, DPO, freed, "contested")
        await end(vault, reopened)
        grant = Grant("porting", frozenset({REGION}))
        token, secret = await create_token(vault, OPERATOR, grant, label="desk")
        given: dict[str, Any] = {"region": REGION, "customer": "acme", "reference": None}
        view = await give_instruction(vault, DPO, kind=None, keep="P9999D", **given)
        await house.back_up(vault)
        assert await authenticate(vault, secret) is not None
        await revoke_token(vault, OPERATOR, token)
        assert await forget_name(vault, OPERATOR, f"token:{token}")
        await restrict(vault, DPO, asked, "contested")
        await unrestrict(vault, DPO, freed, "settled")
        await correct_kind(vault, PORTING, kind, Kind.NATIONAL_ID)
        await end(vault, reopened, Status.EXCEPTION)
        await resolve_instruction(vault, DPO, view.instruction.id)
        await house.publish(vault)
    async with house.restored() as done:
        assert {line.state for line in done.decisions} == {follow.AGAIN}
    async with clocked(house.config) as (vault, clock):
        assert await authenticate(vault, secret) is None
        with pytest.raises(NotFoundError):
            await forget_name(vault, OPERATOR, f"token:{token}")
        with pytest.raises(RestrictedError):
            await read(vault, asked)
        assert await read(vault, freed) == JPEG
        assert (await look(vault, kind)).kind is Kind.NATIONAL_ID
        assert (await show_order(vault, PORTING, reopened)).order.status is Status.EXCEPTION
        clock.forward(days=2)
        await sweep(vault)
        assert await custody(vault, kept) == "stored"


async def test_of_what_was_decided_again_and_again_the_last_is_said(house: House) -> None:
    """What has ended is not to be made again, and one thing is not said to be two."""
    async with clocked(house.config) as (vault, _):
        order = await new_order(vault)
        document = await put(vault, order)
        await house.back_up(vault)
        grant = Grant("porting", frozenset({REGION}))
        token, _ = await create_token(vault, OPERATOR, grant, label="desk")
        made, _ = await create_token(vault, OPERATOR, grant, label="desk")
        for one in (token, made):
            await rename_token(vault, OPERATOR, one, "counter")
        await revoke_token(vault, OPERATOR, token)
        held = await hold(vault, customers=("acme",))
        await release(vault, held)
        for kind in (Kind.NATIONAL_ID, Kind.LOA):
            await correct_kind(vault, PORTING, document, kind)
        await restrict(vault, DPO, document, "contested")
        await unrestrict(vault, DPO, document, "settled")
        given: dict[str, Any] = {"region": REGION, "customer": "acme", "reference": None}
        view = await give_instruction(vault, DPO, kind=None, keep="P30D", **given)
        await withdraw_instruction(vault, DPO, view.instruction.id)
        for status in (Status.SUBMITTED, Status.EXCEPTION):
            await change_order(vault, PORTING, order, status)
        await house.publish(vault)
    async with house.restored() as done:
        said = [(line.action, line.detail) for line in done.decisions]
        assert [action for action, _ in said] == [
            "token.create",
            "hold.release",
            "document.correct",
            "document.unrestrict",
            "order.change",
        ]
        assert f"it is {Kind.LOA.value} again" in dict(said)["document.correct"]
        assert "it is exception again" in dict(said)["order.change"]
        assert str(made) in done.decisions[0].thing
        assert done.doubt is None


async def test_what_the_log_does_not_tell_has_nothing_go_until_two_people_agree(
    house: House,
) -> None:
    """After an instruction that is not known, expiry waits, and says for what."""
    async with clocked(house.config) as (vault, _):
        order = await new_order(vault)
        document = await put(vault, order)
        await end(vault, order)
        await house.back_up(vault)
        given: dict[str, Any] = {"region": REGION, "customer": "acme", "reference": None}
        await give_instruction(vault, DPO, kind=None, keep="P30D", **given)
        await house.publish(vault)
    async with house.restored() as done:
        assert "instruction.give" in (done.doubt or "")
    async with clocked(house.config) as (vault, clock):
        clock.forward(days=900)
        with pytest.raises(DoubtError, match=r"instruction\.give .* expiry\.resume"):
            await sweep(vault)
        assert await custody(vault, document) == "stored"
        await resume(vault, f"{clock.now:%Y-%m-%d}")
        await sweep(vault)
        assert await custody(vault, document) == "shredded"
        clock.forward(days=2)
        assert await sweep(vault) == 0


async def test_the_dry_run_says_what_the_real_run_does_whatever_the_backup(house: House) -> None:
    """The same state, one from before everything, one whose objects are damaged, a foreign one."""
    async with clocked(house.config) as (vault, _):
        await house.back_up(vault)
        first = house.state
        document = await put(vault, await new_order(vault))
        await house.back_up(vault)
    async with house.restored() as done:
        assert (states(done), done.decisions, done.orders) == ({document: "living"}, (), ())
    house.state = first
    path = Path(house.config.objects_uri(REGION).removeprefix("dir:")) / f"documents/{document}"
    kept = path.read_bytes()
    for damaged, detail in (
        (b"", "its object is missing"),
        (kept[:-1], "its object is not of the size that was recorded"),
        (bytes([kept[0] ^ 1]) + kept[1:], "its object does not open"),
    ):
        path.write_bytes(damaged) if damaged else path.unlink()
        async with house.restored() as done:
            assert "cannot be brought back" in (done.refused or "")
            (line,) = done.documents
            assert (line.state, line.detail) == ("unknown", f"stored after the backup: {detail}")
    async with house.restored(leave_unknown=True) as done:
        assert (done.refused, states(done)) == (None, {document: "unknown"})
    path.write_bytes(kept)
    async with house.restored() as done:
        assert (done.refused, states(done)) == (None, {document: "recovered"})
    for segment in path.parent.parent.glob("keys/*"):
        segment.unlink()
    async with house.restored() as done:
        assert "holds no copy of the key tree" in (done.refused or "")
        assert done.documents == ()


def test_every_action_is_followed_or_has_a_reason_not_to_be() -> None:
    """A new action says what a restore does with it."""
    groups = [[*follow.FOLLOWED], [*follow.LEFT], follow.FOLLOWED_BY_KEYS, follow.NOTHING_LEFT]
    assert sorted(action for group in groups for action in group) == sorted(Action)
