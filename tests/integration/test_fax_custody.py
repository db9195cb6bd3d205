"""How long a fax waits for its delivery is the retention policy's to say, and nothing else's."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from tests.fixtures_server import SAMPLES, serving
from tests.retention_house import ADMIN, COMPLIANCE, Clock, clocked
from vault.actions.approvals import approve, request_approval
from vault.actions.fax_delivery import describe_fax, expire_faxes, list_faxes
from vault.actions.fax_intake import Incoming, receive_fax
from vault.actions.policy import apply_policy, policy_effect
from vault.config.settings import Config, load_config
from vault.context import Vault
from vault.domain.access import Principal
from vault.domain.approvals import Act, Terms
from vault.errors import ConfigurationError, ForbiddenError

GATEWAY = Principal("gateway", "fax-gateway", frozenset({"uk"}))
LINE = 'keep_max = "P1D"'
SECOND = timedelta(seconds=1)


def waiting(text: str, days: int) -> str:
    """Return the policy with so many days for a fax that waits for its delivery."""
    assert text.count(LINE) == 1
    return text.replace(LINE, f'keep_max = "P{days}D"')


async def take(vault: Vault) -> UUID:
    """Take a fax that nobody delivers."""
    content = (SAMPLES / "fax-1p-g4.tif").read_bytes()
    incoming = Incoming(content, "inbound", None, "+442079460123", region="uk")
    return (await receive_fax(vault, GATEWAY, incoming)).id


async def shorten(vault: Vault, text: str) -> int:
    """Put a policy that shortens in force, by two people; returns its version."""
    subject = (await policy_effect(vault, ADMIN, text)).subject
    terms = Terms(Act.POLICY_SHORTEN, subject, vault.config.regions[0])
    asked = await request_approval(vault, ADMIN, terms, reason="law-changed")
    await approve(vault, COMPLIANCE, asked.id)
    version, _ = await apply_policy(vault, ADMIN, text, asked.id)
    return version


async def goes_at_its_limit(vault: Vault, clock: Clock, fax: UUID, limit: timedelta) -> None:
    """Assert that the fax is there at its limit and shredded past it, as was shown before."""
    seen = await describe_fax(vault, GATEWAY, fax)
    assert seen.expires_at == seen.fax.received_at + limit
    clock.now = seen.expires_at - SECOND
    assert await expire_faxes(vault, "uk") == 0
    assert (await describe_fax(vault, GATEWAY, fax)).fax.state == "received"
    clock.now = seen.expires_at + SECOND
    assert await expire_faxes(vault, "uk") == 1
    gone = await describe_fax(vault, GATEWAY, fax)
    assert (gone.fax.state, gone.expires_at) == ("expired", None)


async def test_the_policy_says_when_a_fax_goes(config: Config) -> None:
    """A longer time holds for a fax that came before it; a second person is not needed."""
    async with clocked(config) as (vault, clock):
        first = await take(vault)
        await goes_at_its_limit(vault, clock, first, timedelta(days=1))
        second = await take(vault)
        version, _ = await apply_policy(vault, ADMIN, waiting(vault.policy_text, 3), None)
        await goes_at_its_limit(vault, clock, second, timedelta(days=3))
        said = await vault.pool.fetch(
            "select document, reference from access_record "
            "where action = 'fax.expire' and phase = 'intent'"
        )
    assert {row["document"]: row["reference"] for row in said} == {
        first: f"policy/{version - 1}",
        second: f"policy/{version}",
    }


async def test_a_shorter_time_shows_its_effect_and_takes_four_eyes(config: Config) -> None:
    """How many faxes would go at once is said first; alone nobody shortens it; then they go."""
    async with clocked(config) as (vault, clock):
        await apply_policy(vault, ADMIN, waiting(vault.policy_text, 3), None)
        old = await take(vault)
        clock.forward(days=1, seconds=1)
        young = await take(vault)
        effect = await policy_effect(vault, ADMIN, vault.policy_text)
        assert (effect.shortens, effect.at_once) == (True, 1)
        assert effect.by_kind == {"fax in uk": 1}
        with pytest.raises(ForbiddenError, match="1 documents and faxes would go at once"):
            await apply_policy(vault, ADMIN, vault.policy_text, None)
        assert await expire_faxes(vault, "uk") == 0
        await shorten(vault, vault.policy_text)
        assert await expire_faxes(vault, "uk") == 1
        seen = await list_faxes(vault, GATEWAY, limit=10)
        assert {item.fax.id: item.fax.state.value for item in seen} == {
            old: "expired",
            young: "received",
        }


async def test_a_policy_that_comes_between_is_followed(config: Config) -> None:
    """A fax that is due by one policy stays where the next one, in force by then, keeps it."""
    async with clocked(config) as (vault, clock):
        fax = await take(vault)
        clock.forward(days=1, seconds=1)
        append = vault.recorder.append_many
        applied = list[int]()

        class Recorder:
            """The recorder, and somebody who puts a policy in force while it writes."""

            def __getattr__(self, name: str) -> Any:
                return getattr(recorder, name)

            async def append_many(self, records: Any) -> None:
                if not applied:
                    applied.append(0)
                    text = waiting(vault.policy_text, 3)
                    applied[0], _ = await apply_policy(vault, ADMIN, text, None)
                await append(records)

        recorder = vault.recorder
        between = replace(vault, recorder=Recorder())
        assert await expire_faxes(between, "uk") == 0
        assert applied == [2]
        assert (await describe_fax(vault, GATEWAY, fax)).fax.state == "received"


async def test_who_asks_is_shown_until_when_a_fax_waits(config: Config) -> None:
    """The API's list and answer say when a fax goes, and nothing of it once it has gone."""
    async with clocked(config) as (vault, _), serving(vault) as api:
        fax = await take(vault)
        _, shown, _ = await api.call("GET", f"/v1/faxes/{fax}", role="fax-gateway")
        _, page, _ = await api.call("GET", "/v1/faxes", role="fax-gateway")
        seen = await describe_fax(vault, GATEWAY, fax)
        assert seen.expires_at is not None
        assert shown["expires_at"] == page["data"][0]["expires_at"]
        assert shown["expires_at"].startswith(f"{seen.expires_at:%Y-%m-%dT%H:%M:%S}")


