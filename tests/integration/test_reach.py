"""An act needs the right to all that it reaches, and not only to what it names."""

import asyncio
import itertools
from dataclasses import replace
from typing import Any

import pytest

from tests.fixtures_server import OPERATOR, Api
from tests.integration.test_everything_is_recorded import BODY, QUERY, ROLES, address, example
from tests.integration.test_hooks import Carriers, carriers, moved
from vault.actions.credentials import create_token, revoke_token
from vault.actions.expire import expire
from vault.context import Vault
from vault.domain.credentials import Grant
from vault.errors import NotFoundError
from vault.web.routes import ROUTES, Route
from vault.web.schemas import SCHEMAS

__all__ = ["carriers"]

UK = frozenset({"uk"})
NARROWED = {
    "kind": Grant("porting", UK, kinds=frozenset({"loa"})),
    "customer": Grant("porting", UK, customers=frozenset({"rival"})),
}
#: What the narrowed tokens try on whatever a route names, beside the example of its schema.
STATUSES = ("ported", "cancelled", "submitted", "exception")


async def narrowed(vault: Vault, api: Api, how: str) -> str:
    """Make a narrowed token and return the role by which the client uses it."""
    _, api.tokens[how] = await create_token(vault, OPERATOR, NARROWED[how], label=how)
    return how


async def state(vault: Vault) -> list[tuple[Any, ...]]:
    """Return all that acts can reach: custody, restrictions, links, holds and instructions."""
    rows = await vault.pool.fetch(
        """
        select 'document', id::text, custody, restricted_at::text from document
        union all select 'link', carrier || reference, order_id::text, '' from carrier_order
        union all select 'hold', id::text, released_at::text, '' from hold
        union all select 'instruction', id::text, withdrawn_at::text, customer from instruction
        union all select 'ended', id::text, ended_at::text, '' from porting_order
        order by 1, 2
        """
    )
    return [tuple(row) for row in rows]


def calls(order: str, document: str) -> list[tuple[str, str, Any]]:
    """Return every call that changes something, on this order and this document."""
    found = list[tuple[str, str, Any]]()
    for route in ROUTES:
        if route.method == "GET" or route.public or route.body == "file":
            continue
        identity = document if "/documents/" in route.path else order
        path = route.path.replace("{id}", identity).replace("{region}", "uk")
        bodies = (
            [BODY.get(route.body or "") or example(SCHEMAS[route.body])] if route.body else [{}]
        )
        if route.body == "OrderChange":
            bodies = [{"status": status} for status in STATUSES]
        if route.body == "NewHold":
            bodies = [{**bodies[0], "customers": None, "documents": [document]}]
        if route.body == "NewInstruction":
            bodies = [{**bodies[0], "customer": "acme"}]
        found += [(route.method, path, body) for body in bodies]
    return found


@pytest.mark.parametrize("how", sorted(NARROWED))
async def test_a_narrowed_token_changes_nothing_of_others_by_any_route(
    api: Api, vault: Vault, passport: bytes, how: str
) -> None:
    """Whatever it calls on an order of other kinds or customers, a passport stays as it is."""
    order = await api.order()
    _, document = await api.put(order, passport)
    role = await narrowed(vault, api, how)
    before = await state(vault)
    for method, path, body in calls(order, document["id"]):
        status, said, _ = await api.call(method, path, role=role, json=body)
        # What a token of some kinds may do to the order itself reaches no document.
        assert (
            status in (403, 404, 409, 422)
            or body == {"status": "submitted"}
            or (body == {"status": "exception"} or "orders/search" in path or path == "/v1/orders")
        ), (method, path, body, status, said)
        await expire(vault, "uk")
    ours = {row[1] for row in before}
    assert [row for row in await state(vault) if row[1] in ours] == before
    assert not [row for row in await state(vault) if row[0] in ("link", "hold", "instruction")]


async def test_a_token_of_one_kind_neither_ends_nor_reopens_an_order(
    api: Api, vault: Vault, passport: bytes
) -> None:
    """It moves the order among the carrier's statuses; ending it takes a token for every kind."""
    order = await api.order()
    await api.put(order, passport)
    role = await narrowed(vault, api, "kind")
    change = f"/v1/orders/{order}"
    status, _, _ = await api.call("PATCH", change, role=role, json={"status": "submitted"})
    assert status == 200
    for ending in ("cancelled", "ported"):
        status, said, _ = await api.call("PATCH", change, role=role, json={"status": ending})
        assert (status, "every kind" in said["detail"]) == (403, True)
    await api.call("PATCH", change, json={"status": "ported"})
    status, _, _ = await api.call("PATCH", change, role=role, json={"status": "exception"})
    assert status == 403
    assert (await api.call("PATCH", change, json={"status": "exception"}))[0] == 200


def regional() -> list[tuple[Route, str]]:
    """Return every route that names a region, and where: in its path, its query or its body."""
    found = list[tuple[Route, str]]()
    for route in (route for route in ROUTES if not route.public):
        shape = SCHEMAS[route.body] if route.body and route.body != "file" else {}
        fields = shape.get("properties", {})
        if "{region}" in route.path:
            found.append((route, "path"))
        elif "region" in route.query:
            found.append((route, "query"))
        elif {"region", "regions"} & set(fields):
            found.append((route, "body"))
    return found


