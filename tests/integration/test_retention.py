"""Documents go when their rule says so: never early, never twice, and held ones not at all."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from keys.errors import RolledBackError
from tests.fixtures_server import PORTING, Api
from tests.retention_house import (
    ADMIN,
    COMPLIANCE,
    DPO,
    Clock,
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
from vault.actions.approvals import approve, request_approval
from vault.actions.expire import expire, shred_due
from vault.actions.log_publish import sequence_log
from vault.actions.order_details import forget_orders
from vault.actions.orders import change_order
from vault.actions.policy import (
    apply_policy,
    give_instruction,
    in_force,
    policy_effect,
    resolve_instruction,
    start_grace,
    withdraw_instruction,
)
from vault.actions.retention import explain_retention, plan_retention
from vault.actions.shred import purge_shredded, shred
from vault.commands.doctor_looks import policy as doctors_policy
from vault.config.settings import Config
from vault.context import Vault
from vault.domain.approvals import Act, Terms
from vault.domain.documents import Ground, Kind
from vault.domain.orders import Status
from vault.errors import (
    ClockError,
    ConfigurationError,
    ConflictError,
    FloorError,
    ForbiddenError,
    HeldError,
    InvalidRequestError,
    RecordsUnavailableError,
)
from vault.sql.connection import connection

House = tuple[Vault, Clock]


@pytest.fixture
async def house(config: Config) -> AsyncIterator[House]:
    """Give a vault on a clock of its own, with an hour's grace."""
    async with clocked(config, reversal_grace_seconds=3600.0) as opened:
        yield opened


async def test_the_scan_goes_and_the_authorisation_stays_its_year(house: House) -> None:
    """One order holds a passport, which goes at `ported`, and an LOA, which stays its time."""
    vault, clock = house
    order = await new_order(vault)
    passport, letter = await put(vault, order), await put(vault, order, Kind.LOA)
    await end(vault, order)
    await sweep(vault)
    assert await custody(vault, passport) == "stored"
    clock.forward(hours=1)
    await sweep(vault)
    assert (await custody(vault, passport), await custody(vault, letter)) == ("shredded", "stored")
    assert (await look(vault, passport)).retention_row == "id-scans-uk"
    with pytest.raises(FloorError, match="kept until"):
        await shred(vault, PORTING, letter, "asked")
    clock.forward(days=365)
    await sweep(vault)
    assert await custody(vault, letter) == "stored"
    clock.forward(days=365)
    await sweep(vault)
    assert await custody(vault, letter) == "shredded"


@pytest.mark.parametrize("before, after", [(86400.0, 0.0), (0.0, 86400.0)])
async def test_a_changed_grace_is_acted_on_as_it_is_shown(
    config: Config, before: float, after: float
) -> None:
    """A grace that is shorter or longer since a restart moves the time itself, in every process."""
    async with clocked(config, reversal_grace_seconds=before) as (vault, _):
        order = await new_order(vault)
        document = await put(vault, order)
        await end(vault, order)
        if before:
            await sweep(vault)
        async with clocked(config, reversal_grace_seconds=after) as (other, _):
            # A command of the operator, whose shell may have other settings, changes nothing.
            assert await grace_in_force(other) == timedelta(seconds=before)
            assert (await doctors_policy(other.config, timedelta(seconds=before)))[0] == "warn"
            assert await start_grace(other) == timedelta(seconds=before)
            assert await start_grace(other) is None
            assert (await doctors_policy(other.config, await grace_in_force(vault)))[0] == "ok"
            verdict, said = await doctors_policy(vault.config, await grace_in_force(vault))
            assert (verdict, f"{after:g} is in force" in said) == ("warn", True)
            shown = [await explain_retention(one, DPO, document) for one in (vault, other)]
            assert shown[0].sentence == shown[1].sentence
            await sweep(vault)
            assert await custody(vault, document) == ("stored" if after else "shredded")


async def grace_in_force(vault: Vault) -> timedelta:
    """Return how long an end waits for its reversal, in every process."""
    async with connection(vault.pool) as conn:
        return (await in_force(vault, conn)).grace


