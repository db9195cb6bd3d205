"""The API over real HTTP: what is accepted, what is refused, and that it says why."""

import asyncio
import hashlib
from base64 import b64encode
from pathlib import Path

import pytest

from tests.fixtures_server import Api, in_pieces
from vault.actions.log_publish import sequence_log
from vault.context import Vault

CASES = Path(__file__).parents[1] / "cases"


def digest(data: bytes) -> str:
    """Return the Content-Digest of the bytes."""
    return f"sha-256=:{b64encode(hashlib.sha256(data).digest()).decode()}:"


async def test_a_scan_comes_back_as_it_was(api: Api, passport: bytes) -> None:
    """An uploaded document is read back byte for byte, with its name, by who says why."""
    order = await api.order()
    status, document = await api.put(
        order,
        passport,
        **{
            "Content-Disposition": "attachment; filename*=UTF-8''J%C3%BCrgen.jpg",
            "Content-Digest": digest(passport),
        },
    )
    assert (status, document["custody"]) == (201, "stored")
    assert document["media_type"] == "image/jpeg"
    assert document["size_bytes"] == len(passport)
    assert await api.get(document["id"]) == (200, passport)
    _, shown, _ = await api.call("GET", f"/v1/documents/{document['id']}")
    assert shown["filename"] == "Jürgen.jpg"
    assert shown["retention"]["state"] == "open"
    assert (shown["holds"], shown["restriction"]) == ([], None)


async def test_a_file_is_called_as_its_sender_calls_it(api: Api, passport: bytes) -> None:
    """The better one of two names is kept (RFC 6266), spaces of any width are, too."""
    for said, name in [
        ("attachment; filename*=UTF-8''at%203.45%E2%80%AFPM.jpg", "at 3.45\u202fPM.jpg"),
        ("attachment; filename*=UTF-8''passport%C2%A0front.jpg", "passport\u00a0front.jpg"),
        ("attachment; filename=\"__.jpg\"; filename*=UTF-8''%E6%97%85%E5%88%B8.jpg", "旅券.jpg"),
        ("attachment; filename*=utf-8'en'%E6%97%85.jpg; filename=__.jpg", "旅.jpg"),
        ("attachment; filename=\"a.jpg\"; filename*=iso-8859-1''Pa%F1o.jpg", "Paño.jpg"),
        ("attachment; filename=\"a.jpg\"; filename*=UTF-8''%FF.jpg", "a.jpg"),
        ("attachment; filename=\"a.jpg\"; filename*=UTF-7''b.jpg", "a.jpg"),
        ('attachment; filename="a\\"b; filename*=x.jpg"', 'a"b; filename*=x.jpg'),
        ("filename=scan of passport.jpg", "scan of passport.jpg"),
        ("attachment; filename=scan.jfif", "scan.jfif"),
        ('attachment; filename="Passport J.Smith"', "Passport J.Smith"),
        ("attachment", None),
    ]:
        status, document = await api.put(
            await api.order(), passport, **{"Content-Disposition": said}
        )
        assert (status, document.get("filename")) == (201, name)


async def test_a_name_with_what_is_not_printed_is_refused(api: Api, passport: bytes) -> None:
    """Line ends, controls and what turns the direction of writing round are no part of a name."""
    for name in ["a%0Ab.jpg", "a%00.jpg", "a%E2%80%AEgpj.exe.jpg", "%E2%80%A8.jpg"]:
        said = {"Content-Disposition": f"attachment; filename*=UTF-8''{name}"}
        assert (await api.put(await api.order(), passport, **said))[0] == 422


async def test_a_pdf_with_something_before_it_is_a_pdf(api: Api) -> None:
    """What viewers open is taken as what they call it, and comes back as it was."""
    for case in ["front-bom.pdf", "front-crlf.pdf", "front-text.pdf"]:
        data = (CASES / case).read_bytes()
        headers = {"Content-Type": "application/pdf"}
        status, document = await api.put(await api.order(), data, "loa", **headers)
        assert (status, document["media_type"]) == (201, "application/pdf")


async def test_an_upload_of_unknown_length_is_stored(api: Api, passport: bytes) -> None:
    """A chunked upload without Content-Length is taken as well."""

    async def body():
        for start in range(0, len(passport), 10_000):
            yield passport[start : start + 10_000]

    order = await api.order()
    status, document = await api.put(order, body())
    assert status == 201
    assert await api.get(document["id"]) == (200, passport)


