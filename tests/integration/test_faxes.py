"""Faxes over HTTP: taken, fetched, brought to their end, and what is left of them."""

import asyncio
import uuid
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures_server import OPERATOR, Api, in_pieces, serving
from tests.fixtures_telefax import CALLER, Faxes, altered_pdf, loop, tiff
from tests.retention_house import after
from vault.actions.fax_delivery import expire_faxes, forget_receipts
from vault.actions.keys import mark_sealed, seal
from vault.actions.shred import purge_faxes
from vault.app import open_vault
from vault.config.settings import Config
from vault.context import Vault
from vault.process.watches import IntakeMemory

CASES = Path(__file__).parents[1] / "cases"


async def test_a_fax_goes_in_and_out_and_leaves_a_receipt(
    vault: Vault, faxes: Faxes, fax: bytes
) -> None:
    """Taken, fetched whole, delivered, shredded, purged, sealed: what stays has nothing of it."""
    status, taken = await faxes.send(fax, commid="000000012", seconds="42", station="020 7946 0999")
    assert (status, taken["state"], taken["pages"]) == (201, "received", 2)
    assert (taken["from_masked"], taken["to_masked"]) == ("+442079460***", "+442079460***")
    assert taken["facts"] == {"commid": "000000012", "seconds": "42", "station": "02079460***"}
    status, body, response = await faxes.content(taken["id"])
    assert (status, body) == (200, fax)
    assert response.headers["Fax-To"] == "+442079460123"
    assert response.headers["Fax-From"] == CALLER
    assert (await faxes.show(taken["id"]))[1]["state"] == "delivering"
    status, receipt = await faxes.act(taken["id"], "deliver", result="MCF")
    assert (status, receipt["state"], receipt["custody"]) == (200, "delivered", "shredded")
    assert receipt["beyond_use_since"]
    status, gone, _ = await faxes.content(taken["id"])
    assert (status, "the fax was delivered" in str(gone)) == (410, True)
    assert await purge_faxes(vault, "uk") == 1
    assert [item.name async for item in vault.stores["uk"].list("documents/")] == []
    assert await seal(vault, OPERATOR, "uk") is not None
    await asyncio.sleep(vault.config.key_cache_seconds)
    assert await mark_sealed(vault, "uk") == 1
    _, receipt = await faxes.show(taken["id"])
    assert receipt["custody"] == "sealed"
    assert receipt["irrecoverable_since"]
    assert (receipt["result"], receipt["pages"], receipt["attempts"]) == ("MCF", 2, 1)
    (row,) = await vault.pool.fetch("select * from fax")
    assert row["metadata"] is None
    assert "0999" not in str(dict(row))


async def test_of_a_fax_that_was_altered_no_byte_goes_out(
    config: Config, faxes: Faxes, fax: bytes
) -> None:
    """A small fax is opened whole before its status is sent, so the reader gets a problem."""
    identity = await faxes.taken(fax)
    (stored,) = config.home.rglob(f"documents/{identity}")
    sealed = stored.read_bytes()
    stored.write_bytes(sealed[:-1] + bytes([sealed[-1] ^ 1]))
    assert (await faxes.content(identity))[0] == 503


async def test_each_end_may_be_asked_for_twice(faxes: Faxes, fax: bytes) -> None:
    """A gateway that asks again gets the same receipt, and another end is refused."""
    identity = await faxes.taken(fax)
    first = await faxes.act(identity, "deliver")
    assert first[0] == 200
    assert await faxes.act(identity, "deliver") == first
    assert (await faxes.act(identity, "fail", reason="busy", final=True))[0] == 409
    assert (await faxes.act(identity, "fail", reason="busy"))[0] == 409
    other = await faxes.taken(fax)
    first = await faxes.act(other, "fail", reason="busy", final=True)
    assert first[1]["state"] == "failed"
    assert await faxes.act(other, "fail", reason="busy", final=True) == first
    assert (await faxes.act(other, "deliver"))[0] == 409


async def test_many_at_once_ask_for_the_same_end(faxes: Faxes, fax: bytes) -> None:
    """Of twenty that deliver one fax at the same moment all are told the same."""
    identity = await faxes.taken(fax)
    answers = await asyncio.gather(*(faxes.act(identity, "deliver") for _ in range(20)))
    assert {status for status, _ in answers} == {200}
    assert len({str(body) for _, body in answers}) == 1