async def test_a_reversal_within_the_grace_reopens_custody(house: House) -> None:
    """A port that is reversed in time keeps everything, and its next end counts anew."""
    vault, clock = house
    order = await new_order(vault)
    passport = await put(vault, order)
    await end(vault, order)
    await sweep(vault)
    clock.forward(minutes=59)
    await change_order(vault, PORTING, order, Status.EXCEPTION)
    clock.forward(days=100)
    await sweep(vault)
    assert await custody(vault, passport) == "stored"
    later = await put(vault, order)
    await end(vault, order)
    clock.forward(hours=1)
    await sweep(vault)
    assert {await custody(vault, document) for document in (passport, later)} == {"shredded"}


async def test_an_order_that_stands_still_does_not_keep_for_ever(house: House) -> None:
    """A scan whose order never ends goes after its year."""
    vault, clock = house
    passport = await put(vault, await new_order(vault))
    clock.forward(days=364)
    await sweep(vault)
    assert await custody(vault, passport) == "stored"
    clock.forward(days=1)
    await sweep(vault)
    assert await custody(vault, passport) == "shredded"


async def test_holds_keep_what_is_there_and_what_comes(house: House) -> None:
    """By document, order or customer; two holds, one released: still held."""
    vault, clock = house
    orders = [await new_order(vault, customer) for customer in ("one", "two", "three")]
    first = [await put(vault, order) for order in orders]
    by_document = await hold(vault, documents=(first[0],))
    by_order = await hold(vault, orders=(orders[1],))
    by_customer = await hold(vault, customers=("three",))
    second = [await put(vault, order) for order in orders]
    for order in orders:
        await end(vault, order)
    clock.forward(days=1)
    await sweep(vault)
    assert [await custody(vault, document) for document in first] == ["stored"] * 3
    assert [await custody(vault, d) for d in second] == ["shredded", "stored", "stored"]
    both = await hold(vault, orders=(orders[1],))
    for case in (by_document, by_order, by_customer):
        await release(vault, case)
    await sweep(vault)
    assert [await custody(vault, d) for d in first] == ["shredded", "stored", "shredded"]
    await release(vault, both)
    await sweep(vault)
    assert await custody(vault, first[1]) == "shredded"


async def test_a_hold_stops_requests_and_purging(house: House) -> None:
    """Nobody shreds what is held, whatever the customer says; what is shredded is not purged."""
    vault, clock = house
    order = await new_order(vault)
    gone, kept = await put(vault, order), await put(vault, order)
    await shred(vault, PORTING, gone, "duplicate", Ground.MISTAKE)
    case = await hold(vault, orders=(order,))
    assert await purge_shredded(vault, "uk") == 0
    with pytest.raises(HeldError, match="a hold keeps this document"):
        await shred(vault, PORTING, kept, "asked", Ground.WITHDRAWN)
    await give_instruction(
        vault, DPO, region="uk", customer="acme", kind=None, keep="at once", reference=None
    )
    await end(vault, order)
    clock.forward(days=30)
    await sweep(vault)
    assert await custody(vault, kept) == "stored"
    await release(vault, case)
    assert await purge_shredded(vault, "uk") == 1
    await sweep(vault)
    assert await custody(vault, kept) == "shredded"


async def test_what_is_shredded_cannot_be_held(house: House) -> None:
    """A hold on a shredded document is refused, and on an order of which nothing is left."""
    vault, clock = house
    order = await new_order(vault)
    passport = await put(vault, order)
    await shred(vault, PORTING, passport, "asked")
    with pytest.raises(ConflictError, match="shredded already"):
        await hold(vault, documents=(passport,))
    await end(vault, order)
    case = await hold(vault, orders=(order,))
    clock.forward(days=1)
    assert await forget_orders(vault, "uk")
    await release(vault, case)
    assert await forget_orders(vault, "uk")
    with pytest.raises(ConflictError, match="there is nothing to keep"):
        await hold(vault, orders=(order,))