async def test_a_read_without_a_purpose_is_refused_and_recorded(
    api: Api, vault: Vault, passport: bytes
) -> None:
    """No purpose, no bytes; and compliance sees that somebody tried."""
    _, document = await api.put(await api.order(), passport)
    status, problem = await api.get(document["id"], purpose=None)
    assert (status, problem["status"]) == (422, 422)
    await sequence_log(vault, "uk")
    _, page, _ = await api.call(
        "GET", f"/v1/access-records?region=uk&document={document['id']}", role="compliance"
    )
    assert [record["reason"] for record in page["data"] if record.get("decision") == "deny"] == [
        "purpose-missing"
    ]


async def test_other_roles_never_read_content(api: Api, passport: bytes) -> None:
    """Only the porting team reads what the porting team keeps."""
    for role in ["compliance", "dpo", "admin", "fax-gateway"]:
        _, document = await api.put(await api.order(), passport)
        status, _ = await api.get(document["id"], role=role)
        assert status == 403


async def test_another_region_does_not_know_of_it(api: Api, passport: bytes) -> None:
    """What lies in a region that is not theirs looks to a principal like what does not exist."""
    order = await api.order()
    _, document = await api.put(order, passport)
    unknown = "00000000-0000-4000-8000-000000000000"
    for path in (f"/v1/orders/{order}", f"/v1/documents/{document['id']}"):
        known_answer = await api.call("GET", path, role="porting-sg")
        unknown_path = path.rsplit("/", 1)[0] + "/" + unknown
        unknown_answer = await api.call("GET", unknown_path, role="porting-sg")
        assert known_answer[:2] == unknown_answer[:2]
        assert known_answer[0] == 404


async def test_who_is_not_known_is_refused(api: Api) -> None:
    """Without a living token nothing is said."""
    for headers, status in [
        ({}, 401),
        ({"Authorization": "Bearer pv_wrong"}, 401),
        ({"Authorization": "Basic cHY6cHY="}, 401),
        ({"Authorization": "Bearer " + "pv_" + "x" * 5000}, 401),
    ]:
        async with api.session.get(api.url + "/v1/orders", headers=headers) as response:
            assert response.status == status
            assert response.content_type == "application/problem+json"


async def test_a_wrong_type_for_its_name_is_refused(api: Api, authorisation: bytes) -> None:
    """A PDF that says it is a JPEG is not taken."""
    order = await api.order()
    for headers in (
        {"Content-Type": "image/jpeg"},
        {"Content-Disposition": 'attachment; filename="scan.jpg"'},
    ):
        status, problem = await api.put(order, authorisation, kind="loa", **headers)
        assert (status, problem["title"]) == (415, "Type not accepted")


@pytest.mark.parametrize(
    "sent", ["application/x-www-form-urlencoded", "image/tiff", "text/plain; charset=x"]
)
async def test_a_wrong_type_is_told_with_what_to_send(api: Api, passport: bytes, sent: str) -> None:
    """The refusal names what was sent, what the file is, and what the vault looks at by itself."""
    status, problem = await api.put(await api.order(), passport, **{"Content-Type": sent})
    assert status == 415
    for word in (sent.partition(";")[0], "image/jpeg", "application/octet-stream"):
        assert word in problem["detail"]


async def test_an_address_or_method_that_is_none_is_told_what_to_do(api: Api) -> None:
    """404 of an unknown address and 405 say where the addresses stand; 405 what may be sent."""
    status, problem, response = await api.call("GET", "/v1/nothing")
    assert (status, "Allow" in response.headers) == (404, False)
    assert "/openapi.json" in problem["detail"]
    for method, path, allowed in (
        ("DELETE", "/v1/orders", "GET, POST"),
        ("PUT", "/openapi.json", "GET"),
    ):
        status, problem, response = await api.call(method, path)
        assert (status, response.headers["Allow"]) == (405, allowed)
        assert allowed in problem["detail"]
        assert "/openapi.json" in problem["detail"]


async def test_a_scan_that_is_too_large_is_told_what_to_do(api: Api, vault: Vault) -> None:
    """The refusal names the limit and how to come below it."""
    size_max = vault.config.document_bytes_max
    headers = {"Content-Length": str(size_max + 1), "Expect": "100-continue"}
    order = await api.order()
    path = f"/v1/orders/{order}/documents?kind=passport"
    status, problem, _ = await api.call("POST", path, headers=headers)
    assert status == 413
    assert str(size_max) in problem["detail"]
    assert "300 dpi" in problem["detail"]


