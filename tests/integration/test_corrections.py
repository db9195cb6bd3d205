"""What was uploaded or typed by mistake is put right: recorded, within floors, holds and roles."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from uuid import UUID

import asyncpg
import pytest

from tests.command_line import NUMBER, SCAN, one_line, token_of
from tests.fixtures_process import VaultProcess
from tests.fixtures_server import PORTING, Api, in_pieces
from tests.integration.test_number_index import found as find
from tests.retention_house import (
    COMPLIANCE,
    DPO,
    JPEG,
    OTHER_DPO,
    Clock,
    clocked,
    custody,
    end,
    hold,
    look,
    new_order,
    put,
    sweep,
)
from vault.actions.approvals import approve, list_approvals, request_approval
from vault.actions.correct import Changed, correct_kind, correct_order
from vault.actions.holds import restrict
from vault.actions.ingest import Upload, ingest
from vault.actions.orders import show_order
from vault.actions.retention import explain_retention
from vault.actions.shred import shred
from vault.config.settings import Config
from vault.context import Vault
from vault.domain.access import Principal
from vault.domain.approvals import Act, Terms
from vault.domain.certificates import Evidence, PolicyUsed, certificate_text
from vault.domain.documents import Ground, Kind
from vault.errors import (
    ConflictError,
    FloorError,
    ForbiddenError,
    HeldError,
    InvalidRequestError,
    NotFoundError,
    RestrictedError,
    UnsupportedTypeError,
)

House = tuple[Vault, Clock]
OLD, NEW = "+442079460123", "+442079460124"


@pytest.fixture
async def house(config: Config) -> AsyncIterator[House]:
    """Open a vault on a clock of the test's."""
    async with clocked(config) as opened:
        yield opened


async def scan_as_loa(vault: Vault, order: UUID) -> UUID:
    """Upload a passport scan as a letter of authorisation, by mistake."""
    upload = Upload(in_pieces(JPEG), None, None, len(JPEG), None)
    return (await ingest(vault, PORTING, order, Kind.LOA, upload)).id


async def agreed(vault: Vault, act: Act, subject: str, who: Principal = PORTING) -> UUID:
    """Have an act agreed to by somebody else; returns the approval."""
    asked = await request_approval(vault, who, Terms(act, subject, "uk"), reason="wrong-kind")
    await approve(vault, COMPLIANCE, asked.id)
    return asked.id


async def said_of(vault: Vault, action: str) -> list[tuple[str, str | None]]:
    """Return what the log says an action came to, in the order of time."""
    rows = await vault.pool.fetch(
        "select result, reason from access_record where action = $1 and phase = 'outcome'"
        " order by at",
        action,
    )
    return [(row["result"], row["reason"]) for row in rows]


async def test_a_kind_is_corrected_by_two_where_the_floor_falls(house: House) -> None:
    """A passport that came as a letter goes when the order does, once somebody else agreed."""
    vault, _ = house
    order = await new_order(vault)
    scan = await scan_as_loa(vault, order)
    with pytest.raises(FloorError, match=f"document.correct --subject {scan}/passport"):
        await correct_kind(vault, PORTING, scan, Kind.PASSPORT)
    other = await agreed(vault, Act.CORRECT, f"{scan}/national_id")
    with pytest.raises(ForbiddenError, match="national_id"):
        await correct_kind(vault, PORTING, scan, Kind.PASSPORT, other)
    approval = await agreed(vault, Act.CORRECT, f"{scan}/passport")
    corrected = await correct_kind(vault, PORTING, scan, Kind.PASSPORT, approval)
    assert corrected.kind is (await look(vault, scan)).kind is Kind.PASSPORT
    verdict = (await explain_retention(vault, PORTING, scan)).standing.verdict
    assert verdict is not None
    assert verdict.rule.kind == "passport"
    assert (await said_of(vault, "document.correct"))[-1] == ("completed", "loa to passport")
    await end(vault, order)
    await sweep(vault)
    assert await custody(vault, scan) == "shredded"


async def test_a_kind_whose_floor_is_not_lower_takes_nobody_else(house: House) -> None:
    """A letter that came as a passport is kept from then on, and longer than its order."""
    vault, _ = house
    order = await new_order(vault)
    scan = await put(vault, order, Kind.PASSPORT)
    await correct_kind(vault, PORTING, scan, Kind.LOA)
    await correct_kind(vault, PORTING, scan, Kind.LOA)
    await end(vault, order)
    await sweep(vault)
    assert await custody(vault, scan) == "stored"
    with pytest.raises(FloorError):
        await shred(vault, PORTING, scan, "not-needed")


