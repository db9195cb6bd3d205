"""Four eyes over real HTTP and inside the transaction of the act."""

from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import asyncpg
import pytest

from tests.command_line import UNKNOWN, one_line, token_of
from tests.fixtures_process import VaultProcess
from tests.fixtures_server import Api
from vault.actions.access import recorded
from vault.actions.approvals import approve, request_approval, use
from vault.context import Vault
from vault.domain.access import Action, Principal
from vault.domain.approvals import Act, Terms
from vault.errors import ConflictError, ForbiddenError
from vault.sql.connection import transaction

ONE = Principal("token:one", "dpo", frozenset({"uk"}))
OTHER = Principal("token:other", "dpo", frozenset({"uk"}))
HOLD = str(UUID(int=1))
REQUEST = {"act": "hold.release", "subject": HOLD, "region": "uk", "reason": "case-closed"}


async def ask(vault: Vault) -> UUID:
    """Ask for the release of a hold, as `ONE`."""
    terms = Terms(Act.HOLD_RELEASE, HOLD, "uk")
    return (await request_approval(vault, ONE, terms, reason="case-closed")).id


async def act_on(vault: Vault, approval: UUID, who: Principal = ONE) -> None:
    """Do something that takes the approval."""
    async with (
        recorded(vault, who, Action.DOCUMENT_SHRED, region="uk") as access,
        transaction(vault.pool) as conn,
    ):
        await use(access, conn, approval, Terms(Act.HOLD_RELEASE, HOLD, "uk"))


async def test_one_asks_another_agrees(api: Api) -> None:
    """A request is made, seen by the other, approved once, and each step stands in the log."""
    status, asked, _ = await api.call("POST", "/v1/approvals", json=REQUEST, role="dpo")
    assert (status, asked["state"]) == (201, "requested")
    path = f"/v1/approvals/{asked['id']}/actions/approve"
    status, problem, _ = await api.call("POST", path, role="dpo")
    assert (status, "somebody else" in problem["detail"]) == (403, True)
    _, page, _ = await api.call("GET", "/v1/approvals", role="compliance")
    assert [approval["id"] for approval in page["data"]] == [asked["id"]]
    _, first, _ = await api.call("POST", path, role="compliance")
    status, again, _ = await api.call("POST", path, role="compliance")
    assert (status, again["state"], again) == (200, "approved", first)
    assert first["approved_by"] != first["requested_by"]


async def test_a_number_as_the_reference_is_masked_in_the_log(api: Api, vault: Vault) -> None:
    """What somebody puts there by mistake does not stand in the log for years."""
    read = {"act": "disclosure", "purpose": "disclose-to-authority", "reference": "442079460123"}
    status, _, _ = await api.call("POST", "/v1/approvals", json=REQUEST | read, role="dpo")
    assert status == 201
    said = repr(await vault.pool.fetch("select * from access_record"))
    assert ("442079460***" in said, "442079460123" in said) == (True, False)


@pytest.mark.parametrize("role", ["porting", "fax-gateway", "admin"])
async def test_other_roles_do_not_agree(api: Api, role: str) -> None:
    """Neither the desks nor the administrator approve what they do not oversee."""
    _, asked, _ = await api.call("POST", "/v1/approvals", json=REQUEST, role="dpo")
    path = f"/v1/approvals/{asked['id']}/actions/approve"
    assert (await api.call("POST", path, role=role))[0] == 403
    assert (await api.call("POST", "/v1/approvals", json=REQUEST, role=role))[0] == 403


@pytest.mark.parametrize("field, value", [("act", "all"), ("subject", "J Doe")])
async def test_a_malformed_request_is_refused(api: Api, field: str, value: str) -> None:
    """What is asked for has to be one of the acts, upon an id."""
    fields = {**REQUEST, field: value}
    assert (await api.call("POST", "/v1/approvals", json=fields, role="dpo"))[0] == 422