@pytest.mark.parametrize(
    "row, old, new, match",
    [
        ("fax-delivered", '"at once"', '"P1D"', "shredded when it is delivered"),
        ("fax-undelivered", '"P1D"', '"at once"', "waits for its delivery"),
    ],
)
async def test_what_the_vault_cannot_follow_is_refused(
    config: Config, row: str, old: str, new: str, match: str
) -> None:
    """A row that would keep what was delivered, or drop what has just come, names itself."""
    async with clocked(config) as (vault, _):
        head, name, rest = vault.policy_text.partition(f'name = "{row}"')
        text = head + name + rest.replace(f"keep_max = {old}", f"keep_max = {new}", 1)
        for ask in (policy_effect(vault, ADMIN, text), apply_policy(vault, ADMIN, text, None)):
            with pytest.raises(ConfigurationError, match=f"{row}.*{match}"):
                await ask
    (config.home / "retention.toml").write_text(text)
    with pytest.raises(ConfigurationError, match=f"{row}.*{match}"):
        async with clocked(config):
            pass


def test_the_setting_of_before_is_refused(tmp_path: Path) -> None:
    """Where it is still set, a variable or a line, one sentence says where it went."""
    said = "fax_custody_seconds_max"
    for name, environment in (
        (said, {}),
        (f"PORTVAULT_{said.upper()}", {f"PORTVAULT_{said.upper()}": "3600"}),
    ):
        (tmp_path / "portvault.toml").write_text("" if environment else f"{said} = 3600\n")
        with pytest.raises(ConfigurationError) as raised:
            load_config({"PORTVAULT_HOME": str(tmp_path), **environment})
        assert str(raised.value).startswith(f"{name} is no setting any more: the retention policy")
        assert "fax-undelivered" in str(raised.value)
