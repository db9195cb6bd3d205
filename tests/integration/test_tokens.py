"""Tokens: how far each reaches, over real HTTP, and what the vault keeps of them."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from tests.command_line import UNKNOWN
from tests.fixtures_server import NUMBERS, OPERATOR, Api, serving
from vault.actions.credentials import create_token, list_tokens, revoke_token
from vault.context import Vault
from vault.domain.credentials import Grant
from vault.errors import InvalidRequestError

UK = frozenset({"uk"})


async def token(vault: Vault, api: Api, name: str, **scope: Any) -> UUID:
    """Make a token of the porting role and let the client call by its name."""
    grant = Grant("porting", UK, **scope)
    identity, api.tokens[name] = await create_token(vault, OPERATOR, grant, label=name)
    return identity


@pytest.fixture
async def scoped(vault: Vault, api: Api) -> Api:
    """Give a client with a token for one customer, and one for letters alone."""
    await token(vault, api, "acme", customers=frozenset({"acme"}))
    await token(vault, api, "other", customers=frozenset({"other"}))
    await token(vault, api, "letters", kinds=frozenset({"loa"}))
    return api


async def test_a_token_of_a_customer_sees_that_customers_orders_only(
    scoped: Api, passport: bytes
) -> None:
    """Listed, shown, changed, added to, read, described, shredded: all as if there were nothing."""
    order = await scoped.order(role="acme")
    _, document = await scoped.put(order, passport)
    calls: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
        ("GET", "/v1/orders/{}", order, {}),
        ("PATCH", "/v1/orders/{}", order, {"json": {"status": "ported"}}),
        ("POST", "/v1/orders/{}/documents?kind=passport", order, {"data": passport}),
        ("GET", "/v1/documents/{}", document["id"], {}),
        ("GET", "/v1/documents/{}/content", document["id"], {}),
        ("GET", "/v1/documents/{}/certificate", document["id"], {}),
        ("POST", "/v1/documents/{}/actions/shred", document["id"], {"json": {"reason": "test"}}),
    )
    for method, path, identity, options in calls:
        sent = {"headers": {"Access-Purpose": "verify-identity"}, "role": "other", **options}
        theirs = await scoped.call(method, path.format(identity), **sent)
        nobodys = await scoped.call(method, path.format(UNKNOWN), **sent)
        assert (theirs[0], theirs[1]) == (404, nobodys[1]), path
        assert nobodys[0] == 404, path
    for role, found in (("acme", [order]), ("other", []), ("porting", [order])):
        _, page, _ = await scoped.call("GET", "/v1/orders", role=role)
        assert [item["id"] for item in page["data"]] == found
    assert (await scoped.get(document["id"], role="acme"))[0] == 200


async def test_a_token_of_a_customer_opens_orders_for_it_only(scoped: Api) -> None:
    """Another customer's order is not opened with it, and the refusal says whose it is for."""
    fields = {"region": "uk", "customer": "acme", "numbers": NUMBERS}
    status, problem, _ = await scoped.call("POST", "/v1/orders", json=fields, role="other")
    assert (status, "other only" in problem["detail"]) == (403, True)


async def test_a_token_of_a_kind_sees_that_kind_only(
    scoped: Api, passport: bytes, authorisation: bytes
) -> None:
    """A passport is not there for a token of letters, not even in the order's list."""
    order = await scoped.order()
    _, scan = await scoped.put(order, passport)
    _, letter = await scoped.put(order, authorisation, kind="loa")
    assert (await scoped.get(scan["id"], role="letters"))[0] == 404
    assert (await scoped.get(letter["id"], role="letters"))[0] == 200
    _, shown, _ = await scoped.call("GET", f"/v1/orders/{order}", role="letters")
    assert [item["id"] for item in shown["documents"]] == [letter["id"]]


async def test_a_revocation_works_within_a_second_on_every_process(vault: Vault, api: Api) -> None:
    """Two servers that know the token both refuse it a second after it was revoked."""
    identity = await token(vault, api, "leaving")
    async with serving(vault) as second:
        second.tokens["leaving"] = api.tokens["leaving"]
        for server in (api, second):
            assert (await server.call("GET", "/v1/orders", role="leaving"))[0] == 200
        await revoke_token(vault, OPERATOR, identity)
        await asyncio.sleep(1.0)
        for server in (api, second):
            assert (await server.call("GET", "/v1/orders", role="leaving"))[0] == 401


async def test_a_token_expires(vault: Vault, api: Api) -> None:
    """After its time a token is nothing."""
    until = vault.clock() + timedelta(seconds=0.5)
    _, api.tokens["brief"] = await create_token(
        vault, OPERATOR, Grant("porting", UK), label="brief", expires_at=until
    )
    await asyncio.sleep(0.6)
    assert (await api.call("GET", "/v1/orders", role="brief"))[0] == 401


async def test_the_last_use_is_kept_and_the_secret_is_not(vault: Vault, api: Api) -> None:
    """The list says who made a token and when it was used; of its secret there is a hash alone."""
    identity = await token(vault, api, "desk", customers=frozenset({"acme"}))
    await api.call("GET", "/v1/orders", role="desk")
    row = next(row for row in await list_tokens(vault, OPERATOR) if row["id"] == identity)
    assert row["last_used_at"] is not None
    assert (row["created_by"], row["customers"]) == (OPERATOR.id, ["acme"])
    kept = await vault.pool.fetchrow("select * from token where id = $1", identity)
    assert api.tokens["desk"] not in repr(kept)
    made = await vault.pool.fetchval(
        "select reason from access_record where action = 'token.create' and phase = 'outcome'"
        " order by at desc limit 1"
    )
    assert made == f"porting token:{identity}"


async def test_a_grant_that_makes_no_sense_is_refused(vault: Vault) -> None:
    """No token is made that is for nothing, or for what its role has no use of."""
    for grant, says in [
        (Grant("king", UK), "role"),
        (Grant("porting", frozenset()), "regions"),
        (Grant("porting", frozenset({"mars"})), "regions"),
        (Grant("porting", UK, located="mars"), "located"),
        (Grant("compliance", UK, customers=frozenset({"acme"})), "narrowed"),
        (Grant("fax-gateway", UK, kinds=frozenset({"loa"})), "narrowed"),
        (Grant("porting", UK, customers=frozenset()), "at least one"),
        (Grant("porting", UK, customers=frozenset({"Jane Doe"})), "customer"),
        (Grant("porting", UK, kinds=frozenset({"selfie"})), "kinds"),
        (Grant("porting", UK, certificate=b"short"), "certificate"),
    ]:
        with pytest.raises(InvalidRequestError, match=says):
            await create_token(vault, OPERATOR, grant, label="x")


@pytest.mark.parametrize("name", ["access_token", "token", "key"])
async def test_a_token_in_an_address_is_refused(api: Api, name: str) -> None:
    """Even beside a good header: the address stands in logs, so whoever sends it learns of it."""
    path = f"/v1/orders?{name}={api.tokens['porting']}"
    status, problem, _ = await api.call("GET", path)
    assert (status, "revoke this one" in problem["detail"]) == (401, True)
    assert api.tokens["porting"] not in str(problem)


async def test_two_authorizations_are_none(api: Api) -> None:
    """A request that names two principals is not guessed at."""
    headers = [
        ("Authorization", f"Bearer {api.tokens['porting']}"),
        ("Authorization", f"Bearer {api.tokens['admin']}"),
    ]
    async with api.session.get(api.url + "/v1/orders", headers=headers) as response:
        assert response.status == 401
