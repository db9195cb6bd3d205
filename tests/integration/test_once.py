"""One Idempotency-Key is one request: the same again is known, and other content is refused."""

import asyncio
import base64
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import asyncpg
from yarl import URL

from tests.fixtures_server import OPERATOR, Api
from tests.fixtures_telefax import CALLEE, CALLER, Faxes, tiff
from tests.integration.test_fax_listener import listener, mail
from vault.actions.keys import seal
from vault.actions.once import KEPT, forget_claims
from vault.actions.shred import purge_faxes, purge_shredded, shred
from vault.config.settings import Config
from vault.context import Vault
from vault.domain.access import Principal
from vault.domain.documents import Ground
from vault.migrate import migrations_directory
from vault.sql import order_details as details_sql
from vault.web.problems import BASE

KEY = {"Idempotency-Key": "scan-1"}
DPO = Principal("token:dpo", "dpo", frozenset({"uk"}))
ONE, OTHER = (
    tiff({}, strip=bytes.fromhex("0010010000")),
    tiff({}, strip=bytes.fromhex("0010010001")),
)


def altered(data: bytes) -> bytes:
    """Return other content of the same length and type."""
    return data[:-20] + bytes([data[-20] ^ 1]) + data[-19:]


async def test_other_content_under_a_key_is_refused(
    api: Api, vault: Vault, passport: bytes
) -> None:
    """The same upload is known, after a seal too; other content, name, type or kind are not."""
    order, other_order = await api.order(), await api.order()
    named = KEY | {"Content-Disposition": 'attachment; filename="a.jpg"'}
    _, stored = await api.put(order, passport, **named)
    await seal(vault, OPERATOR, "uk", force=True)
    assert (await api.put(order, passport, **named))[1]["id"] == stored["id"]

    async def in_small_pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(passport), 1000):
            yield passport[start : start + 1000]

    assert (await api.put(order, in_small_pieces(), **named))[1]["id"] == stored["id"]
    refused = [
        await api.put(order, altered(passport), **named),
        await api.put(order, passport[:-1], **named),
        await api.put(order, passport, **KEY),
        await api.put(order, passport, **named, **{"Content-Type": "image/jpeg"}),
        await api.put(order, passport, "national_id", **named),
        await api.put(other_order, passport, **named),
    ]
    assert [status for status, _ in refused] == [422] * len(refused)
    assert await vault.pool.fetchval("select count(*) from document") == 1
    assert (await api.get(stored["id"]))[1] == passport


async def test_a_key_of_one_thing_is_no_key_of_another(
    api: Api, vault: Vault, passport: bytes
) -> None:
    """An order's, a document's and an approval's key are told apart, whichever came first."""
    fields = {"region": "uk", "customer": "acme", "numbers": ["+442079460123"]}
    asked = {
        "act": "hold.release",
        "subject": str(uuid.uuid4()),
        "region": "uk",
        "reason": "court-order",
    }
    _, order, _ = await api.call("POST", "/v1/orders", json=fields, headers=KEY)
    assert (await api.put(order["id"], passport, **KEY))[0] == 422
    key = {"Idempotency-Key": "scan-2"}
    assert (await api.put(order["id"], passport, **key))[0] == 201
    assert (await api.call("POST", "/v1/orders", json=fields, headers=key))[0] == 422
    for changed in ({"customer_reference": "x"}, {"losing_carrier": "BT"}, {"region": "sg"}):
        status, _, _ = await api.call("POST", "/v1/orders", json=fields | changed, headers=KEY)
        assert status in {403, 404, 422}, changed
    _, first, _ = await api.call("POST", "/v1/approvals", role="dpo", json=asked, headers=KEY)
    _, again, _ = await api.call("POST", "/v1/approvals", role="dpo", json=asked, headers=KEY)
    assert first["id"] == again["id"]
    other = asked | {"reason": "case-closed"}
    status, _, _ = await api.call("POST", "/v1/approvals", role="dpo", json=other, headers=KEY)
    assert status == 422


async def test_a_claim_goes_with_what_it_made(api: Api, vault: Vault, passport: bytes) -> None:
    """A shredded document leaves a key without a MAC, an order without details and a day none."""
    fields = {"region": "uk", "customer": "acme", "numbers": ["+442079460123"]}
    _, order, _ = await api.call("POST", "/v1/orders", json=fields, headers=KEY)
    documents = []
    for number in range(3):
        key = {"Idempotency-Key": f"document-{number}"}
        _, document = await api.put(order["id"], passport, **key)
        documents.append(uuid.UUID(document["id"]))
    await shred(vault, DPO, documents[0], "wrong-document", Ground.MISTAKE)
    rows = "select key, fingerprint is not null told from idempotency order by key"
    left = dict(map(tuple, await vault.pool.fetch(rows)))
    assert left == {"document-0": False, "document-1": True, "document-2": True, "scan-1": True}
    await vault.pool.execute(
        "update idempotency set created_at = created_at - $1::interval where key = 'document-1'",
        KEPT,
    )
    assert await forget_claims(vault, "uk") == 1
    assert await forget_claims(vault, "uk") == 0
    await shred(vault, DPO, documents[2], "wrong-document", Ground.MISTAKE)
    async with vault.pool.acquire() as conn:
        await details_sql.set_gone(conn, [uuid.UUID(order["id"])], vault.clock())
    left = dict(map(tuple, await vault.pool.fetch(rows)))
    assert left == {"document-0": False, "document-2": False}
    later = replace(vault, clock=lambda: vault.clock() + KEPT)
    assert await forget_claims(later, "uk") == 2


async def test_other_content_of_a_fax_under_a_key_is_refused(vault: Vault, faxes: Faxes) -> None:
    """While a fax is in custody its content counts; afterwards nothing is taken for it."""
    identity = await faxes.taken(ONE, headers=KEY)
    assert await faxes.taken(ONE, headers=KEY) == identity
    assert (await faxes.send(OTHER, headers=KEY))[0] == 422
    assert (await faxes.send(ONE, headers=KEY, to="+442079460124"))[0] == 422
    assert (await faxes.send(ONE, headers=KEY, commid="2"))[0] == 422
    await faxes.act(identity, "deliver")
    assert await vault.pool.fetchval("select fingerprint from fax") is None
    for data in (ONE, OTHER):
        assert (await faxes.send(data, headers=KEY))[0] == 409
    for refused in (
        await faxes.send(tiff({}, {}), headers=KEY),
        await faxes.send(ONE, headers=KEY, to="+442079461123"),
        await faxes.send(ONE, headers=KEY, direction="outbound"),
    ):
        assert (refused[0], refused[1]["type"]) == (422, f"{BASE}key-reused")
    assert await vault.pool.fetchval("select count(*) from fax") == 1
    later = replace(vault, clock=lambda: vault.clock() + KEPT)
    assert await forget_claims(later, "uk") == 1
    assert await faxes.taken(ONE, headers=KEY) != identity


async def test_after_its_end_no_fax_is_taken_for_another(vault: Vault, faxes: Faxes) -> None:
    """Of the same shape as one that has ended, a fax is refused with how that one ended."""
    ends: tuple[tuple[str, dict[str, Any], str], ...] = (
        ("deliver", {"result": "ok"}, "delivered"),
        ("fail", {"reason": "busy", "final": True}, "failed"),
    )
    for number, (action, fields, state) in enumerate(ends):
        key = {"Idempotency-Key": f"fax-{number}"}
        identity = await faxes.taken(ONE, headers=key)
        await faxes.act(identity, action, **fields)
        _, receipt = await faxes.show(identity)
        # Two at once, the same and another; none of them may pass.
        answers = await asyncio.gather(
            *(faxes.send(data, headers=key) for data in (OTHER, ONE, OTHER))
        )
        for status, body in answers:
            assert (status, body["type"]) == (409, f"{BASE}key-ended")
            assert (body["fax"], body["state"], body["result"]) == (
                identity,
                state,
                receipt["result"],
            )
            assert body["ended_at"] == receipt["ended_at"]
            assert identity in body["detail"]
            assert "another Idempotency-Key" in body["detail"]
        new = key | {"Idempotency-Key": f"other-{number}"}
        taken = await faxes.taken(OTHER, headers=new)
        assert (await faxes.content(taken))[1] == OTHER
        await faxes.act(taken, "deliver")
    # Nothing of what was refused is kept: no row, no key, no object.
    assert await vault.pool.fetchval("select count(*) from fax") == 4
    kept = "select count(*) from data_key where id not in (select id from porting_order)"
    assert await vault.pool.fetchval(kept) == 0
    await purge_faxes(vault, "uk")
    assert [item async for item in vault.stores["uk"].list("documents/")] == []


async def test_a_fax_that_expired_or_was_left_behind_is_told_apart(
    vault: Vault, faxes: Faxes
) -> None:
    """What a restore left behind was not taken care of, and the refusal does not say so."""
    identity = uuid.UUID(await faxes.taken(ONE, headers=KEY))
    await vault.pool.execute("delete from data_key where id = $1", identity)
    await vault.pool.execute("update fax set left_at = now() where id = $1", identity)
    status, body = await faxes.send(ONE, headers=KEY)
    assert (status, body["type"], body["state"]) == (409, f"{BASE}key-ended", "left-behind")
    assert "taken care of" not in body["detail"]


async def test_after_its_end_no_document_is_taken_for_another(
    api: Api, vault: Vault, passport: bytes
) -> None:
    """A key whose document was shredded brings nothing new for a day, after a seal too."""
    order, other_order = await api.order(), await api.order()
    _, stored = await api.put(order, passport, **KEY)
    identity = uuid.UUID(stored["id"])
    await shred(vault, DPO, identity, "wrong-document", Ground.MISTAKE)
    for _ in range(2):
        answers = await asyncio.gather(
            *(api.put(order, data, **KEY) for data in (passport, altered(passport), passport))
        )
        _, shown, _ = await api.call("GET", f"/v1/documents/{identity}")
        for status, body in answers:
            assert (status, body["type"]) == (409, f"{BASE}key-ended")
            assert (body["document"], body["state"]) == (str(identity), shown["custody"])
            assert body["ended_at"] == shown["beyond_use_since"]
            assert body["result"] == shown["shred_reason"] == "wrong-document"
            assert "another Idempotency-Key" in body["detail"]
        for refused in (
            await api.put(order, passport[:-1], **KEY),
            await api.put(other_order, passport, **KEY),
        ):
            assert (refused[0], refused[1]["type"]) == (422, f"{BASE}key-reused")
        await purge_shredded(vault, "uk")
        await seal(vault, OPERATOR, "uk", force=True)
    fields = {"region": "uk", "customer": "acme", "numbers": ["+442079460123"]}
    assert (await api.call("POST", "/v1/orders", json=fields, headers=KEY))[0] == 422
    assert await vault.pool.fetchval("select count(*) from document") == 1
    assert [item async for item in vault.stores["uk"].list("documents/")] == []
    assert (await api.put(order, passport, **{"Idempotency-Key": "scan-2"}))[0] == 201
    later = replace(vault, clock=lambda: vault.clock() + KEPT)
    await forget_claims(later, "uk")
    assert (await api.put(order, passport, **KEY))[0] == 201


async def test_what_is_cut_in_the_middle_is_told_of_nothing_that_ended(
    api: Api, vault: Vault, faxes: Faxes, passport: bytes
) -> None:
    """A body that ends early, or is not what its digest says, says that, and not how it ended."""
    order = await api.order()
    _, stored = await api.put(order, passport, **KEY)
    await shred(vault, DPO, uuid.UUID(stored["id"]), "wrong-document", Ground.MISTAKE)
    await faxes.act(await faxes.taken(ONE, headers=KEY), "deliver")
    wrong = {"Content-Digest": f"sha-256=:{base64.b64encode(bytes(32)).decode()}:"}
    for status, body in (
        await api.put(order, passport, **KEY, **wrong),
        await faxes.send(ONE, headers=KEY | wrong),
    ):
        assert (status, body["type"]) == (422, f"{BASE}digest-mismatch")
    said = f"direction=inbound&from=%2B{CALLER[1:]}&to=%2B{CALLEE[1:]}"
    for target, data, role in (
        (f"/v1/orders/{order}/documents?kind=passport", passport, "porting"),
        (f"/v1/faxes?{said}", ONE, "fax-gateway"),
    ):
        token = api.tokens[role]
        reader, writer = await asyncio.open_connection("127.0.0.1", URL(api.url).port)
        head = (
            f"POST {target} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
            f"Idempotency-Key: scan-1\r\nContent-Length: {len(data)}\r\n\r\n"
        )
        writer.write(head.encode() + data[: len(data) // 2])
        await asyncio.sleep(0.3)
        writer.write_eof()
        answer = await asyncio.wait_for(reader.read(), 10)
        assert b"key-ended" not in answer
        writer.close()
    # What was cut is recorded as such, soon after.
    cut = "select count(*) from access_record where phase = 'outcome' and result <> 'completed'"
    async with asyncio.timeout(10):
        while await vault.pool.fetchval(cut) < 4:
            await asyncio.sleep(0.05)
    assert await vault.pool.fetchval("select count(*) from document") == 1
    assert await vault.pool.fetchval("select count(*) from fax") == 1


async def test_a_mail_is_what_it_contains(config: Config) -> None:
    """Two contents of one length under one Message-ID are both kept; each again is known."""
    async with listener(config, fax_listen_same_name_max=2) as there:
        for data in (ONE, OTHER, ONE, OTHER):
            assert (await there.say(mail(data, subtype="tiff")))[0] == 250
        assert await there.count() == 2
        # To a number that looks alike when it is masked, too: that is one more than is taken.
        other = "+442079460124@fax.test"
        code, said = await there.say(mail(ONE, subtype="tiff"), to=other)
        assert (code, "too many" in said) == (550, True)
        assert await there.count() == 2
        elsewhere = "+442079461124@fax.test"
        assert (await there.say(mail(ONE, subtype="tiff"), to=elsewhere))[0] == 250
        assert await there.count() == 3


async def test_a_mail_is_what_it_contains_when_an_earlier_one_has_ended(config: Config) -> None:
    """A receipt that looks alike is not enough to take a mail for one that was delivered."""
    async with listener(config) as there:
        assert (await there.say(mail(ONE, subtype="tiff")))[0] == 250
        (first,) = await there.vault.pool.fetch("select id from fax")
        await there.faxes.act(first["id"], "deliver")
        assert (await there.say(mail(OTHER, subtype="tiff")))[0] == 250
        assert await there.count() == 2
    async with listener(config, fax_listen_same_name_max=1) as there:
        code, said = await there.say(mail(OTHER, subtype="tiff"))
        assert (code, "too many" in said) == (550, True)


async def test_plain_hashes_of_before_are_gone_after_migration(
    empty_database: str,
) -> None:
    """Claims, the listener's keys and the names of carriers' events do not survive as they were."""
    conn = await asyncpg.connect(empty_database)
    files = sorted(migrations_directory().glob("*.sql"))
    for path in files:
        if path.name < "0028":
            await conn.execute(path.read_text())
    order = uuid.uuid4()
    await conn.execute(
        "insert into porting_order values ($1, 'uk', 'acme', 'draft', '', now(), now())", order
    )
    for source in ("desk", "telnyx", "twilio", "bandwidth"):
        await conn.execute(
            "insert into order_event values ($1, 'digest', $2, 'draft', now(), now())",
            source,
            order,
        )
    await conn.execute("insert into idempotency values ('p', 'k', 'digest', $1, now())", order)
    for key in ("smtp-digest", "theirs"):
        await conn.execute(
            """
            insert into fax (id, region, direction, channel, state, custody, media_type,
                size_bytes, pages, stream_header, callee_masked, facts, principal,
                idempotency_key, fingerprint, next_attempt_at, received_at)
            values (gen_random_uuid(), 'uk', 'inbound', 'mail', 'received', 'stored',
                'image/tiff', 1, 1, '', '', '{}', 'p', $1, 'digest', now(), now())
            """,
            key,
        )
    (path,) = (path for path in files if path.name.startswith("0028"))
    await conn.execute(path.read_text())
    assert await conn.fetchval("select count(*) from idempotency") == 0
    faxes = await conn.fetch("select idempotency_key, fingerprint from fax order by 1")
    assert [tuple(row) for row in faxes] == [("theirs", None), (None, None)]
    kept = await conn.fetch("select source from order_event where event = 'digest'")
    assert {row["source"] for row in kept} == {"desk", "telnyx"}
    await conn.close()