async def test_the_same_fax_sent_twice_is_one(api: Api, faxes: Faxes, fax: bytes) -> None:
    """With one Idempotency-Key there is one fax, at once or later, and no other after its end."""
    key = {"Idempotency-Key": "host:fax00001.tif:000000012"}
    answers = await asyncio.gather(*(faxes.send(fax, headers=key) for _ in range(5)))
    assert {status for status, _ in answers} == {201}
    assert len({body["id"] for _, body in answers}) == 1
    identity = answers[0][1]["id"]
    await faxes.act(identity, "deliver")
    status, body = await faxes.send(fax, headers=key)
    assert (status, body["fax"], body["state"]) == (409, identity, "delivered")
    assert (await faxes.send(fax[:-1], headers=key))[0] == 422
    assert (await faxes.send(fax, headers={"Idempotency-Key": "a b"}))[0] == 422
    _, page, _ = await api.call("GET", "/v1/faxes", role="fax-gateway")
    assert [one["id"] for one in page["data"]] == [identity]


async def test_what_was_sent_twice_lies_in_the_store_once(
    vault: Vault, faxes: Faxes, fax: bytes
) -> None:
    """The object of a repeated fax is gone when its answer comes."""
    key = {"Idempotency-Key": "twice"}
    for _ in range(3):
        await faxes.taken(fax, headers=key)
    assert len([item async for item in vault.stores["uk"].list("documents/")]) == 1


async def test_a_failed_delivery_is_tried_again_later_each_time(
    faxes: Faxes, fax: bytes, vault: Vault
) -> None:
    """After each failure the next attempt is due twice as late; the content stays."""
    identity = await faxes.taken(fax)
    waits = []
    for _ in range(3):
        assert (await faxes.content(identity))[0] == 200
        _, body = await faxes.act(identity, "fail", reason="busy 02079460999")
        assert (body["state"], body["result"]) == ("queued", "busy 02079460***")
        due_at = await vault.pool.fetchval("select next_attempt_at from fax")
        waits.append((due_at - vault.clock()).total_seconds())
    assert [round(wait / 60) for wait in waits] == [1, 2, 4]


async def test_a_receipt_of_a_delivery_says_nothing_of_an_attempt_before_it(
    faxes: Faxes, fax: bytes, vault: Vault
) -> None:
    """It was damaged and was brought back, or its line was busy: that is not how it ended."""
    for said in ("damaged", "busy"):
        identity = await faxes.taken(fax)
        stored = vault.config.home / "objects" / "uk" / "documents" / identity
        sound = stored.read_bytes()
        if said == "damaged":
            stored.write_bytes(sound[:-1])
            assert (await faxes.content(identity))[0] == 503
            stored.write_bytes(sound)
        else:
            await faxes.act(identity, "fail", reason=said)
        assert said in (await faxes.show(identity))[1]["result"]
        assert (await faxes.content(identity))[0] == 200
        for _ in range(2):
            status, receipt = await faxes.act(identity, "deliver")
            assert (status, receipt["state"]) == (200, "delivered")
            assert receipt.get("result") is None


async def test_no_wait_is_longer_than_the_longest(vault: Vault, fax: bytes) -> None:
    """Waits double up to the limit and stay there."""
    short = replace(vault, config=replace(vault.config, fax_retry_seconds_max=120.0))
    waits = []
    async with serving(short) as api:
        faxes = Faxes(api)
        identity = await faxes.taken(fax)
        for _ in range(4):
            await faxes.content(identity)
            await faxes.act(identity, "fail", reason="busy")
            due_at = await vault.pool.fetchval("select next_attempt_at from fax")
            waits.append((due_at - vault.clock()).total_seconds())
    assert [round(wait / 60) for wait in waits] == [1, 2, 2, 2]


async def test_a_gateway_fetches_so_many_in_an_hour(config: Config, fax: bytes) -> None:
    """As many as the limit says are fetched; the next one waits, and is lost to nobody."""
    own = replace(config, faxes_per_hour_max=2)
    async with open_vault(own, dsn=own.database) as vault, serving(vault) as api:
        faxes = Faxes(api)
        taken = [await faxes.taken(fax) for _ in range(3)]
        assert [(await faxes.content(one))[0] for one in taken] == [200, 200, 429]
        assert (await faxes.show(taken[2]))[1]["state"] == "received"


