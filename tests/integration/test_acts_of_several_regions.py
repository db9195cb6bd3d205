"""An act that reaches several regions stands in the log of each, with the same reason."""

from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import asyncpg
import pytest

from tests.fixtures_server import OPERATOR, Api
from vault.actions.access import recorded
from vault.actions.credentials import create_token, revoke_token
from vault.actions.log_publish import sequence_log
from vault.actions.log_records import close_interrupted
from vault.context import Vault
from vault.domain.access import Action
from vault.domain.credentials import Grant
from vault.domain.people import named_person
from vault.errors import ForbiddenError, NotFoundError, RecordsUnavailableError
from vault.sql.session import SERVICE_ROLE

REGIONS = ("sg", "uk")
BOTH = Grant("compliance", frozenset(REGIONS))


async def logs(vault: Vault, action: str) -> list[tuple[list[tuple[str, str | None]], int]]:
    """Return what each region's log says of an act, and how many intents each outcome has."""
    found = []
    for region in REGIONS:
        rows = await vault.pool.fetch(
            "select phase, result, reason, id, intent from access_record"
            " where action = $1 and region = $2 order by at, phase",
            action,
            region,
        )
        said = [(row["phase"], row["reason"]) for row in rows]
        begun = {row["id"] for row in rows if row["phase"] == "intent"}
        found.append((said, len([row for row in rows if row["intent"] in begun])))
    return found


async def test_a_token_is_made_and_revoked_in_each_log(vault: Vault) -> None:
    """Each log says which token of which role it was."""
    token, _ = await create_token(vault, OPERATOR, BOTH, label="both")
    await revoke_token(vault, OPERATOR, token)
    for action, what in (
        ("token.create", f"compliance token:{token}"),
        ("token.revoke", f"token:{token}"),
    ):
        one, other = await logs(vault, action)
        assert one == other == ([("intent", "allowed"), ("outcome", what)], 1)


async def test_a_token_of_one_region_is_of_no_concern_to_another(vault: Vault) -> None:
    """What does not reach a region does not stand in its log; what is no token stands in one."""
    token, _ = await create_token(vault, OPERATOR, Grant("porting", frozenset({"sg"})), label="x")
    await revoke_token(vault, OPERATOR, token)
    with pytest.raises(NotFoundError):
        await revoke_token(vault, OPERATOR, UUID(int=7))
    singapore, kingdom = await logs(vault, "token.revoke")
    assert singapore == ([("intent", "allowed"), ("outcome", f"token:{token}")], 1)
    assert kingdom == ([("intent", "allowed"), ("outcome", "NotFoundError")], 1)


async def test_a_credential_is_sealed_and_opened_in_each_log(api: Api, vault: Vault) -> None:
    """With the agreement that it took, and published in both before its token exists."""
    for role, person in (("admin", "sealer"), ("dpo", "second")):
        grant = Grant(role, frozenset(REGIONS), person=named_person("", person))
        _, api.tokens[person] = await create_token(vault, OPERATOR, grant, label=person)
    asked = {"act": "break-glass", "subject": "dpo/sg/uk", "region": "sg", "reason": "yearly"}
    fields = asked | {"days": 1}
    _, approval, _ = await api.call("POST", "/v1/approvals", json=fields, role="sealer")
    path = f"/v1/approvals/{approval['id']}/actions/approve"
    assert (await api.call("POST", path, role="second"))[0] == 200
    made = {"role": "dpo", "regions": list(REGIONS), "days": 1, "approval": approval["id"]}
    status, sealed, _ = await api.call("POST", "/v1/break-glass", json=made, role="sealer")
    assert status == 201
    what, agreed = f"dpo break-glass:{sealed['id']}", f"approval/{approval['id']}"
    one, other = await logs(vault, "break-glass.seal")
    assert one == other
    assert one == ([("intent", "allowed"), ("progress", agreed), ("outcome", what)], 2)
    opening = {"credential": sealed["credential"], "reference": "INC-7"}
    async with api.session.post(api.url + "/v1/break-glass/actions/open", json=opening) as answer:
        assert answer.status == 201
    one, other = await logs(vault, "break-glass.open")
    assert one == other
    published = await vault.pool.fetch(
        "select l.region from log_leaf l join log_published p using (region)"
        " where l.action = 'break-glass.open' and l.index < p.size order by 1"
    )
    assert [row["region"] for row in published] == list(REGIONS)


async def test_a_refusal_stands_in_each_log(vault: Vault) -> None:
    """Whoever may not make one has tried it in both."""
    stranger = replace(OPERATOR, id="token:stranger", role="porting")
    with pytest.raises(ForbiddenError):
        await create_token(vault, stranger, BOTH, label="both")
    one, other = await logs(vault, "token.create")
    assert one == other == ([("intent", "role-may-not")], 0)


async def test_what_cannot_be_concluded_is_closed_in_each_log(
    vault: Vault, pool: asyncpg.Pool
) -> None:
    """The intents are durable at once or not at all; the worker ends both where nobody else can."""
    both = recorded(vault, OPERATOR, Action.TOKEN_CREATE, region=REGIONS)
    await pool.execute(f"revoke insert on access_record from {SERVICE_ROLE}")
    with pytest.raises(RecordsUnavailableError):
        await both.__aenter__()
    assert await logs(vault, "token.create") == [([], 0), ([], 0)]
    await pool.execute(f"grant insert on access_record to {SERVICE_ROLE}")
    async with recorded(vault, OPERATOR, Action.TOKEN_CREATE, region=REGIONS):
        await pool.execute(f"revoke insert on access_record from {SERVICE_ROLE}")
    await pool.execute(f"grant insert on access_record to {SERVICE_ROLE}")
    later = replace(vault, clock=lambda: vault.clock() + timedelta(hours=6))
    for region in REGIONS:
        assert await sequence_log(vault, region) == 1
        assert await close_interrupted(later, region) == 1
    one, other = await logs(vault, "token.create")
    assert one == other == ([("intent", "allowed"), ("outcome", None)], 1)