async def test_a_type_the_kind_does_not_allow_is_refused_by_name(api: Api) -> None:
    """The refusal names what the file is and what it may be."""
    status, problem = await api.put(await api.order(), b"PK\x03\x04" + bytes(100))
    assert status == 415
    assert "application/zip" in problem["detail"]
    assert "image/jpeg" in problem["detail"]


async def test_an_empty_file_is_refused(api: Api) -> None:
    """Nothing is not a document."""
    status, problem = await api.put(await api.order(), b"")
    assert (status, problem["detail"]) == (422, "the document is empty")


async def test_a_digest_that_does_not_match_is_refused(
    api: Api, vault: Vault, passport: bytes
) -> None:
    """A body that is not what its Content-Digest says leaves nothing behind."""
    order = await api.order()
    status, _ = await api.put(order, passport, **{"Content-Digest": digest(b"another")})
    assert status == 422
    assert [item async for item in vault.stores["uk"].list("documents/")] == []
    assert await vault.pool.fetchval("select count(*) from document") == 0


async def test_unknown_orders_kinds_and_statuses_are_refused(api: Api, passport: bytes) -> None:
    """Each refusal has its status and says what would do."""
    order = await api.order()
    assert (await api.put(order, passport, kind="selfie"))[0] == 422
    assert (await api.put("00000000-0000-4000-8000-000000000000", passport))[0] == 404
    assert (await api.put("not-an-id", passport))[0] == 404
    status, problem, _ = await api.call("PATCH", f"/v1/orders/{order}", json={"status": "done"})
    assert status == 422
    assert "ported" in problem["detail"]


async def test_a_closed_order_takes_no_more(api: Api, passport: bytes) -> None:
    """Once ported or cancelled, an order refuses documents and illegal transitions."""
    order = await api.order()
    status, _, _ = await api.call("PATCH", f"/v1/orders/{order}", json={"status": "cancelled"})
    assert status == 200
    assert (await api.put(order, passport))[0] == 409
    status, problem, _ = await api.call("PATCH", f"/v1/orders/{order}", json={"status": "ported"})
    assert (status, problem["title"]) == (409, "Conflict")
    order = await api.order()
    path = f"/v1/orders/{order}"
    assert (await api.call("PATCH", path, json={"status": "ported"}))[0] == 200
    status, problem = await api.put(order, passport)
    assert (status, "move it to exception" in problem["detail"]) == (409, True)
    assert (await api.call("PATCH", path, json={"status": "exception"}))[0] == 200
    assert (await api.put(order, passport))[0] == 201


async def test_numbers_must_be_e164(api: Api) -> None:
    """What is not a telephone number in E.164 is refused."""
    for number in ["02079460123", "+44", "+44 20 7946 0123", "tel:+1", ""]:
        fields = {"region": "uk", "customer": "acme", "numbers": [number]}
        status, _, _ = await api.call("POST", "/v1/orders", json=fields)
        assert status == 422


async def test_a_body_that_is_not_the_json_asked_for_is_refused(api: Api) -> None:
    """What cannot be read as JSON is 400; JSON that says nothing that is asked for is 422."""
    deep = b"[" * 50_000
    for body, wanted in (
        *((body, 400) for body in (b"", b"{", b"\xff" * 9, deep, b'{"a":' * 12_000)),
        *((body, 422) for body in (b"[]", b'{"regio":"uk"}', b'{"region":1}')),
    ):
        status, problem, _ = await api.call("POST", "/v1/orders", data=body)
        assert (status, problem["status"]) == (wanted, wanted), body[:20]


async def test_numbers_are_masked_and_sealed(api: Api, vault: Vault) -> None:
    """A full telephone number is neither shown nor lies readable in a row."""
    order = await api.order()
    _, shown, _ = await api.call("GET", f"/v1/orders/{order}")
    assert shown["numbers_masked"] == ["+442079460***"]
    row = await vault.pool.fetchrow("select * from porting_order")
    assert row is not None
    assert b"7946" not in repr(tuple(row)).encode()


async def test_the_same_idempotency_key_has_its_effect_once(api: Api, passport: bytes) -> None:
    """A repeated request gets the first one's result; another request with its key is refused."""
    fields = {"region": "uk", "customer": "acme", "numbers": ["+442079460123"]}
    headers = {"Idempotency-Key": "order-1"}
    _, first, _ = await api.call("POST", "/v1/orders", json=fields, headers=headers)
    _, again, _ = await api.call("POST", "/v1/orders", json=fields, headers=headers)
    assert first["id"] == again["id"]
    other = {**fields, "customer": "other"}
    status, _, _ = await api.call("POST", "/v1/orders", json=other, headers=headers)
    assert status == 422
    key = {"Idempotency-Key": "scan-1"}
    _, stored = await api.put(first["id"], passport, **key)
    _, repeated = await api.put(first["id"], passport, **key)
    assert stored["id"] == repeated["id"]


