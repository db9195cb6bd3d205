"""Break-glass: sealed by two, opened once, loudly, for an hour."""

import asyncio
import logging
import stat
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from tests.command_line import UNKNOWN, one_line, token_of
from tests.fixtures_process import VaultProcess
from tests.fixtures_server import OPERATOR, Api
from vault.actions.credentials import create_token, open_envelope
from vault.context import Vault
from vault.domain.credentials import Grant
from vault.errors import ForbiddenError

OPEN = "/v1/break-glass/actions/open"
REQUEST = {"act": "break-glass", "reason": "yearly", "days": 1}


async def sealed(api: Api, role: str = "compliance", *, agreed: bool = True) -> tuple[int, dict]:
    """Ask for a credential as the administrator, have it agreed to, and seal it."""
    fields = REQUEST | {"subject": f"{role}/uk", "region": "uk", "days": 365}
    _, asked, _ = await api.call("POST", "/v1/approvals", json=fields, role="admin")
    if agreed:
        path = f"/v1/approvals/{asked['id']}/actions/approve"
        assert (await api.call("POST", path, role="dpo"))[0] == 200
    made = {"role": role, "regions": ["uk"], "days": 365, "approval": asked["id"]}
    status, body, _ = await api.call("POST", "/v1/break-glass", json=made, role="admin")
    return status, body


async def opened(api: Api, credential: str, reference: str = "INC-7") -> tuple[int, dict]:
    """Open it, as somebody who has nothing else."""
    fields = {"credential": credential, "reference": reference}
    async with api.session.post(api.url + OPEN, json=fields) as response:
        return response.status, await response.json(content_type=None)


async def test_it_opens_once_and_everybody_is_told(
    api: Api, vault: Vault, caplog: pytest.LogCaptureFixture
) -> None:
    """It gives a token of its role, a published record and an alarm; then it is nothing."""
    status, made = await sealed(api)
    assert status == 201
    with caplog.at_level(logging.CRITICAL):
        status, got = await opened(api, made["credential"])
    assert status == 201
    assert "BREAK-GLASS" in caplog.text
    assert made["credential"] not in caplog.text
    assert got["token"] not in caplog.text
    api.tokens["broken"] = got["token"]
    path = "/v1/access-records?region=uk&action=break-glass.open"
    _, page, _ = await api.call("GET", path, role="broken")
    (intent,) = [row for row in page["data"] if row["phase"] == "intent"]
    assert intent["principal"] == f"break-glass:{made['id']}"
    assert intent["reference"] == "INC-7"
    assert (await api.call("GET", "/v1/orders", role="broken"))[0] == 403
    assert (await opened(api, made["credential"]))[0] == 403
    async with api.session.get(api.url + "/metrics") as answer:
        assert 'level="break-glass"} 1.0' in await answer.text()
    kept = repr(await vault.pool.fetch("select * from break_glass"))
    assert made["credential"] not in kept


async def test_nobody_seals_one_alone(api: Api) -> None:
    """Without the agreement of another, or with one for another role, none is made."""
    assert (await sealed(api, agreed=False))[0] == 403
    fields = REQUEST | {"subject": "dpo/uk", "region": "uk"}
    _, asked, _ = await api.call("POST", "/v1/approvals", json=fields, role="admin")
    await api.call("POST", f"/v1/approvals/{asked['id']}/actions/approve", role="compliance")
    other = {"role": "porting", "regions": ["uk"], "days": 1, "approval": asked["id"]}
    assert (await api.call("POST", "/v1/break-glass", json=other, role="admin"))[0] == 403


async def test_an_agreement_is_of_its_regions_alone(api: Api) -> None:
    """Who agreed to a role in Singapore did not agree to the same role in the UK, too."""
    fields = REQUEST | {"subject": "dpo/sg", "region": "sg"}
    _, asked, _ = await api.call("POST", "/v1/approvals", json=fields, role="admin")
    path = f"/v1/approvals/{asked['id']}/actions/approve"
    assert (await api.call("POST", path, role="compliance"))[0] == 200
    made = {"role": "dpo", "regions": ["uk", "sg"], "days": 1, "approval": asked["id"]}
    assert (await api.call("POST", "/v1/break-glass", json=made, role="admin"))[0] == 403
    made["regions"] = ["sg"]
    assert (await api.call("POST", "/v1/break-glass", json=made, role="admin"))[0] == 201


async def test_it_reaches_no_further_than_who_sealed_it(api: Api, vault: Vault) -> None:
    """An administrator of Singapore seals none that reaches the UK, too."""
    grant = Grant("admin", frozenset({"sg"}))
    _, api.tokens["admin"] = await create_token(vault, OPERATOR, grant, label="sg")
    asked = {"role": "dpo", "regions": ["sg", "uk"], "days": 1, "approval": UNKNOWN}
    assert (await api.call("POST", "/v1/break-glass", json=asked, role="admin"))[0] == 403


@pytest.mark.parametrize("reference", ["", "Jane Doe", "x" * 80])
async def test_it_opens_for_a_case_only(api: Api, reference: str) -> None:
    """Who opens it says for which incident, by its number; it stays sealed otherwise."""
    _, made = await sealed(api)
    assert (await opened(api, made["credential"], reference))[0] == 422
    assert (await opened(api, made["credential"]))[0] == 201


async def test_of_two_at_once_one_opens_it(api: Api, vault: Vault) -> None:
    """However many try in the same moment, there is one token."""
    _, made = await sealed(api)
    answers = await asyncio.gather(*(opened(api, made["credential"]) for _ in range(3)))
    assert sorted(status for status, _ in answers) == [201, 403, 403]
    assert await vault.pool.fetchval("select count(*) from token where label = 'break-glass'") == 1


async def test_it_and_its_token_expire(api: Api, vault: Vault) -> None:
    """After its days it opens nothing, and its token is good for an hour."""
    _, made = await sealed(api)
    late = replace(vault, clock=lambda: vault.clock() + timedelta(days=366))
    with pytest.raises(ForbiddenError):
        await open_envelope(late, made["credential"], "INC-7")
    await opened(api, made["credential"])
    hours = "select expires_at - created_at from token where label = 'break-glass'"
    assert await vault.pool.fetchval(hours) == timedelta(hours=1)


async def test_the_envelope_is_opened_at_the_terminal(
    vault_process: VaultProcess, tmp_path: Path
) -> None:
    """The credential comes from a file and no argument; a second time the command says no."""
    vault = vault_process
    admin, dpo = await token_of(vault, "admin"), await token_of(vault, "dpo")
    request = ("approval", "request", "--act", "break-glass", "--subject", "porting/uk")
    asked = await vault.json(
        *request, "--region", "uk", "--reason", "yearly", "--days", "9", **admin
    )
    await vault.json("approval", "approve", asked["id"], **dpo)
    seal = ("break-glass", "seal", "--role", "porting", "--region", "uk", "--days", "9")
    made = await vault.json(*seal, "--approval", asked["id"], **admin)
    envelope = tmp_path / "envelope"
    envelope.write_text(made["credential"] + "\n")
    envelope.chmod(stat.S_IRUSR)
    command = ("break-glass", "open", "--credential-file", str(envelope), "--reference", "INC-7")
    token = (await vault.json(*command))["token"]
    assert await vault.json("order", "list", PORTVAULT_TOKEN=token) == []
    status, _, says = await vault.run(*command)
    assert (status, one_line(says)) == (4, True)