async def test_nobody_is_warned_of_a_first_fax(vault: Vault, faxes: Faxes, fax: bytes) -> None:
    """A gateway that fetches one of thousands that it may is near no limit."""
    assert (await faxes.content(await faxes.taken(fax)))[0] == 200
    assert vault.meter.signals["near"] == 0


async def test_nothing_outlasts_the_hard_limit(vault: Vault, faxes: Faxes, fax: bytes) -> None:
    """Whatever state a fax is in, it is shredded a day after it came, and stays so."""
    waiting, tried = await faxes.taken(fax), await faxes.taken(fax)
    await faxes.content(tried)
    later = after(vault, timedelta(hours=23, minutes=59))
    assert await expire_faxes(later, "uk") == 0
    later = after(vault, timedelta(hours=24, seconds=1))
    assert await expire_faxes(later, "uk") == 2
    assert await expire_faxes(later, "uk") == 0
    for identity in (waiting, tried):
        _, receipt = await faxes.show(identity)
        assert (receipt["state"], receipt["custody"]) == ("expired", "shredded")
        status, gone, _ = await faxes.content(identity)
        assert (status, "not delivered in its time" in str(gone)) == (410, True)
        assert (await faxes.act(identity, "deliver"))[0] == 409
    assert await vault.pool.fetchval("select count(*) from data_key") == 0


async def test_receipts_go_when_their_time_is_over(vault: Vault, faxes: Faxes, fax: bytes) -> None:
    """A receipt of a sealed and purged fax stays as long as a call detail record, no longer."""
    await faxes.act(await faxes.taken(fax), "deliver")
    await purge_faxes(vault, "uk")
    await seal(vault, OPERATOR, "uk")
    await asyncio.sleep(vault.config.key_cache_seconds)
    await mark_sealed(vault, "uk")
    days = vault.config.fax_receipt_days_max
    for extra, count in ((-1, 0), (1, 1)):
        later = after(vault, timedelta(days=days + extra))
        assert await forget_receipts(later, "uk") == count


BAD_NUMBERS = (
    "02079460123",
    "+44",
    "+44207946012345678",
    "+44 20 7946 0123",
    "+442079460123;rm -rf /",
    "$(reboot)",
    "+442079460123\r\nBcc: someone@example.com",
    "+442079460123\n",
    "+44207946٠123",
    "'; drop table fax; --",
)


async def test_a_number_that_is_none_is_refused_and_not_repeated(
    faxes: Faxes, fax: bytes, vault: Vault
) -> None:
    """Shell characters, line ends and whatever else is no E.164 stop a fax at the door."""
    for number in BAD_NUMBERS:
        for name in ("to", "from"):
            status, problem = await faxes.send(fax, **{name: number})
            expected = f"{name} must be an E.164 telephone number, as +442079460123"
            assert (status, problem["detail"]) == (422, expected)
    assert await vault.pool.fetchval("select count(*) from fax") == 0


async def test_a_caller_who_withholds_the_number_has_none(faxes: Faxes, fax: bytes) -> None:
    """Nothing of an anonymous caller is kept, and the gateway is told so."""
    for caller in ("anonymous", "PRIVATE", "P", "Withheld", ""):
        status, body = await faxes.send(fax, **{"from": caller})
        assert (status, body["from_masked"]) == (201, None)
        _, _, response = await faxes.content(body["id"])
        assert response.headers["Fax-From"] == "anonymous"


async def test_facts_that_are_none_are_refused(faxes: Faxes, fax: bytes) -> None:
    """What a gateway tells of a call is only what calls have."""
    for facts in (
        {"commid": "a;b"},
        {"device": "tty\r\nS0"},
        {"rate": "fast"},
        {"message": "x" * 121},
        {"station": "täst"},
        {"other": "1"},
    ):
        assert (await faxes.send(fax, **facts))[0] == 422


