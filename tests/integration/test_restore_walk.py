"""Every action that the log can have is done after a backup, and each is followed as it says."""

from argparse import Namespace
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from keys.errors import RolledBackError
from tests.access_records import append
from tests.fixtures_server import OPERATOR, PORTING, in_pieces
from tests.fixtures_telefax import CALLEE
from tests.restore_house import REGION, House, shred_it, states
from tests.retention_house import (
    ADMIN,
    COMPLIANCE,
    DPO,
    JPEG,
    OTHER_DPO,
    agreed,
    clocked,
    hold,
    look,
    new_order,
    put,
    sweep,
)
from tests.states import bring_back
from vault.actions import follow
from vault.actions.approvals import approve, decline, request_approval, withdraw
from vault.actions.correct import Changed, correct_kind, correct_order
from vault.actions.credentials import (
    authenticate,
    create_envelope,
    create_token,
    open_envelope,
    rename_token,
    revoke_envelope,
    revoke_token,
)
from vault.actions.fax_delivery import deliver_fax, describe_fax, fail_fax, open_fax
from vault.actions.fax_intake import Incoming, receive_fax
from vault.actions.holds import release_hold, restrict, show_hold, unrestrict
from vault.actions.ingest import Upload, ingest
from vault.actions.keys import seal, worker
from vault.actions.log_publish import sequence_log
from vault.actions.log_records import trim_log
from vault.actions.orders import change_order, create_order, link_order, show_order, take_event
from vault.actions.people import forget_name
from vault.actions.policy import (
    apply_policy,
    give_instruction,
    resolve_instruction,
    withdraw_instruction,
)
from vault.actions.read import open_content
from vault.app import open_vault
from vault.commands.backups import each_region
from vault.config.settings import Config
from vault.context import Vault
from vault.domain.access import Action, Principal
from vault.domain.approvals import Act, Terms
from vault.domain.carriers import CarrierEvent
from vault.domain.credentials import Grant, subject_of
from vault.domain.documents import Custody, Kind
from vault.domain.faxes import State as FaxState
from vault.domain.orders import Status
from vault.domain.records import Record
from vault.errors import ConflictError, DoubtError, ForbiddenError
from vault.sql import log as log_sql
from vault.sql.connection import connection

GATEWAY = Principal("gateway", "fax-gateway", frozenset({REGION}))
GRANT = Grant("porting", frozenset({REGION}))
#: What a session is, whose time is of no matter here.
SESSION = """
    insert into session (secret_hash, principal, role, regions, shown_as, csrf, subject,
        created_at, expires_at)
    values ('\\x01', 'p', 'porting', '{uk}', 's', 'c', 's', now(), now() + interval '1 day')
"""
APPROVALS = """
    select id, coalesce(ended_as, case when used_at is not null then 'used'
        when approved_at is not null then 'approved' else 'requested' end) state from approval
"""


@pytest.fixture
def house(config: Config) -> House:
    """Give a region to lose."""
    return House(replace(config, regions=(REGION,)))


async def recorded_as(
    vault: Vault, action: Action, *, document: UUID | None = None, order: UUID | None = None
) -> None:
    """Leave the records of a completed action, which nobody has to do for that."""
    intent = Record(
        id=uuid4(),
        region=REGION,
        at=vault.clock(),
        phase="intent",
        principal="p",
        role="admin",
        action=action.value,
        document=document,
        order=order,
        decision="allow",
        reason="granted",
    )
    outcome = replace(
        intent,
        id=uuid4(),
        phase="outcome",
        intent=intent.id,
        decision=None,
        reason=None,
        result="completed",
    )
    async with connection(vault.pool) as conn:
        await log_sql.insert_records(conn, [intent, outcome])


async def envelope(vault: Vault) -> tuple[UUID, str]:
    """Seal a credential that two agreed to."""
    terms = Terms(Act.BREAK_GLASS, subject_of("dpo", [REGION]), REGION, days=9)
    asked = await request_approval(vault, ADMIN, terms, reason="yearly")
    await approve(vault, COMPLIANCE, asked.id)
    identity, secret, _ = await create_envelope(
        vault, ADMIN, role="dpo", regions=[REGION], days=9, approval=asked.id
    )
    return identity, secret


async def ask(vault: Vault, subject: UUID) -> UUID:
    """Ask for the release of a hold."""
    terms = Terms(Act.HOLD_RELEASE, str(subject), REGION)
    return (await request_approval(vault, DPO, terms, reason="case-closed")).id


async def instruct(vault: Vault, customer: str) -> UUID:
    """Give an instruction."""
    view = await give_instruction(
        vault, DPO, region=REGION, customer=customer, kind=None, keep="P9999D", reference=None
    )
    return view.instruction.id