async def test_instructions_move_the_time_within_the_policy(house: House) -> None:
    """Within floor and ceiling the newest stands, and a withdrawn one does not."""
    vault, clock = house
    order = await new_order(vault)
    invoice = await put(vault, order, Kind.INVOICE)
    await end(vault, order)

    async def due_in() -> timedelta:
        await sweep(vault)
        row = await look(vault, invoice)
        async with connection(vault.pool) as conn:
            due_at = await conn.fetchval("select due_at from document where id = $1", row.id)
        found: timedelta = due_at - clock.now
        return found

    assert await due_in() > timedelta(days=89)
    given: Any = {"region": "uk", "customer": "acme", "reference": None}
    await give_instruction(vault, DPO, kind=None, keep="P40D", **given)
    assert timedelta(days=39) < await due_in() <= timedelta(days=40)
    view = await give_instruction(vault, DPO, kind="cob", keep="P20D", **given)
    assert timedelta(days=19) < await due_in() <= timedelta(days=20)
    await withdraw_instruction(vault, DPO, view.instruction.id)
    assert timedelta(days=39) < await due_in() <= timedelta(days=40)
    with pytest.raises(ConflictError, match="withdrawn"):
        await resolve_instruction(vault, DPO, view.instruction.id)


async def test_a_conflict_is_shown_until_it_is_resolved(house: House) -> None:
    """An instruction under the floor changes nothing until somebody says: as near as may be."""
    vault, clock = house
    order = await new_order(vault)
    letter = await put(vault, order, Kind.LOA)
    view = await give_instruction(
        vault, DPO, region="uk", customer="acme", kind="loa", keep="P30D", reference="C-9"
    )
    assert [rule.row for rule in view.conflicts] == ["loa-ported-uk"]
    await end(vault, order)
    clock.forward(days=400)
    await sweep(vault)
    found = await explain_retention(vault, COMPLIANCE, letter)
    assert found.standing.verdict is not None
    assert found.standing.verdict.state == "conflict"
    assert "somebody has to resolve" in found.sentence
    resolved = await resolve_instruction(vault, DPO, view.instruction.id)
    assert resolved.conflicts == ()
    await sweep(vault)
    assert await custody(vault, letter) == "shredded"


@pytest.mark.parametrize("keep", ["0", "0 days", "P0D", "", "30", "P1Y"])
async def test_an_ambiguous_instruction_is_refused(house: House, keep: str) -> None:
    """What may mean at once or never, as "0 days", is not guessed."""
    vault, _ = house
    with pytest.raises(InvalidRequestError, match="ambiguous"):
        await give_instruction(
            vault, DPO, region="uk", customer="acme", kind=None, keep=keep, reference=None
        )


async def test_a_clock_that_runs_ahead_stops_expiry(config: Config) -> None:
    """Nothing goes by a clock that is ahead of the database's by more than the bound."""
    async with clocked(config, clock_ahead_seconds_max=60.0) as (vault, clock):
        order = await new_order(vault)
        passport = await put(vault, order)
        await end(vault, order)
        clock.forward(seconds=90)
        with pytest.raises(ClockError, match="set both by NTP"):
            await expire(vault, "uk")
        assert await custody(vault, passport) == "stored"
        clock.forward(seconds=-60)
        await sweep(vault)
        assert await custody(vault, passport) == "shredded"


async def test_a_clock_that_jumps_back_shreds_nothing_early(house: House) -> None:
    """Time that went back lets documents wait; when it comes again they go, once."""
    vault, clock = house
    order = await new_order(vault)
    passport = await put(vault, order)
    await end(vault, order)
    clock.forward(hours=-5)
    await sweep(vault)
    assert await custody(vault, passport) == "stored"
    clock.forward(hours=6, minutes=1)
    await sweep(vault)
    assert await custody(vault, passport) == "shredded"


async def test_several_workers_shred_each_document_once(house: House) -> None:
    """Workers that sweep at the same time share the work: one intent and one outcome for each."""
    vault, clock = house
    order = await new_order(vault)
    documents = [await put(vault, order) for _ in range(12)]
    await end(vault, order)
    clock.forward(days=1)
    for _ in range(3):
        await asyncio.gather(*(expire(vault, "uk") for _ in range(4)))
    assert {await custody(vault, document) for document in documents} == {"shredded"}
    async with connection(vault.pool) as conn:
        counts = await conn.fetch(
            """
            select document, phase, count(*) from access_record
            where action = 'document.shred' group by 1, 2
            """
        )
    assert {row["count"] for row in counts} == {1}
    assert len(counts) == 2 * len(documents)


