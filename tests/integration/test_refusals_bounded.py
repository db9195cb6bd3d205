"""Refusals do not fill the log: past a limit they are 429, counted, and summed up in one record."""

import asyncio
from dataclasses import replace

import pytest

import vault.process.meter as refused_module
from tests.command_line import UNKNOWN
from tests.fixtures_server import OPERATOR, Api
from tests.integration.test_log import COMPLIANCE
from vault.actions.credentials import create_token
from vault.actions.log_publish import publish_log, sequence_log
from vault.actions.log_records import verify_region
from vault.app import open_vault
from vault.config.settings import Config
from vault.context import Vault
from vault.domain.access import Action
from vault.domain.credentials import Grant

PER_PRINCIPAL, PER_ADDRESS = 5, 12


@pytest.fixture
def config(config: Config) -> Config:
    """Give settings with limits that a test reaches."""
    return replace(
        config, refusals_per_minute_max=PER_PRINCIPAL, refusals_per_address_max=PER_ADDRESS
    )


async def refused(api: Api, role: str, times: int) -> list[int]:
    """Ask for what the role may not have."""
    path = f"/v1/documents/{UNKNOWN}/content"
    headers = {"Access-Purpose": "verify-identity"}
    return [(await api.call("GET", path, role=role, headers=headers))[0] for _ in range(times)]


async def denied(vault: Vault) -> list[str]:
    """Return the reasons of the refusals on record."""
    rows = await vault.pool.fetch(
        "select reason from access_record where decision = 'deny' order by at"
    )
    return [row["reason"] for row in rows]


async def test_at_the_limit_each_is_recorded_and_past_it_they_are_counted(
    api: Api, vault: Vault, passport: bytes
) -> None:
    """Five refusals are five records; twenty more are 429, and one record with their number."""
    assert await refused(api, "compliance", PER_PRINCIPAL) == [403] * PER_PRINCIPAL
    assert await denied(vault) == ["role-may-not"] * PER_PRINCIPAL
    assert await refused(api, "compliance", 20) == [429] * 20
    assert len(await denied(vault)) == PER_PRINCIPAL
    path = f"/v1/documents/{UNKNOWN}/content"
    status, problem, response = await api.call("GET", path, role="compliance")
    assert (status, problem["title"]) == (429, "Too many requests")
    assert 1 <= int(response.headers["Retry-After"]) <= 60
    await vault.refused.flush(float("inf"))
    assert (await denied(vault))[PER_PRINCIPAL:] == ["not-recorded-singly: 21"]
    (row,) = await vault.pool.fetch("select * from access_record where reason like 'not-recorded%'")
    assert (row["role"], row["action"], row["phase"]) == ("compliance", "document.read", "intent")
    # Nothing else waits for it: what is allowed, and others, go on.
    _, document = await api.put(await api.order(), passport)
    shown = await api.call("GET", f"/v1/documents/{document['id']}", role="compliance")
    assert shown[0] == 200
    assert await api.get(document["id"]) == (200, passport)
    await vault.refused.flush(float("inf"))
    assert len(await denied(vault)) == PER_PRINCIPAL + 1


async def test_an_address_has_a_limit_over_all_its_principals(api: Api, vault: Vault) -> None:
    """Many tokens of one host write no more than the host may."""
    answers = []
    for number in range(4):
        role = f"token-{number}"
        _, api.tokens[role] = await create_token(
            vault, OPERATOR, Grant("compliance", frozenset({"uk"})), label=role
        )
        answers += await refused(api, role, 4)
    assert answers == [403] * PER_ADDRESS + [429] * 4
    assert len(await denied(vault)) == PER_ADDRESS
    await vault.refused.flush(float("inf"))
    assert (await denied(vault))[PER_ADDRESS:] == ["not-recorded-singly: 4"]


async def test_a_new_minute_is_recorded_again(
    api: Api, vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the minute is over, refusals are recorded singly, and the sum by itself."""
    monkeypatch.setattr(refused_module, "WINDOW_SECONDS", 2.0)
    answers = await refused(api, "compliance", PER_PRINCIPAL + 1)
    assert answers[-1] == 429
    while "not-recorded-singly: 1" not in await denied(vault):
        await asyncio.sleep(0.1)
    assert await refused(api, "compliance", 1) == [403]


async def test_what_was_counted_is_recorded_when_the_process_ends(
    config: Config, api: Api, vault: Vault
) -> None:
    """A process that stops says how many it had not recorded; the log stays in order."""
    async with open_vault(config, dsn=config.database) as other:
        for _ in range(PER_PRINCIPAL + 3):
            other.refused.admit(COMPLIANCE, Action.LOG_READ, "uk")
    assert await denied(vault) == ["not-recorded-singly: 3"]
    await sequence_log(vault, "uk")
    await publish_log(vault, "uk")
    assert (await verify_region(vault, COMPLIANCE, "uk")).good


async def test_a_sum_that_is_being_recorded_when_the_process_ends_is_kept(
    config: Config, vault: Vault
) -> None:
    """Cancelled at any moment of its way, a sum is recorded once."""
    for turns in range(6):
        async with open_vault(config, dsn=config.database) as other:
            for _ in range(PER_PRINCIPAL + 1 + turns):
                other.refused.admit(COMPLIANCE, Action.LOG_READ, "uk")
            recording = asyncio.create_task(other.refused.flush(float("inf")))
            for _ in range(turns):
                await asyncio.sleep(0)
            recording.cancel()
            await asyncio.wait([recording])
    assert await denied(vault) == [f"not-recorded-singly: {1 + turns}" for turns in range(6)]


async def test_what_is_counted_is_bounded(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many principals are refused, the process remembers so many and no more."""
    monkeypatch.setattr(refused_module, "COUNTED_MAX", 10)
    for number in range(50):
        someone = replace(COMPLIANCE, id=f"token:{number}")
        assert vault.refused.admit(someone, Action.LOG_READ, "uk") is None
    assert len(vault.refused._windows) == 10