async def test_a_kind_is_what_its_file_can_be(house: House) -> None:
    """What no letter may be does not become one."""
    vault, _ = house
    heic = b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + bytes(200)
    upload = Upload(in_pieces(heic), None, None, len(heic), None)
    scan = (await ingest(vault, PORTING, await new_order(vault), Kind.PASSPORT, upload)).id
    with pytest.raises(UnsupportedTypeError):
        await correct_kind(vault, PORTING, scan, Kind.LOA)


async def mistaken(vault: Vault, scan: UUID, approval: UUID | None = None, **more: UUID) -> None:
    """Shred what was sent by mistake."""
    await shred(vault, PORTING, scan, "sent-by-mistake", Ground.MISTAKE, approval=approval, **more)


async def test_what_was_sent_by_mistake_goes_against_its_floor_with_two(house: House) -> None:
    """Its certificate says that it went against the floor, by whose agreement, and for what."""
    vault, _ = house
    order = await new_order(vault)
    wrong, right = await scan_as_loa(vault, order), await put(vault, order, Kind.LOA)
    with pytest.raises(FloorError, match=f"document.mistake --subject {wrong}"):
        await mistaken(vault, wrong)
    approval = await agreed(vault, Act.MISTAKE, str(wrong))
    with pytest.raises(FloorError):
        await shred(vault, PORTING, wrong, "not-needed", Ground.NOT_NEEDED)
    with pytest.raises(InvalidRequestError, match="sent-by-mistake"):
        await shred(vault, PORTING, wrong, "not-needed", Ground.OBJECTION, approval=approval)
    with pytest.raises(ForbiddenError, match="is for document.mistake"):
        await mistaken(vault, right, approval)
    await mistaken(vault, wrong, approval, replaced_by=right)
    gone = await look(vault, wrong)
    assert (gone.custody, gone.shred_approved_by) == ("shredded", COMPLIANCE.id)
    assert gone.replaced_by == right
    policy = PolicyUsed(1, "loa", "source", "first-start", None)
    text = certificate_text(gone, Evidence("file", 0, "none", policy, (), None), vault.clock())
    trigger = json.loads(text.split("\n")[1])["trigger"]
    assert trigger["ground"] == trigger["against_floor"].replace(" ", "-") == "sent-by-mistake"
    assert (trigger["approved_by"], trigger["replaced_by"]) == (COMPLIANCE.id, str(right))
    assert await custody(vault, right) == "stored"


async def test_a_replacement_is_the_same_thing(house: House) -> None:
    """Of another kind, another order, itself, shredded or unknown: none takes its place."""
    vault, _ = house
    order = await new_order(vault)
    wrong = await scan_as_loa(vault, order)
    shredded = await put(vault, order, Kind.PASSPORT)
    await shred(vault, PORTING, shredded, "not-needed")
    approval = await agreed(vault, Act.MISTAKE, str(wrong))
    for other in (
        wrong,
        await put(vault, order, Kind.PASSPORT),
        await put(vault, await new_order(vault), Kind.LOA),
        shredded,
        UUID(int=5),
    ):
        with pytest.raises(ConflictError, match="takes its place"):
            await mistaken(vault, wrong, approval, replaced_by=other)
    await mistaken(vault, wrong, approval)


async def test_a_hold_and_a_restriction_keep_all_as_it_is(house: House) -> None:
    """Whoever agreed to whatever: nothing of a case is rewritten or goes."""
    vault, _ = house
    order = await new_order(vault)
    held, restricted = await scan_as_loa(vault, order), await scan_as_loa(vault, order)
    approvals = {
        scan: (
            await agreed(vault, Act.MISTAKE, str(scan)),
            await agreed(vault, Act.CORRECT, f"{scan}/passport"),
        )
        for scan in (held, restricted)
    }
    await restrict(vault, DPO, restricted, "contested")
    await hold(vault, documents=(held,))
    for scan, error in ((held, HeldError), (restricted, RestrictedError)):
        mistake, correction = approvals[scan]
        with pytest.raises(error):
            await mistaken(vault, scan, mistake)
        with pytest.raises(error):
            await correct_kind(vault, PORTING, scan, Kind.PASSPORT, correction)
        assert await custody(vault, scan) == "stored"
    with pytest.raises(HeldError):
        await correct_order(vault, PORTING, order, Changed(numbers=[NEW]))


async def test_another_region_or_desk_corrects_nothing(house: House) -> None:
    """What is not theirs is not there for them; a desk of some kinds stays within those."""
    vault, _ = house
    order = await new_order(vault)
    scan = await put(vault, order, Kind.PASSPORT)
    abroad = Principal("token:sg", "porting", frozenset({"sg"}))
    rival = Principal("token:rival", "porting", frozenset({"uk"}), customers=frozenset({"b"}))
    narrow = replace(PORTING, kinds=frozenset({"passport"}))
    letters = replace(PORTING, kinds=frozenset({"loa"}))
    for who in (abroad, rival, letters):
        with pytest.raises(NotFoundError):
            await correct_kind(vault, who, scan, Kind.LOA)
    with pytest.raises(ForbiddenError, match="kinds passport"):
        await correct_kind(vault, narrow, scan, Kind.LOA)
    for who in (abroad, rival):
        with pytest.raises(NotFoundError):
            await correct_order(vault, who, order, Changed(numbers=[NEW]))
    with pytest.raises(ForbiddenError):
        await correct_kind(vault, COMPLIANCE, scan, Kind.LOA)


async def test_a_failure_leaves_all_as_it_was(house: House, pool: asyncpg.Pool) -> None:
    """At whichever step it ends: the document is stored, and the approval good as before."""
    vault, _ = house
    scan = await scan_as_loa(vault, await new_order(vault))
    mistake = await agreed(vault, Act.MISTAKE, str(scan))
    correction = await agreed(vault, Act.CORRECT, f"{scan}/passport")
    acts = {
        "used_at": ("approval", mistaken(vault, scan, mistake)),
        "custody": ("document", mistaken(vault, scan, mistake)),
        "kind": ("document", correct_kind(vault, PORTING, scan, Kind.PASSPORT, correction)),
    }
    for column, (table, act) in acts.items():
        await pool.execute(
            "create function cut() returns trigger language plpgsql as $$ begin"
            f" if old.{column} is distinct from new.{column} then raise 'cut'; end if;"
            " return new; end $$;"
            f" create trigger cut before update on {table} for each row execute function cut()"
        )
        with pytest.raises(asyncpg.RaiseError, match="cut"):
            await act
        await pool.execute(f"drop trigger cut on {table}; drop function cut()")
        found = await look(vault, scan)
        assert (found.custody, found.kind) == ("stored", Kind.LOA)
    await correct_kind(vault, PORTING, scan, Kind.PASSPORT, correction)
    await mistaken(vault, scan, mistake)
    assert await custody(vault, scan) == "shredded"


async def test_of_two_at_once_one_is_agreed_to(house: House) -> None:
    """An approval corrects once, and a shred and a correction never both happen."""
    vault, _ = house
    scan = await scan_as_loa(vault, await new_order(vault))
    mistake = await agreed(vault, Act.MISTAKE, str(scan))
    correction = await agreed(vault, Act.CORRECT, f"{scan}/passport")
    done = await asyncio.gather(
        mistaken(vault, scan, mistake),
        correct_kind(vault, PORTING, scan, Kind.PASSPORT, correction),
        return_exceptions=True,
    )
    assert (await look(vault, scan)).custody == "shredded"
    kind = (await look(vault, scan)).kind
    assert (kind is Kind.LOA) == isinstance(done[1], ConflictError)


async def test_an_orders_details_are_corrected(house: House) -> None:
    """The new number finds it and the old one does not; what is not named stays."""
    vault, _ = house
    order = await new_order(vault)
    changed = Changed(numbers=[NEW], customer_reference="R-2", losing_carrier="Acme Telecom")
    view = await correct_order(vault, PORTING, order, changed)
    assert view.details == (await show_order(vault, PORTING, order)).details
    assert view.details is not None
    assert view.details.numbers == (NEW,)
    assert [one.id for one in await find(vault, NEW)] == [order]
    assert await find(vault, OLD) == []
    view = await correct_order(vault, PORTING, order, Changed(losing_carrier=""))
    assert view.details is not None
    assert (view.details.customer_reference, view.details.losing_carrier) == ("R-2", None)
    said = [reason for _, reason in await said_of(vault, "order.correct")]
    assert said == ["numbers customer_reference losing_carrier", "losing_carrier"]
    kept = repr(await vault.pool.fetch("select * from access_record"))
    assert "Acme" not in kept
    assert NEW not in kept
    for wrong in (Changed(), Changed(numbers=[]), Changed(numbers=["12"]), Changed(type="half")):
        with pytest.raises(InvalidRequestError):
            await correct_order(vault, PORTING, order, wrong)


async def test_details_corrected_at_once_are_of_one_of_them(house: House) -> None:
    """Whoever is last, number and index agree."""
    vault, _ = house
    order = await new_order(vault)
    numbers = [f"+4420794601{n}" for n in range(30, 36)]
    await asyncio.gather(
        *(correct_order(vault, PORTING, order, Changed(numbers=[number])) for number in numbers)
    )
    details = (await show_order(vault, PORTING, order)).details
    assert details is not None
    for number in numbers:
        found = await find(vault, number)
        assert bool(found) == (number in details.numbers)


async def test_details_that_are_gone_are_not_corrected(house: House) -> None:
    """Nothing brings them back."""
    vault, _ = house
    order = await new_order(vault)
    await vault.pool.execute("update porting_order set details = null where id = $1", order)
    with pytest.raises(ConflictError, match="gone"):
        await correct_order(vault, PORTING, order, Changed(numbers=[NEW]))


async def test_a_desk_sees_its_own_requests_alone(house: House) -> None:
    """What others ask for is not a desk's to know."""
    vault, _ = house
    scan = await scan_as_loa(vault, await new_order(vault))
    mine = await agreed(vault, Act.MISTAKE, str(scan))
    await agreed(vault, Act.MISTAKE, str(scan), DPO)
    assert [one.id for one in await list_approvals(vault, PORTING, None, 9)] == [mine]
    assert len(await list_approvals(vault, OTHER_DPO, None, 9)) == 2


async def test_over_http(api: Api, passport: bytes) -> None:
    """The same by the API, with its answers and refusals."""
    order = await api.order()
    _, scan = await api.put(order, passport, kind="loa")
    path = f"/v1/documents/{scan['id']}/actions"
    status, said, _ = await api.call("POST", f"{path}/correct", json={"kind": "passport"})
    assert (status, "second person" in said["detail"]) == (409, True)
    ask = {"act": "document.correct", "subject": f"{scan['id']}/passport", "region": "uk"}
    _, asked, _ = await api.call("POST", "/v1/approvals", json=ask | {"reason": "wrong-kind"})
    await api.call("POST", f"/v1/approvals/{asked['id']}/actions/approve", role="dpo")
    body = {"kind": "passport", "approval": asked["id"]}
    status, shown, _ = await api.call("POST", f"{path}/correct", json=body)
    assert (status, shown["kind"], shown["retention"]["state"]) == (200, "passport", "open")
    status, said, _ = await api.call("POST", f"{path}/correct", json={"kind": "no"})
    assert status == 422
    status, shown, _ = await api.call(
        "POST", f"/v1/orders/{order}/actions/correct", json={"numbers": [NEW], "type": "full"}
    )
    assert (status, shown["type"]) == (200, "full")


async def test_at_the_terminal(vault_process: VaultProcess) -> None:
    """`portvault correct`, `shred --approval` and `order correct` do the same."""
    vault = vault_process
    desk, dpo = await token_of(vault, "porting"), await token_of(vault, "dpo")
    create = ("order", "create", "--region", "uk", "--customer", "acme", *NUMBER)
    order = (await vault.json(*create, **desk))["id"]
    scan = await vault.json("put", str(SCAN), "--order", order, "--kind", "loa", **desk)
    status, _, says = await vault.run("correct", scan["id"], "--kind", "passport", **desk)
    assert (status != 0, one_line(says), "second person" in says) == (True, True, True)
    request = ("approval", "request", "--act", "document.mistake", "--subject", scan["id"])
    ask = (*request, "--region", "uk", "--reason", "sent-by-mistake")
    asked = await vault.json(*ask, **desk)
    await vault.json("approval", "approve", asked["id"], **dpo)
    shred_it = ("shred", scan["id"], "--reason", "sent-by-mistake", "--ground", "sent-by-mistake")
    gone = await vault.json(*shred_it, "--approval", asked["id"], **desk)
    assert (gone["custody"], gone["shred_ground"]) == ("shredded", "sent-by-mistake")
    corrected = await vault.json("order", "correct", order, "--number", NEW, **desk)
    assert corrected["numbers_masked"] == ["+442079460***"]