async def test_a_region_that_is_not_ones_own_is_refused_with_a_sentence(
    api: Api, vault: Vault
) -> None:
    """On every route that names one: served here or not, and whichever role asks."""
    for role in ("compliance", "admin"):
        _, api.tokens[role] = await create_token(vault, OPERATOR, Grant(role, UK), label="uk only")
    assert len(regional()) > 12
    for route, where in regional():
        said = set[str]()
        for role, other in itertools.product(ROLES, ("sg", "hk")):
            # Of a country that is no region, so that the region counts that is said.
            query = QUERY.get(route.path, "").replace("%2B442079460123", "%2B14165550123")
            path = address(route).partition("?")[0].replace("/uk/", f"/{other}/")
            body = BODY.get(route.body or "")
            if where == "body":
                body = {**(body or example(SCHEMAS[route.body or ""]))}
                body |= {"regions": [other]} if "regions" in body else {"region": other}
            elif where == "query":
                query = f"region={other}&" + query.replace("region=uk", "")
            options = {"data": b"II*"} if route.body == "file" else {"json": body}
            status, problem, _ = await api.call(
                route.method, f"{path}?{query}", role=role, **options
            )
            told = problem["detail"]
            ways = {(403, False), (403, True), (422, True)}
            assert (status, "/v1/break-glass" in path) in ways, (path, query, role, problem)
            said |= {told} - {word for word in [told] if f"the role {role} may not" in word}
        served_here = {"regions must be some of uk, sg"} if "break-glass" in route.path else set()
        assert said == {"the region must be one of yours: uk"} | served_here, (route.path, said)


async def test_a_rival_claims_no_carriers_reference(carriers: Carriers) -> None:
    """What a carrier calls an order is said by who may see all customers' orders, and heard so."""
    api, rival = carriers.api, await narrowed(carriers.vault, carriers.api, "customer")
    fields = {"region": "uk", "customer": "rival", "numbers": ["+442079460124"]}
    _, theirs, _ = await api.call("POST", "/v1/orders", role=rival, json=fields)
    claim = {"carrier": "telnyx", "reference": "po-1"}
    path = f"/v1/orders/{theirs['id']}/actions/link"
    status, _, _ = await api.call("POST", path, role=rival, json=claim)
    assert status == 403
    order = await api.order()
    status, _, _ = await api.call("POST", f"/v1/orders/{order}/actions/link", json=claim)
    assert status == 200


async def test_our_own_id_counts_before_what_somebody_linked(carriers: Carriers) -> None:
    """A false link moves no order that the carrier names by our id."""
    order, other = await carriers.api.order(), await carriers.api.order()
    event = moved(order, "ported", "e1", "2026-01-01T00:00:00Z")
    reference = event["payload"]["id"]
    claim = {"carrier": "telnyx", "reference": reference}
    await carriers.api.call("POST", f"/v1/orders/{other}/actions/link", json=claim)
    assert (await carriers.telnyx(event))[0] == 200
    assert await carriers.status(order) == "ported"
    assert await carriers.status(other) == "draft"


async def test_a_carrier_moves_no_order_that_is_linked_to_another(carriers: Carriers) -> None:
    """An order that Twilio handles is not ended by an event of Telnyx that names it."""
    order = await carriers.api.order()
    claim = {"carrier": "twilio", "reference": "KW1"}
    await carriers.api.call("POST", f"/v1/orders/{order}/actions/link", json=claim)
    event = moved(order, "ported", "e1", "2026-01-01T00:00:00Z")
    assert (await carriers.telnyx(event))[0] == 404
    assert await carriers.status(order) == "draft"
    claim = {"carrier": "telnyx", "reference": "another"}
    await carriers.api.call("POST", f"/v1/orders/{order}/actions/link", json=claim)
    assert (await carriers.telnyx(event))[0] == 200


async def test_an_administrator_revokes_no_token_that_reaches_further(vault: Vault) -> None:
    """Whoever administers one region leaves a token of two alone; who has both ends it."""
    token, _ = await create_token(
        vault, OPERATOR, Grant("porting", frozenset({"uk", "sg"})), label="both"
    )
    for regions in ({"uk"}, {"sg"}):
        with pytest.raises(NotFoundError):
            await revoke_token(vault, replace(OPERATOR, regions=frozenset(regions)), token)
    await revoke_token(vault, OPERATOR, token)


async def test_of_two_who_change_an_order_the_narrowed_ends_nothing(api: Api, vault: Vault) -> None:
    """At once or one after the other, a token of some kinds takes no part in an end."""
    role = await narrowed(vault, api, "kind")
    for _ in range(5):
        path = f"/v1/orders/{await api.order()}"
        answers = await asyncio.gather(
            api.call("PATCH", path, json={"status": "ported"}),
            api.call("PATCH", path, role=role, json={"status": "exception"}),
        )
        assert answers[0][0] in (200, 409)
        assert answers[1][0] in (200, 403, 409)