async def test_the_recipients_region_decides(vault: Vault, faxes: Faxes, fax: bytes) -> None:
    """A fax lies where its recipient is; another region is refused, unless the number has none."""
    status, body = await faxes.send(fax)
    assert (status, body["region"]) == (201, "uk")
    status, problem = await faxes.send(fax, region="sg")
    assert status == 422
    assert "that is uk" in problem["detail"]
    assert (await faxes.send(fax, to="+6561234567"))[0] == 403, "not this gateway's region"
    assert (await faxes.send(fax, to="+85221234567"))[0] == 422, "not served here"
    status, body = await faxes.send(fax, to="+33123456789")
    assert (status, body["region"]) == (201, "uk"), "the only region of this gateway"
    assert (await faxes.send(fax, to="+33123456789", region="sg"))[0] == 403
    status, body = await faxes.send(fax, to="+33123456789", region="uk")
    assert (status, body["region"]) == (201, "uk")
    names = [item.name async for item in vault.stores["uk"].list("documents/")]
    assert f"documents/{body['id']}" in names


NO_FAX = (
    (b"", 422, "empty"),
    (b"hello", 415, "a fax must be one of"),
    (loop(tiff({}, {})), 422, "loop"),
    (tiff(*[{}] * 501), 422, "more than 500 pages"),
    (tiff({256: (4, 100_000)}), 422, "dots"),
    (tiff({266: (3, 2)}), 422, "fill order"),
    (b"II*\x00\0\0\0\0", 422, "no pages"),
    (tiff({})[:-20], 422, "cut off"),
)


async def test_what_is_no_fax_is_refused_and_not_stored(vault: Vault, faxes: Faxes) -> None:
    """A malformed fax is refused with its reason, and nothing of it lies anywhere."""
    for data, expected, reason in NO_FAX:
        status, problem = await faxes.send(data)
        assert status == expected, problem
        assert reason in problem["detail"]
    assert [item async for item in vault.stores["uk"].list("documents/")] == []
    assert await vault.pool.fetchval("select count(*) from data_key") == 0


async def test_pages_at_the_limit_are_taken_and_one_more_is_not(faxes: Faxes) -> None:
    """A fax of as many pages as are allowed is a fax; with one more it is none."""
    status, body = await faxes.send(tiff(*[{}] * 500))
    assert (status, body["pages"]) == (201, 500)
    status, problem = await faxes.send(tiff(*[{}] * 501))
    assert (status, "500" in problem["detail"]) == (422, True)


NO_PLAIN_PDF = (
    ("script", "scripts"),
    ("launch", "scripts"),
    ("attachment", "files in it"),
    ("encrypted", "encrypted"),
    ("locked", "encrypted"),
    ("no pages", "0 pages"),
    ("absurd", "absurd"),
)


async def test_a_pdf_with_more_than_pages_is_refused(faxes: Faxes, authorisation: bytes) -> None:
    """Scripts, launches, attachments, encryption and absurd pages are no fax."""
    for how, reason in NO_PLAIN_PDF:
        status, problem = await faxes.send(altered_pdf(authorisation, how))
        assert status == 422
        assert reason in problem["detail"]


async def test_a_plain_pdf_is_taken(faxes: Faxes, authorisation: bytes) -> None:
    """A PDF that is nothing but pages comes out as it went in; a cut one does not go in."""
    identity = await faxes.taken(authorisation, direction="outbound")
    assert (await faxes.content(identity))[1] == authorisation
    status, problem = await faxes.send(authorisation[:-400])
    assert status == 422
    assert problem["detail"].startswith("the PDF is malformed: it does not end as a PDF does")


async def test_size_at_the_limit_passes_and_one_more_does_not(
    vault: Vault, api: Api, fax: bytes
) -> None:
    """A fax may have as many bytes as the limit says, declared or not, and none more."""
    small = replace(vault, config=replace(vault.config, fax_bytes_max=len(fax)))

    async with serving(small) as client:
        faxes = Faxes(client)
        assert (await faxes.send(fax))[0] == 201
        assert (await faxes.send(fax + b"\0"))[0] == 413
        assert (await faxes.send(in_pieces(fax + b"\0")))[0] == 413
        assert (await faxes.send(in_pieces(fax)))[0] == 201


async def test_faxes_that_would_not_fit_in_memory_are_told_to_come_again(
    vault: Vault, fax: bytes
) -> None:
    """What is being received shares a bound of memory; past it the answer is 503."""
    async with serving(replace(vault, memory=IntakeMemory(len(fax)))) as client:
        assert (await Faxes(client).send(fax))[0] == 201
    async with serving(replace(vault, memory=IntakeMemory(len(fax) - 1))) as client:
        assert (await Faxes(client).send(fax))[0] == 503