async def test_a_key_asks_once(api: Api) -> None:
    """Sent again with its Idempotency-Key, a request is the same request."""
    headers = {"Idempotency-Key": "ask-1"}
    made = [
        await api.call("POST", "/v1/approvals", json=REQUEST, role="dpo", headers=headers)
        for _ in range(2)
    ]
    assert made[0][1]["id"] == made[1][1]["id"]


async def test_an_unknown_request_is_not_found(api: Api) -> None:
    """What does not exist, or lies in another region, is not there to be approved."""
    path = f"/v1/approvals/{UNKNOWN}/actions/approve"
    assert (await api.call("POST", path, role="compliance"))[0] == 404


async def test_an_approval_is_used_once_and_the_log_says_which(vault: Vault) -> None:
    """The act happens once; its record names the approval between intent and outcome."""
    approval = await ask(vault)
    with pytest.raises(ForbiddenError, match="nobody has approved"):
        await act_on(vault, approval)
    await approve(vault, OTHER, approval)
    with pytest.raises(ForbiddenError, match="only who asked"):
        await act_on(vault, approval, OTHER)
    await act_on(vault, approval)
    with pytest.raises(ConflictError, match="used before"):
        await act_on(vault, approval)
    said = await vault.pool.fetch("select reason from access_record where phase = 'progress'")
    assert [row["reason"] for row in said] == [f"approval/{approval}"]
    steps = await vault.pool.fetch(
        "select action, reason from access_record where action like 'approval.%'"
        " and phase = 'outcome' order by at"
    )
    assert [tuple(row) for row in steps] == [
        ("approval.request", f"hold.release {HOLD}"),
        ("approval.approve", f"hold.release {HOLD}"),
    ]


async def test_an_act_that_fails_leaves_the_approval_unused(vault: Vault) -> None:
    """The use is part of the act's transaction: rolled back with it, it is good as before."""
    approval = await ask(vault)
    await approve(vault, OTHER, approval)
    with pytest.raises(ZeroDivisionError):
        async with (
            recorded(vault, ONE, Action.DOCUMENT_SHRED, region="uk") as access,
            transaction(vault.pool) as conn,
        ):
            await use(access, conn, approval, Terms(Act.HOLD_RELEASE, HOLD, "uk"))
            raise ZeroDivisionError
    await act_on(vault, approval)


async def test_it_lapses(vault: Vault) -> None:
    """A request is approved in time, and an approval used in time, or not at all."""
    patience = timedelta(seconds=vault.config.approval_seconds)
    late = replace(vault, clock=lambda: vault.clock() + patience)
    approval = await ask(vault)
    with pytest.raises(ConflictError, match="lapsed"):
        await approve(late, OTHER, approval)
    await approve(vault, OTHER, approval)
    with pytest.raises(ConflictError, match="lapsed"):
        await act_on(late, approval)


async def test_the_database_knows_the_rule_too(vault: Vault) -> None:
    """A row in which one principal is both pairs of eyes cannot be written."""
    approval = await ask(vault)
    with pytest.raises(asyncpg.CheckViolationError):
        await vault.pool.execute(
            "update approval set approved_by = requested_by, approved_at = now() where id = $1",
            approval,
        )


async def test_the_terminal_asks_lists_and_agrees(vault_process: VaultProcess) -> None:
    """`portvault approval` does the same with the tokens of two people."""
    vault = vault_process
    one, other = await token_of(vault, "dpo"), await token_of(vault, "dpo", "dpo-2")
    request = ("approval", "request", "--act", "disclosure", "--subject", HOLD, "--region", "uk")
    read = ("--purpose", "disclose-to-authority", "--reference", "CASE-7")
    asked = await vault.json(*request, *read, "--reason", "court-order", **one)
    status, _, says = await vault.run("approval", "approve", asked["id"], **one)
    assert (status, one_line(says)) == (4, True)
    approved = await vault.json("approval", "approve", asked["id"], **other)
    assert approved["state"] == "approved"
    (listed,) = await vault.json("approval", "list", **one)
    assert listed["id"] == asked["id"]