async def fax_of(vault: Vault, content: bytes) -> UUID:
    """Take a fax."""
    return (await receive_fax(vault, GATEWAY, Incoming(content, "inbound", None, CALLEE))).id


async def test_every_action_after_the_backup_is_followed_as_it_says(
    house: House, fax: bytes
) -> None:
    """One vault, one restore: the decisions are those of the tables, and the state is as left."""
    async with clocked(house.config) as (vault, clock):
        order, forgotten, reported = [await new_order(vault) for _ in range(3)]
        asked, freed, kind, gone = [await put(vault, order) for _ in range(4)]
        await restrict(vault, DPO, freed, "contested")
        placed = [await hold(vault, documents=(kind,)) for _ in range(3)]
        resolved, withdrawn = await instruct(vault, "one"), await instruct(vault, "two")
        token, secret = await create_token(vault, OPERATOR, GRANT, label="desk")
        staying, _ = await create_token(vault, OPERATOR, GRANT, label="desk two")
        revoked, opened = await envelope(vault), await envelope(vault)
        used = await agreed(vault, placed[0])
        declined, since, taken_back = [await ask(vault, one) for one in placed]
        asked_only = await ask(vault, uuid4())
        tried, failed, expired = [await fax_of(vault, fax) for _ in range(3)]
        await vault.pool.execute(SESSION)
        await house.back_up(vault)

        # What is done anew.
        later = await hold(vault, documents=(asked,))
        await release_hold(vault, DPO, placed[0], "over", used)
        await restrict(vault, DPO, asked, "contested")
        await unrestrict(vault, DPO, freed, "settled")
        await change_order(vault, PORTING, order, Status.SUBMITTED)
        said = CarrierEvent("telnyx", "e", "r", str(reported), Status.PORTED, clock.now)
        assert await take_event(vault, said) is True
        await resolve_instruction(vault, DPO, resolved)
        await withdraw_instruction(vault, DPO, withdrawn)
        await rename_token(vault, OPERATOR, token, "counter")
        await rename_token(vault, OPERATOR, staying, "counter")
        await revoke_token(vault, OPERATOR, token)
        assert await forget_name(vault, OPERATOR, f"token:{token}")
        await revoke_envelope(vault, ADMIN, revoked[0])
        await open_envelope(vault, opened[1], "INC-7")
        # What the log does not say enough of.
        policy = vault.policy_text.replace('"P90D"', '"P100D"')
        await apply_policy(vault, ADMIN, policy, None)
        await instruct(vault, "three")
        await correct_order(vault, PORTING, reported, Changed(numbers=["+442079460124"]))
        await link_order(vault, PORTING, order, "telnyx", "order-1")
        await create_token(vault, OPERATOR, GRANT, label="later")
        await envelope(vault)
        # What comes back with its thing, or its key.
        await correct_kind(
            vault, PORTING, await put(vault, await new_order(vault)), Kind.NATIONAL_ID
        )
        await shred_it(vault, gone)
        async with open_fax(vault, GATEWAY, tried) as fetched:
            assert b"".join([chunk async for chunk in fetched.chunks]) == fax
        delivered = await fax_of(vault, fax)
        await deliver_fax(vault, GATEWAY, delivered)
        await fail_fax(vault, GATEWAY, failed, reason="busy", final=True)
        await recorded_as(vault, Action.FAX_EXPIRE, document=expired)
        await recorded_as(vault, Action.ORDER_FORGET, order=forgotten)
        release = await ask(vault, later)
        await approve(vault, OTHER_DPO, release)
        await approve(vault, OTHER_DPO, asked_only)
        await approve(vault, OTHER_DPO, since)
        await release_hold(vault, DPO, placed[1], "over", since)
        await decline(vault, OTHER_DPO, declined)
        await withdraw(vault, DPO, taken_back)
        await seal(vault, worker(vault), REGION)
        session = (Action.SESSION_BEGIN, Action.SESSION_END)
        for action in (*follow.NOTHING_LEFT, Action.KEYS_RESTORE, *session):
            await recorded_as(vault, action)
        await house.publish(vault)
        rows = await vault.pool.fetch(
            "select distinct action from access_record where result = 'completed'"
        )
        assert {row["action"] for row in rows} == set(Action), "do here what is missing"

    async with house.restored() as done:
        assert done.refused is None
        found = {(item.action, item.state) for item in done.decisions}
        expected = {(action.value, follow.AGAIN) for action in follow.FOLLOWED}
        expected |= {(action.value, state) for action, (state, _) in follow.LEFT.items()}
        assert found == expected
        doubted = {item.action for item in done.decisions if item.state == follow.DOUBTED}
        assert doubted == {Action.POLICY_APPLY, Action.INSTRUCTION_GIVE}
        assert all(word in (done.doubt or "") for word in doubted)

    async with clocked(house.config) as (vault, _):
        assert (await show_hold(vault, DPO, later)).targets.documents == (asked,)
        assert (await show_hold(vault, DPO, placed[0])).hold.released_at is not None
        assert (await look(vault, asked)).restricted_at is not None
        assert (await look(vault, freed)).restricted_at is None
        assert (await look(vault, gone)).custody is not Custody.STORED
        assert (await show_order(vault, PORTING, order)).order.status is Status.SUBMITTED
        assert (await show_order(vault, PORTING, reported)).order.ended_at is not None
        assert (await show_order(vault, PORTING, forgotten)).details is None
        for one in (resolved, withdrawn):
            at = await vault.pool.fetchval(
                "select withdrawn_at from instruction where id = $1", one
            )
            assert (at is not None) == (one == withdrawn)
        with pytest.raises(ConflictError):
            await withdraw_instruction(vault, DPO, withdrawn)
        assert await authenticate(vault, secret) is None
        for _, envelope_secret in (revoked, opened):
            with pytest.raises(ForbiddenError):
                await open_envelope(vault, envelope_secret, "INC-7")
        assert await vault.pool.fetchval("select count(*) from session") == 0
        rows = await vault.pool.fetch(APPROVALS)
        states = {row["id"]: row["state"] for row in rows}
        assert [states[one] for one in (used, since, declined, taken_back, asked_only)] == [
            "used",
            "withdrawn",
            "declined",
            "withdrawn",
            "requested",
        ]
        assert release not in states
        for one, state in (
            (tried, FaxState.QUEUED),
            (delivered, FaxState.DELIVERED),
            (failed, FaxState.FAILED),
            (expired, FaxState.EXPIRED),
        ):
            assert (await describe_fax(vault, GATEWAY, one)).fax.state is state


async def test_a_log_trimmed_beyond_the_backup_is_in_doubt_as_a_whole(house: House) -> None:
    """What was decided in records that are gone nobody knows: nothing goes until two agree."""
    old = datetime.now(UTC) - timedelta(days=8 * 366)
    async with clocked(house.config) as (vault, _):
        await house.back_up(vault)
        await append(vault, 600, at=old)
        await append(vault, 300)
        while await sequence_log(vault, REGION):
            pass
        await house.publish(vault)
        assert await trim_log(vault, REGION)
    async with house.restored() as done:
        assert "of the log are gone" in (done.doubt or "")
        assert done.refused is None
    async with clocked(house.config) as (vault, _):
        with pytest.raises(DoubtError, match="of the log are gone"):
            await sweep(vault)


async def test_a_region_that_is_refused_keeps_no_other_from_being_restored(house: House) -> None:
    """It is named and stays as it was; the other is done, and the first follows alone."""
    regions, later = (REGION, "sg"), dict[str, UUID]()
    config = house.config = replace(house.config, regions=regions)
    async with clocked(config, regions=regions) as (vault, _):
        desk = replace(PORTING, regions=frozenset(regions))
        orders = {
            region: (
                await create_order(vault, desk, region=region, customer="acme", numbers=[number])
            ).order.id
            for region, number in ((REGION, "+442079460123"), ("sg", "+6561234567"))
        }
        await house.back_up(vault)
        for region, order in orders.items():
            upload = Upload(in_pieces(JPEG), None, None, len(JPEG), None)
            later[region] = (await ingest(vault, desk, order, Kind.PASSPORT, upload)).id
        await house.publish(vault)
    path = Path(config.objects_uri("sg").removeprefix("dir:")) / f"documents/{later['sg']}"
    content = path.read_bytes()
    path.unlink()

    async def tried(*, dry_run: bool, region: str | None = None) -> dict[str, tuple[bool, str]]:
        args = Namespace(dry_run=dry_run, leave_unknown=False, region=region)
        return {
            done.region: (done.refused is not None, states(done)[later[done.region]])
            for done in await each_region(config, config.database, args)
        }

    async with (
        open_vault(config, dsn=config.database, restoring=True) as vault,
        connection(vault.pool) as conn,
    ):
        await bring_back(conn, house.state)
    expected = {REGION: (False, "recovered"), "sg": (True, "unknown")}
    assert await tried(dry_run=True) == expected
    assert await tried(dry_run=False) == expected
    with pytest.raises(RolledBackError, match="sg"):
        async with open_vault(config, dsn=config.database):
            pass
    path.write_bytes(content)
    assert await tried(dry_run=False, region="sg") == {"sg": (False, "recovered")}
    async with clocked(config, regions=regions) as (vault, _):
        for document in later.values():
            async with open_content(
                vault, desk, document, purpose="verify-identity", reference=None
            ) as opened:
                assert b"".join([chunk async for chunk in opened.chunks]) == JPEG