async def test_every_body_is_in_one_account(
    vault: Vault, api: Api, fax: bytes, passport: bytes
) -> None:
    """Whatever route a body comes or goes by, without room it is told to come again, at once."""
    order = await api.order()
    full = IntakeMemory(1 << 20)
    async with serving(replace(vault, memory=full)) as client:
        upload = f"/v1/orders/{order}/documents?kind=passport"
        export = "/v1/access-records/export?region=uk&format=jsonl"
        asked: list[tuple[str, str, dict[str, Any]]] = [
            ("POST", "/v1/faxes?direction=inbound&to=%2B442079460123", {"data": fax}),
            ("POST", upload, {"data": passport}),
            ("POST", upload, {"data": in_pieces(passport)}),
            ("POST", "/v1/orders", {"json": {"region": "uk"}}),
            ("POST", "/v1/hooks/telnyx", {"data": b"{}"}),
            ("GET", export, {}),
        ]
        roles = ("fax-gateway", "porting", "porting", "porting", "porting", "compliance")
        with full.share(1 << 20):
            for (method, path, options), role in zip(asked, roles, strict=True):
                status, problem, _ = await client.call(method, path, role=role, **options)
                assert (path, status) == (path, 503)
                assert "try again" in problem["detail"]
        assert full.taken_bytes == 0
        status, _, _ = await client.call("POST", upload, data=passport)
        assert status == 201
        assert full.taken_bytes == 0


@pytest.mark.parametrize(
    "case, status, said",
    [
        ("s-ok.pdf", 201, ""),
        ("s-startxref+1.pdf", 201, ""),
        ("s-startxref+9.pdf", 201, ""),
        ("front-crlf.pdf", 201, ""),
        ("page-ok.tif", 201, ""),
        ("float-resolution.tif", 201, ""),
        ("scan-600dpi.tif", 422, "4960 by 400 dots; a fax is at most 4864 by 32768"),
    ],
)
async def test_what_viewers_open_is_a_fax(faxes: Faxes, case: str, status: int, said: str) -> None:
    """Files from the field are taken as they are, or refused by a limit that is named."""
    data = (CASES / case).read_bytes()
    answered, body = await faxes.send(data, headers={"Content-Type": "application/octet-stream"})
    assert answered == status
    assert said in body.get("detail", "")
    if status == 201:
        assert (await faxes.content(body["id"]))[1] == data


async def test_a_scanner_may_say_image_tif(faxes: Faxes, fax: bytes) -> None:
    """Another name of the same type is no contradiction; that of another type is one."""
    assert (await faxes.send(fax, headers={"Content-Type": "image/tif"}))[0] == 201
    assert (await faxes.send(fax, headers={"Content-Type": "application/pdf"}))[0] == 415


async def test_only_gateways_touch_faxes(api: Api, faxes: Faxes, fax: bytes) -> None:
    """Compliance sees receipts and never content; the porting team sees nothing."""
    identity = await faxes.taken(fax)
    for role in ("compliance", "dpo"):
        assert (await faxes.show(identity, role))[0] == 200
        assert (await faxes.content(identity, role))[0] == 403
    for role in ("porting", "admin"):
        assert (await faxes.show(identity, role))[0] == 403
        assert (await faxes.content(identity, role))[0] == 403
        assert (await faxes.send(fax, role=role))[0] == 403
    status, _, _ = await api.call(
        "GET", f"/v1/documents/{identity}/content", headers={"Access-Purpose": "verify-identity"}
    )
    assert status == 404
    assert (await faxes.show(str(uuid.uuid4())))[0] == 404
    path = f"/v1/faxes/{identity}/content"
    headers = {"Access-Purpose": "verify-identity"}
    assert (await api.call("GET", path, role="fax-gateway", headers=headers))[0] == 403


