"""The dpo reads content only when somebody else has agreed to this very document, once."""

import asyncio
from uuid import UUID

from tests.command_line import UNKNOWN
from tests.fixtures_server import Api, in_pieces
from vault.context import Vault

HEADERS = {"Access-Purpose": "disclose-to-authority", "Access-Reference": "ORDER-7"}


async def approval(
    api: Api, subject: str, *, agreed: bool = True, purpose: str = HEADERS["Access-Purpose"]
) -> str:
    """Ask as the dpo, and agree as compliance."""
    fields = {"act": "disclosure", "subject": subject, "region": "uk", "reason": "court-order"}
    fields |= {"purpose": purpose, "reference": HEADERS["Access-Reference"]}
    _, asked, _ = await api.call("POST", "/v1/approvals", json=fields, role="dpo")
    if agreed:
        path = f"/v1/approvals/{asked['id']}/actions/approve"
        status, _, _ = await api.call("POST", path, role="compliance")
        assert status == 200
    return str(asked["id"])


async def disclose(api: Api, document: str, name: str | None, **headers: str) -> tuple[int, bytes]:
    """Read as the dpo."""
    sent = HEADERS | ({"Access-Approval": name} if name else {}) | headers
    path = f"/v1/documents/{document}/content"
    status, body, _ = await api.call("GET", path, headers=sent, role="dpo")
    return status, body


async def test_a_disclosure_takes_two_and_happens_once(
    api: Api, vault: Vault, passport: bytes
) -> None:
    """With the approval the dpo gets the document, once, and each step is recorded."""
    _, document = await api.put(await api.order(), passport)
    status, said = await disclose(api, document["id"], None)
    assert (status, "portvault approval request" in str(said)) == (403, True)
    name = await approval(api, document["id"])
    assert await disclose(api, document["id"], name) == (200, passport)
    status, said = await disclose(api, document["id"], name)
    assert (status, "the approval was used before" in str(said)) == (403, True)
    rows = await vault.pool.fetch(
        "select phase, decision, reason, reference from access_record"
        " where action = 'document.read'"
        # A stream that is slow is renewed now and then, without a reason.
        " and (phase <> 'progress' or reason is not null)"
        " order by at, phase = 'outcome', phase = 'progress'"
    )
    assert [row["reason"] for row in rows] == [
        "approval-missing",
        "allowed",
        f"approval/{name}",
        None,
        "approval-missing",
    ]
    assert rows[1]["reference"] == "ORDER-7"


async def test_no_other_approval_will_do(api: Api, passport: bytes) -> None:
    """Of another document, not agreed to, unknown, or in another's hands: none opens it."""
    order = await api.order()
    _, document = await api.put(order, passport)
    _, other = await api.put(order, passport)
    for name in (
        await approval(api, other["id"]),
        await approval(api, document["id"], agreed=False),
        UNKNOWN,
    ):
        assert (await disclose(api, document["id"], name))[0] == 403
    good = await approval(api, document["id"])
    path = f"/v1/documents/{document['id']}/content"
    sent = HEADERS | {"Access-Approval": good}
    for role in ("compliance", "admin", "porting", "fax-gateway"):
        assert (await api.call("GET", path, headers=sent, role=role))[0] == 403


async def test_an_approval_alone_is_not_enough(api: Api, passport: bytes) -> None:
    """The purpose must be the dpo's own, with its reference; a wrong id is told apart."""
    _, document = await api.put(await api.order(), passport)
    name = await approval(api, document["id"])
    wrong = {"Access-Purpose": "verify-identity"}
    assert (await disclose(api, document["id"], name, **wrong))[0] == 403
    assert (await disclose(api, document["id"], name, **{"Access-Reference": ""}))[0] == 422
    assert (await disclose(api, document["id"], "x"))[0] == 422
    assert (await disclose(api, document["id"], name))[0] == 200


async def test_an_approval_is_of_its_purpose_and_reference(api: Api, passport: bytes) -> None:
    """What was agreed to for one case opens nothing for another, and stays good for its own."""
    _, document = await api.put(await api.order(), passport)
    name = await approval(api, document["id"])
    for other in (
        {"Access-Purpose": "investigate-incident", "Access-Reference": "X-999"},
        {"Access-Purpose": "investigate-incident"},
        {"Access-Reference": "X-999"},
    ):
        assert (await disclose(api, document["id"], name, **other))[0] == 403
    assert await disclose(api, document["id"], name) == (200, passport)


async def restrict(api: Api, document: str, what: str = "restrict") -> None:
    """Restrict a document, or lift that."""
    path = f"/v1/documents/{document}/actions/{what}"
    assert (await api.call("POST", path, role="dpo", json={"reason": "contested"}))[0] == 200


async def test_what_is_restricted_is_read_where_the_policy_says_so(
    api: Api, passport: bytes
) -> None:
    """A restriction stops the desk, and not the data subject's or a court's case (art. 18(2))."""
    _, document = await api.put(await api.order(), passport)
    await restrict(api, document["id"])
    for purpose in ("answer-data-subject", "disclose-to-authority"):
        name = await approval(api, document["id"], purpose=purpose)
        read = await disclose(api, document["id"], name, **{"Access-Purpose": purpose})
        assert read == (200, passport)
    assert (await api.get(document["id"]))[0] == 423


async def test_a_refusal_uses_no_approval_up(api: Api, vault: Vault, passport: bytes) -> None:
    """Refused for its purpose, a restriction, or for want of its bytes, it is as good as before."""
    _, document = await api.put(await api.order(), passport)
    await restrict(api, document["id"])
    name = await approval(api, document["id"])
    incident = {"Access-Purpose": "investigate-incident"}
    other = await approval(api, document["id"], purpose="investigate-incident")
    assert (await disclose(api, document["id"], other, **incident))[0] == 423
    assert (await disclose(api, document["id"], name, **incident))[0] == 403
    assert (await disclose(api, document["id"], name, **{"Access-Purpose": "none"}))[0] == 403
    store = vault.stores["uk"]
    (stored,) = [item.name async for item in store.list("") if document["id"] in item.name]
    async with store.get(stored) as pieces:
        kept = b"".join([piece async for piece in pieces])
    await store.purge(stored)
    assert (await disclose(api, document["id"], name))[0] == 503
    used = "select used_at from approval where id = $1"
    for unused in (name, other):
        assert await vault.pool.fetchval(used, UUID(unused)) is None
    await store.put(stored, in_pieces(kept), size_bytes=len(kept))
    assert await disclose(api, document["id"], name) == (200, passport)
    assert await vault.pool.fetchval(used, UUID(name)) is not None


async def test_of_two_who_use_an_approval_at_once_one_reads(api: Api, passport: bytes) -> None:
    """The approval is used up before the first byte, whoever else has come as far."""
    _, document = await api.put(await api.order(), passport)
    name = await approval(api, document["id"])
    answers = await asyncio.gather(*(disclose(api, document["id"], name) for _ in range(4)))
    assert sorted(status for status, _ in answers)[0] == 200
    assert [body for status, body in answers if status == 200] == [passport]


async def test_a_reference_that_is_missing_is_named_first(api: Api, passport: bytes) -> None:
    """Whoever forgot the reference is told so, without an approval and with a used one."""
    _, document = await api.put(await api.order(), passport)
    used = await approval(api, document["id"])
    assert (await disclose(api, document["id"], used))[0] == 200
    for name in (None, used, UNKNOWN):
        status, said = await disclose(api, document["id"], name, **{"Access-Reference": ""})
        assert (status, "in Access-Reference" in str(said)) == (422, True)