async def test_the_review_finds_what_the_rows_say(house: House) -> None:
    """A `due_at` that is wrong in the row shreds nothing: the rule is asked again."""
    vault, _ = house
    passport = await put(vault, await new_order(vault))
    await sweep(vault)
    async with connection(vault.pool) as conn:
        await conn.execute("update document set due_at = '2000-01-01'")
    assert await shred_due(vault, "uk") == 1
    assert await custody(vault, passport) == "stored"
    assert await shred_due(vault, "uk") == 0


async def test_the_plan_lists_what_goes_and_when(house: House) -> None:
    """Soonest first, page after page, without what is held."""
    vault, clock = house
    order = await new_order(vault)
    invoice, passport = await put(vault, order, Kind.INVOICE), await put(vault, order)
    held = await put(vault, order)
    await hold(vault, documents=(held,))
    await end(vault, order)
    until = clock.now + timedelta(days=120)
    before = await plan_retention(vault, COMPLIANCE, until, None, 10)
    assert before.unjudged == 3
    await sweep(vault)
    plan = await plan_retention(vault, COMPLIANCE, until, None, 10)
    assert [item.document.id for item in plan.items] == [passport, invoice]
    assert plan.unjudged == 0
    first = plan.items[0].verdict.due_at
    assert first is not None
    rest = await plan_retention(vault, COMPLIANCE, until, (first, passport), 10)
    assert [item.document.id for item in rest.items] == [invoice]
    with pytest.raises(InvalidRequestError, match="hundred years"):
        await plan_retention(vault, COMPLIANCE, until + timedelta(days=40_000), None, 10)


def shortened(vault: Vault) -> str:
    """Return the policy with papers kept ten days at most."""
    assert vault.policy_text.count('"P90D"') == 1
    return vault.policy_text.replace('"P90D"', '"P10D"')


async def test_a_policy_shows_its_effect_and_takes_four_eyes_to_shorten(house: House) -> None:
    """Which documents would go at once is said first; alone nobody shortens; then it works."""
    vault, clock = house
    order = await new_order(vault)
    invoice = await put(vault, order, Kind.INVOICE)
    await end(vault, order)
    clock.forward(days=20)
    await sweep(vault)
    text = shortened(vault)
    effect = await policy_effect(vault, ADMIN, text)
    assert (effect.shortens, effect.at_once, effect.documents) == (True, 1, [invoice])
    assert effect.by_kind == {"invoice in uk": 1}
    with pytest.raises(ForbiddenError, match="1 documents and faxes would go at once"):
        await apply_policy(vault, ADMIN, text, None)
    await sweep(vault)
    assert await custody(vault, invoice) == "stored"
    terms = Terms(Act.POLICY_SHORTEN, effect.subject, vault.config.regions[0])
    asked = await request_approval(vault, ADMIN, terms, reason="law-changed")
    with pytest.raises(ForbiddenError, match="nobody has approved"):
        await apply_policy(vault, ADMIN, text, asked.id)
    await approve(vault, COMPLIANCE, asked.id)
    version, _ = await apply_policy(vault, ADMIN, text, asked.id)
    assert version == 2
    await sweep(vault)
    assert await custody(vault, invoice) == "shredded"
    with pytest.raises(ConflictError, match="in force already"):
        await apply_policy(vault, ADMIN, text, None)


async def test_a_policy_that_lengthens_needs_nobody_else(house: House) -> None:
    """Longer is safe: it is applied at once, and what would have gone stays."""
    vault, clock = house
    order = await new_order(vault)
    invoice = await put(vault, order, Kind.INVOICE)
    await end(vault, order)
    await sweep(vault)
    longer = vault.policy_text.replace('"P90D"', '"P100D"')
    await apply_policy(vault, ADMIN, longer, None)
    clock.forward(days=95)
    await sweep(vault)
    assert await custody(vault, invoice) == "stored"
    with pytest.raises(ConfigurationError, match="no row for"):
        await apply_policy(vault, ADMIN, "rows = []", None)


async def test_a_file_that_changed_does_nothing_by_itself(config: Config, house: House) -> None:
    """A start with another retention.toml keeps the policy in force, and says so."""
    vault, clock = house
    order = await new_order(vault)
    invoice = await put(vault, order, Kind.INVOICE)
    await end(vault, order)
    clock.forward(days=20)
    (config.home / "retention.toml").write_text(shortened(vault))
    async with clocked(config) as (restarted, later):
        later.forward(days=20)
        await sweep(restarted)
        assert await custody(restarted, invoice) == "stored"


async def test_the_record_names_the_ground(api: Api, vault: Vault, passport: bytes) -> None:
    """An erasure, and each refusal of one, stands in the log with its ground."""
    order = await api.order()
    _, scan = await api.put(order, passport)
    _, letter = await api.put(order, b"%PDF-1.4 letter", kind="loa")
    shred_of = "/v1/documents/{}/actions/shred"
    body = {"reason": "withdrawn", "ground": "consent-withdrawn"}
    status, problem, _ = await api.call("POST", shred_of.format(letter["id"]), json=body)
    assert (status, "floor" in problem["detail"]) == (409, True)
    fields = {"region": "uk", "reason": "x", "authority": "court", "documents": [scan["id"]]}
    assert (await api.call("POST", "/v1/holds", json=fields, role="dpo"))[0] == 201
    status, _, _ = await api.call("POST", shred_of.format(scan["id"]), json=body)
    assert status == 423
    _, shown, _ = await api.call("GET", f"/v1/documents/{scan['id']}")
    assert (shown["held"], shown["holds"]) == (True, [])
    _, listed, _ = await api.call("GET", f"/v1/orders/{order}")
    assert [document["held"] for document in listed["documents"]] == [True, False]
    await sequence_log(vault, "uk")
    _, page, _ = await api.call(
        "GET", "/v1/access-records?region=uk&action=document.shred", role="compliance"
    )
    assert {record.get("reason") for record in page["data"] if record["phase"] == "outcome"} == {
        "hold",
        "legal-floor",
    }
    assert {r["basis"] for r in page["data"] if r["phase"] == "intent"} == {"consent-withdrawn"}


async def test_a_restriction_stops_reading_and_nothing_else(api: Api, passport: bytes) -> None:
    """A restricted document is refused with 423 and shown as such, until that is lifted."""
    _, scan = await api.put(await api.order(), passport)
    path = f"/v1/documents/{scan['id']}"
    restrict = f"{path}/actions/restrict"
    status, _, _ = await api.call("POST", restrict, json={"reason": "contested"})
    assert status == 403
    for _ in range(2):
        status, shown, _ = await api.call(
            "POST", restrict, json={"reason": "contested"}, role="dpo"
        )
        assert (status, shown["restriction"]["reason"]) == (200, "contested")
    status, problem = await api.get(scan["id"])
    assert (status, "restricted" in problem["detail"]) == (423, True)
    _, why, _ = await api.call("GET", f"{path}/retention", role="compliance")
    assert "Nobody reads it meanwhile" in why["sentence"]
    assert why["retention"]["state"] == "open"
    lift = f"{path}/actions/unrestrict"
    await api.call("POST", lift, json={"reason": "settled"}, role="dpo")
    assert (await api.get(scan["id"]))[0] == 200
    await api.call("POST", f"{path}/actions/shred", json={"reason": "asked"})
    status, _, _ = await api.call("POST", restrict, json={"reason": "late"}, role="dpo")
    assert status == 409


async def test_a_hold_is_released_by_two_and_once(api: Api, passport: bytes) -> None:
    """Alone it is refused; of two releases at once one succeeds; again it is a conflict."""
    _, scan = await api.put(await api.order(), passport)
    fields = {"region": "uk", "reason": "x", "authority": "court", "documents": [scan["id"]]}
    _, case, _ = await api.call("POST", "/v1/holds", json=fields, role="dpo")
    path = f"/v1/holds/{case['id']}/actions/release"
    status, problem, _ = await api.call("POST", path, json={"reason": "over"}, role="dpo")
    assert (status, "somebody else" in problem["detail"]) == (403, True)
    ask = {"act": "hold.release", "subject": case["id"], "region": "uk", "reason": "case-closed"}
    _, asked, _ = await api.call("POST", "/v1/approvals", json=ask, role="dpo")
    await api.call("POST", f"/v1/approvals/{asked['id']}/actions/approve", role="compliance")
    body = {"reason": "over", "approval": asked["id"]}
    done = await asyncio.gather(*(api.call("POST", path, json=body, role="dpo") for _ in range(2)))
    assert sorted(status for status, _, _ in done) == [200, 409]
    _, shown, _ = await api.call("GET", f"/v1/holds/{case['id']}", role="compliance")
    assert shown["released_by"] != shown["approved_by"]
    assert shown["documents"] == [scan["id"]]
    _, page, _ = await api.call("GET", "/v1/holds", role="compliance")
    assert [item["id"] for item in page["data"]] == [case["id"]]


async def test_a_malformed_hold_is_refused(api: Api) -> None:
    """What a hold covers must be there and in the region, and its words no names."""
    cases: list[tuple[dict[str, list[str] | list[int] | str], int]] = [
        ({"documents": []}, 422),
        ({"documents": ["no-id"]}, 422),
        ({"documents": [str(UUID(int=5))]}, 404),
        ({"customers": ["a b"]}, 422),
        ({"customers": [5]}, 422),
        ({"reason": " "}, 422),
        ({"authority": ""}, 422),
        ({"reference": "Jane Doe"}, 422),
        ({"region": "mars"}, 403),
        ({"region": "sg"}, 403),
    ]
    for change, status in cases:
        fields = {
            "region": "uk",
            "reason": "x",
            "authority": "court",
            "customers": ["acme"],
            **change,
        }
        if "documents" in change:
            del fields["customers"]
        assert (await api.call("POST", "/v1/holds", json=fields, role="dpo"))[0] == status


async def test_a_hold_waits_for_who_is_shredding(house: House) -> None:
    """A hold that is placed during a sweep either comes too late and says so, or keeps."""
    vault, clock = house
    order = await new_order(vault)
    documents = [await put(vault, order) for _ in range(6)]
    await end(vault, order)
    await sweep(vault)
    clock.forward(days=1)

    async def try_hold(document: UUID) -> bool:
        try:
            await hold(vault, documents=(document,))
        except ConflictError:
            return False
        return True

    kept, _ = await asyncio.gather(
        asyncio.gather(*(try_hold(document) for document in documents)), expire(vault, "uk")
    )
    await sweep(vault)
    for document, held in zip(documents, kept, strict=True):
        assert await custody(vault, document) == ("stored" if held else "shredded")


async def test_what_cannot_be_recorded_is_not_shredded(config: Config, house: House) -> None:
    """While records cannot be written nothing goes; the next sweep does it."""
    vault, clock = house
    order = await new_order(vault)
    passport = await put(vault, order)
    await end(vault, order)
    clock.forward(days=1)
    owner = await asyncpg.connect(config.database)
    try:
        async with owner.transaction():
            await owner.execute("lock table access_record in exclusive mode")
            with pytest.raises(RecordsUnavailableError):
                await expire(vault, "uk")
            assert await custody(vault, passport) == "stored"
    finally:
        await owner.close()
    await sweep(vault)
    assert await custody(vault, passport) == "shredded"


async def test_keys_that_cannot_be_destroyed_leave_no_record_of_it(house: House) -> None:
    """However often it is tried, nothing is said to be shredded, or about to be."""
    vault, clock = house
    order = await new_order(vault)
    passport = await put(vault, order)
    await end(vault, order)
    clock.forward(days=1)
    empty = await new_order(vault)
    await end(vault, empty)
    clock.forward(days=1)
    vault.keyring.refuse("uk")
    for step in (expire, expire, forget_orders):
        with pytest.raises(RolledBackError):
            await step(vault, "uk")
    assert await custody(vault, passport) == "stored"
    tried = "select count(*) from access_record where action in ('document.shred', 'order.forget')"
    assert await vault.pool.fetchval(tried) == 0