async def test_faxes_are_listed_by_what_they_wait_for(api: Api, faxes: Faxes, fax: bytes) -> None:
    """A gateway finds the outbound faxes that wait, page after page."""
    outbound = [await faxes.taken(fax, direction="outbound") for _ in range(3)]
    await faxes.taken(fax)
    await faxes.act(outbound[0], "deliver")
    path = "/v1/faxes?direction=outbound&state=received&limit=1"
    found, cursor = [], ""
    while True:
        _, page, _ = await api.call("GET", path + cursor, role="fax-gateway")
        found += [one["id"] for one in page["data"]]
        if not page["next_cursor"]:
            break
        cursor = "&cursor=" + page["next_cursor"]
    assert found == outbound[:0:-1]
    assert (await api.call("GET", "/v1/faxes?stat=received", role="fax-gateway"))[0] == 422
    assert (await api.call("GET", "/v1/faxes?state=lost", role="fax-gateway"))[0] == 422


async def test_faxes_share_scopes_and_leave_none(vault: Vault, faxes: Faxes, fax: bytes) -> None:
    """A burst lies in one scope; after it was delivered and sealed the tree is as before."""
    before = await vault.pool.fetchrow(
        "select count(*) nodes, sum(bit_count(used::bit(64))) used from key_node"
    )
    identities = await asyncio.gather(*(faxes.taken(fax) for _ in range(40)))
    assert await vault.pool.fetchval("select count(*) from key_scope") == 1
    assert await vault.pool.fetchval("select count(*) from data_key") == 40
    await seal(vault, OPERATOR, "uk")
    assert (await faxes.content(identities[0]))[1] == fax
    await faxes.taken(fax)
    answers = await asyncio.gather(*(faxes.act(one, "deliver") for one in identities))
    assert {status for status, _ in answers} == {200}
    await seal(vault, OPERATOR, "uk")
    assert await vault.pool.fetchval("select count(*) from data_key") == 1
    for one in await vault.pool.fetch("select id from fax where custody = 'stored'"):
        await faxes.act(str(one["id"]), "deliver")
    await seal(vault, OPERATOR, "uk")
    assert await vault.pool.fetchval("select count(*) from key_scope") == 0
    assert before == await vault.pool.fetchrow(
        "select count(*) nodes, sum(bit_count(used::bit(64))) used from key_node"
    )
    # The process still fills a scope that is no more, and finds out.
    assert (await faxes.content(await faxes.taken(fax)))[1] == fax


async def test_a_full_scope_is_followed_by_another(vault: Vault, fax: bytes) -> None:
    """A scope takes as many faxes as the limit says, and then the next one begins."""
    small = replace(vault, config=replace(vault.config, fax_scope_faxes_max=3))
    async with serving(small) as client:
        for _ in range(7):
            await Faxes(client).taken(fax)
    counts = await vault.pool.fetch("select count(*) from data_key group by scope order by 1")
    assert [row["count"] for row in counts] == [1, 3, 3]


async def test_a_scope_is_filled_for_so_long(api: Api, vault: Vault, fax: bytes) -> None:
    """A scope takes faxes up to its time, and past it the next one begins."""
    faxes, seconds = Faxes(api), vault.config.fax_scope_seconds_max
    scopes = list[int]()
    for passed in (0.0, seconds - 10, 10.1):
        if passed:
            vault.fax_desk.scopes["uk"].opened_at -= passed
        await faxes.taken(fax)
        scopes.append(await vault.pool.fetchval("select count(distinct scope) from data_key"))
    assert scopes == [1, 1, 2]


async def test_an_attempt_may_ask_to_be_the_only_one(faxes: Faxes, fax: bytes) -> None:
    """Who asks to be alone is refused while another delivers, and let in when that has failed."""
    identity = await faxes.taken(fax, direction="outbound")

    async def fetch(alone: str) -> tuple[int, Any]:
        path = f"/v1/faxes/{identity}/content?alone={alone}"
        status, body, _ = await faxes.api.call("GET", path, role="fax-gateway")
        return status, body

    together = await asyncio.gather(*(fetch("true") for _ in range(6)))
    assert sorted(status for status, _ in together) == [200, *[409] * 5]
    status, problem = await fetch("true")
    assert (status, "under way" in problem["detail"]) == (409, True)
    assert [(await fetch(alone))[0] for alone in ("false", "maybe")] == [200, 422]
    await faxes.act(identity, "fail", reason="busy")
    assert (await fetch("true"))[0] == 200
    await faxes.act(identity, "deliver")
    assert (await fetch("true"))[0] == 410