async def test_two_at_once_with_one_key_make_one_document(
    api: Api, vault: Vault, passport: bytes
) -> None:
    """Of two racing requests with the same key one wins, and only one document is kept."""
    order = await api.order()
    answers = await asyncio.gather(
        *(api.put(order, passport, **{"Idempotency-Key": "race"}) for _ in range(4))
    )
    assert {status for status, _ in answers} <= {201, 409}
    assert len({body["id"] for status, body in answers if status == 201}) == 1
    assert await vault.pool.fetchval("select count(*) from document") == 1
    assert len([item async for item in vault.stores["uk"].list("documents/")]) == 1


async def test_pages_follow_each_other(api: Api) -> None:
    """The cursor leads through all orders, each once, newest first."""
    made = [await api.order() for _ in range(5)]
    seen, cursor = [], ""
    while True:
        _, page, _ = await api.call("GET", f"/v1/orders?limit=2&cursor={cursor}")
        seen += [order["id"] for order in page["data"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == made[::-1]


async def test_bad_paging_is_refused(api: Api) -> None:
    """A limit out of bounds or a made-up cursor is refused."""
    for query in ["limit=0", "limit=201", "limit=x", "cursor=%01", "cursor=YQ=="]:
        status, _, _ = await api.call("GET", f"/v1/orders?{query}")
        assert status == 422


async def test_answers_carry_strict_headers(api: Api) -> None:
    """Nothing is cached or sniffed, and no banner tells versions."""
    _, _, response = await api.call("GET", "/v1/orders")
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert "Server" not in response.headers


async def test_health_readiness_and_metrics_need_no_token(api: Api) -> None:
    """Machines may ask whether the vault is up."""
    for path in ("/healthz", "/readyz", "/metrics", "/openapi.json"):
        async with api.session.get(api.url + path) as response:
            assert response.status == 200


@pytest.mark.parametrize("reference", ["Jane Doe", "Jane", "x" * 64 + "1", "case 7", "case\t7"])
async def test_a_reference_that_may_be_a_name_is_refused_and_not_recorded(
    api: Api, vault: Vault, passport: bytes, reference: str
) -> None:
    """A reference stands in the log, so it is the number of a case and nothing else."""
    _, document = await api.put(await api.order(), passport)
    path = f"/v1/documents/{document['id']}/content"
    headers = {"Access-Purpose": "verify-identity", "Access-Reference": reference}
    assert (await api.call("GET", path, headers=headers))[0] == 422
    assert await vault.pool.fetchval("select count(reference) from access_record") == 0
    headers["Access-Reference"] = "CASE-2026/7"
    assert (await api.call("GET", path, headers=headers))[0] == 200


async def test_who_has_several_regions_says_which_log(api: Api, vault: Vault) -> None:
    """The question is answered with the choice, and recorded like any other."""
    status, problem, _ = await api.call("GET", "/v1/access-records", role="compliance")
    assert status == 422
    assert "sg, uk" in problem["detail"]
    asked = "select count(*) from access_record where action = 'log.read' and phase = 'intent'"
    assert await vault.pool.fetchval(asked) == 1
    assert (await api.call("GET", "/v1/access-records"))[0] == 403


async def test_a_reader_who_hangs_up_is_no_fault_of_the_server(
    api: Api, vault: Vault, passport: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """Half a download ends as `aborted` in the log, and as nothing alarming in the server's."""
    large = passport + bytes(8 << 20)
    _, document = await api.put(await api.order(), in_pieces(large))
    url = f"{api.url}/v1/documents/{document['id']}/content"
    headers = {
        "Authorization": f"Bearer {api.tokens['porting']}",
        "Access-Purpose": "verify-identity",
    }
    async with api.session.get(url, headers=headers) as response:
        await response.content.read(1000)
        response.close()
    query = "select result from access_record where action = 'document.read' and phase = 'outcome'"
    result = None
    for _ in range(100):
        result = await vault.pool.fetchval(query)
        if result is not None:
            break
        await asyncio.sleep(0.05)
    assert result == "aborted"
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []
