"""
Who may call what, over real HTTP, for every route and role; and what guessing is worth.

The routes are those that are served: one that is not in `MAY` fails the test until somebody says
who may call it.
"""

import asyncio
import re
import statistics
import time
from typing import Any

import pytest

from tests.command_line import UNKNOWN
from tests.fixtures_server import Api
from tests.integration.test_everything_is_recorded import BODY, ROLES, address, example
from vault.actions.log_publish import publish_log, sequence_log
from vault.commands.log_proofs import verify
from vault.commands.orders import order_list
from vault.commands.parser import make_parser
from vault.commands.retention import plan
from vault.commands.signals import listed
from vault.context import Vault
from vault.domain.access import BREAK_GLASS_ROLES, READERS, Role
from vault.domain.approvals import APPROVERS
from vault.errors import VaultError
from vault.web.routes import ROUTES
from vault.web.schemas import SCHEMAS

DESK, AUDIT, DPO, ADMIN, GATEWAY, WITNESS, AUDITOR = ROLES
EVERYBODY = set(ROLES)
#: Who is not told 403. What such a caller is told instead is the business of other tests.
MAY: dict[str, set[str]] = {
    "POST /v1/orders": {DESK},
    "GET /v1/orders": {DESK},
    "POST /v1/orders/search": {DESK},
    "GET /v1/orders/{id}": {DESK},
    "GET /v1/orders/{id}/numbers": {DESK},
    "PATCH /v1/orders/{id}": {DESK},
    "POST /v1/orders/{id}/documents": {DESK},
    "POST /v1/orders/{id}/actions/link": {DESK},
    "GET /v1/orders/{id}/certificate": {DESK, AUDIT, DPO},
    "GET /v1/documents/{id}": {DESK, AUDIT, DPO},
    # The dpo, too, but only with an approval.
    "GET /v1/documents/{id}/content": {DESK},
    "GET /v1/documents/{id}/certificate": {DESK, AUDIT, DPO},
    "GET /v1/documents/{id}/retention": {DESK, AUDIT, DPO},
    "POST /v1/documents/{id}/actions/shred": {DESK, DPO},
    "POST /v1/documents/{id}/actions/correct": {DESK, DPO},
    "POST /v1/orders/{id}/actions/correct": {DESK},
    "POST /v1/documents/{id}/actions/restrict": {DPO},
    "POST /v1/documents/{id}/actions/unrestrict": {DPO},
    "GET /v1/retention/plan": {DESK, AUDIT, DPO},
    "POST /v1/holds": {DPO},
    "GET /v1/holds": {AUDIT, DPO},
    "GET /v1/holds/{id}": {AUDIT, DPO},
    "POST /v1/holds/{id}/actions/release": {DPO},
    "POST /v1/retention/instructions": {DESK, DPO},
    "GET /v1/retention/instructions": {DESK, AUDIT, DPO},
    "POST /v1/retention/instructions/{id}/actions/resolve": {DPO},
    "POST /v1/retention/instructions/{id}/actions/withdraw": {DPO},
    "GET /v1/retention/policy": {AUDIT, DPO, ADMIN},
    "POST /v1/retention/policy/effect": {AUDIT, DPO, ADMIN},
    "POST /v1/retention/policy": {ADMIN},
    "POST /v1/faxes": {GATEWAY},
    "GET /v1/faxes": {GATEWAY, AUDIT, DPO},
    "GET /v1/faxes/{id}": {GATEWAY, AUDIT, DPO},
    "GET /v1/faxes/{id}/content": {GATEWAY},
    "POST /v1/faxes/{id}/actions/deliver": {GATEWAY},
    "POST /v1/faxes/{id}/actions/fail": {GATEWAY},
    # The administrator asks for other acts than the disclosure that is asked for here.
    "POST /v1/approvals": {DPO},
    "GET /v1/approvals": {DESK, AUDIT, DPO, ADMIN},
    "POST /v1/approvals/{id}/actions/approve": {AUDIT, DPO},
    "POST /v1/approvals/{id}/actions/decline": {AUDIT, DPO},
    "POST /v1/approvals/{id}/actions/withdraw": {DESK, DPO, ADMIN},
    "GET /v1/break-glass": {AUDIT, DPO, ADMIN},
    "POST /v1/break-glass/{id}/actions/revoke": {AUDIT, DPO, ADMIN},
    "POST /v1/tokens/{id}/actions/rename": {ADMIN},
    "GET /v1/signals": {ADMIN},
    "POST /v1/signals/{id}/actions/replay": {ADMIN},
    # The administrator, but only with an approval.
    "POST /v1/break-glass": set(),
    "GET /v1/access-records": {AUDIT},
    "GET /v1/access-records/export": {AUDIT, AUDITOR},
    "GET /v1/log/checkpoint": EVERYBODY,
    "GET /v1/log/{region}/checkpoint": EVERYBODY,
    "GET /v1/log/{region}/keys": EVERYBODY,
    "GET /v1/log/{region}/tile/{path:.+}": EVERYBODY,
    "GET /v1/log/{region}/inclusion": EVERYBODY,
    "GET /v1/log/{region}/consistency": EVERYBODY,
    "POST /v1/log/{region}/cosignatures": {AUDIT, WITNESS},
}
SERVED = {f"{route.method} {route.path}": route for route in ROUTES if not route.public}
GUESSES, CONNECTIONS = 10_000, 20


def test_every_route_says_who_may_call_it() -> None:
    """A route without a rule fails here, a rule without a route, and a role that is not tried."""
    assert set(SERVED) == set(MAY)
    assert set(ROLES) == set(Role)


def test_parties_outside_only_look_at_the_log() -> None:
    """Whatever route is added: a witness cosigns, an auditor exports, both fetch proofs."""
    proofs = {name for name in MAY if name.startswith("GET /v1/log/")}
    mine = {role: {name for name in MAY if role in MAY[name]} for role in (WITNESS, AUDITOR)}
    assert mine[WITNESS] == proofs | {"POST /v1/log/{region}/cosignatures"}
    assert mine[AUDITOR] == proofs | {"GET /v1/access-records/export"}
    for role in (Role.WITNESS, Role.AUDITOR):
        assert not any(role in approvers for approvers in APPROVERS.values())
        assert role not in READERS | set(BREAK_GLASS_ROLES)


async def test_an_auditors_token_is_enough_to_verify_a_running_vault(
    api: Api, vault: Vault, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command that audits needs nothing but proofs and the export."""
    await sequence_log(vault, "uk")
    await publish_log(vault, "uk")
    monkeypatch.setenv("PORTVAULT_TOKEN", api.tokens["auditor"])
    words = ["log", "verify", "--server", api.url, "--region", "uk"]
    await verify(make_parser().parse_args(words))
    assert capsys.readouterr().out.splitlines()[-1] == "The log holds: uk."


async def test_every_role_is_told_no_where_it_may_not(
    api: Api, passport: bytes, fax: bytes
) -> None:
    """Each route, called with each role's token: 403 for all but those that may, 401 for nobody."""
    wrong = []
    for name, route in SERVED.items():
        options: dict[str, Any] = {}
        if route.body is not None:
            options = (
                {"data": fax if route.path == "/v1/faxes" else passport}
                if route.body == "file"
                else {"json": BODY.get(route.body) or example(SCHEMAS[route.body])}
            )
        where = address(route)
        for role in ROLES:
            status, _, _ = await api.call(route.method, where, role=role, **options)
            documented = {route.success, 400, 401, 403, 404, 429, 503, *route.refusals}
            if (status != 403) != (role in MAY[name]) or status not in documented:
                wrong.append((name, role, status))
        async with api.session.request(route.method, api.url + where, **options) as response:
            if response.status != 401:
                wrong.append((name, "nobody", response.status))
    assert wrong == []


async def test_the_terminal_says_that_nothing_is_there_and_who_may(
    api: Api, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No headings over nothing, what a number looks like, and whose act it is."""
    monkeypatch.setenv("PORTVAULT_SERVER", api.url)
    find = "order find --region uk --number"
    for role, run, line in [
        ("porting", order_list, f"{find} +442079460501"),
        ("porting", plan, "retention plan --until 2100-01-01"),
        ("admin", listed, "signal list"),
    ]:
        monkeypatch.setenv("PORTVAULT_TOKEN", api.tokens[role])
        await run(make_parser().parse_args(line.split()))
        assert capsys.readouterr().out == "nothing found\n"
    for role, line, says in [
        ("porting", f"{find} 02079460501", "number, as +442079460123"),
        ("admin", f"{find} +442079460501", "this is for porting"),
    ]:
        monkeypatch.setenv("PORTVAULT_TOKEN", api.tokens[role])
        with pytest.raises(VaultError, match=re.escape(says)):
            await order_list(make_parser().parse_args(line.split()))


async def test_ten_thousand_guesses_open_nothing(api: Api) -> None:
    """Each is 401 without a difference, nothing of them is kept, and who has a token is served."""
    port = int(api.url.rpartition(":")[2])
    each = GUESSES // CONNECTIONS

    async def guess(connection: int) -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        refused = 0
        for number in range(each):
            secret = f"pv_{connection:021d}{number:022d}"
            writer.write(
                b"GET /v1/orders HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "
                + secret.encode()
                + b"\r\n\r\n"
            )
            head = await reader.readuntil(b"\r\n\r\n")
            refused += head.startswith(b"HTTP/1.1 401 ")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
        writer.close()
        return refused

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(guess(number)) for number in range(CONNECTIONS)]
        served = group.create_task(api.call("GET", "/v1/orders"))
    assert sum(task.result() for task in tasks) == GUESSES
    assert served.result()[0] == 200


async def test_what_is_forbidden_takes_as_long_as_what_is_unknown(
    api: Api, passport: bytes
) -> None:
    """A thing elsewhere and one that is nowhere answer alike, in time as in words."""
    _, document = await api.put(await api.order(), passport)
    seconds: dict[str, list[float]] = {document["id"]: [], UNKNOWN: []}
    words = set()
    for _ in range(100):
        for identity, taken in seconds.items():
            start = time.perf_counter()
            answer = await api.call("GET", f"/v1/documents/{identity}", role="porting-sg")
            taken.append(time.perf_counter() - start)
            words.add(str(answer[:2]))
    assert len(words) == 1
    known, unknown = (statistics.median(taken) for taken in seconds.values())
    assert 0.5 < known / unknown < 2


async def test_no_header_makes_a_principal_more(api: Api, vault: Vault, passport: bytes) -> None:
    """Whatever a client writes of its address, region, role or method changes nothing at all."""
    for extra in [
        {
            "X-Forwarded-For": "10.0.0.1",
            "Forwarded": "for=10.0.0.1;host=x",
            "X-Real-IP": "10.0.0.1",
        },
        {"X-Region": "sg", "Access-Region": "sg", "CF-IPCountry": "SG", "X-Forwarded-Host": "sg"},
        {"X-Role": "porting", "X-User": "token:x", "X-Principal": "porting", "Role": "porting"},
        {
            "X-HTTP-Method-Override": "GET",
            "X-Original-URL": "/healthz",
            "X-Rewrite-URL": "/healthz",
        },
        {"Cookie": "portvault-session=x; __Host-portvault-session=x"},
    ]:
        _, document = await api.put(await api.order(), passport)
        path = f"/v1/documents/{document['id']}/content"
        headers = {**extra, "Access-Purpose": "verify-identity"}
        for role, status in (("porting-sg", 404), ("compliance", 403), ("fax-gateway", 403)):
            assert (await api.call("GET", path, role=role, headers=headers))[0] == status
        assert (await api.call("GET", path, headers=headers))[:2] == (200, passport)
        where = await vault.pool.fetch("select distinct region_to from access_record")
        assert {row["region_to"] for row in where} <= {None, "uk", "sg"}
