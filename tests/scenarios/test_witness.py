"""A witness, who only remembers checkpoints, catches what no look into the database shows."""

import asyncio
import base64
import json
import shutil
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from keys.notes.note import Signer
from keys.notes.signing import own_key
from tests.access_records import append
from tests.fixtures_server import OPERATOR, Api, serving
from tests.tlog_client import open_checkpoint, open_cosignature
from vault.actions.keys import rotate_key
from vault.actions.log_publish import publish_log, sequence_log
from vault.actions.log_records import verify_region
from vault.commands import witness as command
from vault.commands.parser import make_parser
from vault.commands.witness import ALARM, AlarmError, Witness
from vault.context import Vault
from vault.domain.access import Principal
from vault.errors import ConfigurationError, ForbiddenError

COMPLIANCE = Principal("token:compliance", "compliance", frozenset({"uk"}))
TABLES = ("log_queue", "log_leaf", "log_checkpoint", "access_record", "log_published")


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Give the witness a directory on what stands for its own machine."""
    return tmp_path / "compliance"


@pytest.fixture
def watched(vault: Vault, state: Path) -> Vault:
    """Give the vault, told of the witness."""
    return replace(vault, config=replace(vault.config, witnesses=(Witness(state, "w").vkey,)))


@pytest.fixture
async def watched_api(watched: Vault) -> AsyncIterator[Api]:
    """Serve that vault."""
    async with serving(watched) as client:
        yield client


async def step(vault: Vault, number: int = 0) -> None:
    """Append so many records, order what waits, and publish it."""
    if number:
        await append(vault, number)
    await sequence_log(vault, "uk")
    await publish_log(vault, "uk")


async def look(
    api: Api, state: Path, monkeypatch: pytest.MonkeyPatch, *options: str, role: str = "witness"
) -> None:
    """Let the witness look once, as its command does."""
    monkeypatch.setenv("PORTVAULT_TOKEN", api.tokens[role])
    arguments = ["--server", api.url, "--region", "uk", "--state", str(state), "--once"]
    args = make_parser().parse_args(
        ["log", "witness", *arguments, "--name", "w", "--json", *options]
    )
    await command.witness(args)


async def rewrite(pool: asyncpg.Pool, vault: Vault) -> None:
    """Throw the whole log away, as who owns the database, the bucket and the key can."""
    async with pool.acquire() as conn:
        await conn.execute("set session_replication_role = replica")
        for table in TABLES:
            await conn.execute(f"delete from {table} where region = 'uk'")
        await conn.execute("set session_replication_role = default")
    shutil.rmtree(vault.config.home / "objects" / "uk" / "log")


async def anchored(vault: Vault) -> int | None:
    """Return up to which size the vault's own verdict is anchored."""
    verdict = await verify_region(vault, COMPLIANCE, "uk")
    assert verdict.good, verdict
    return verdict.anchored


async def test_what_follows_is_cosigned_and_counts(
    watched_api: Api, watched: Vault, state: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Each look cosigns what is new; the vault shows it, verifies it, and says how far it goes."""
    assert await anchored_after(watched, 3) == 0
    for _ in range(3):
        await step(watched, 40)
        await look(watched_api, state, monkeypatch)
        said = json.loads(capsys.readouterr().out)
        assert (said["region"], said["cosigned"]) == ("uk", True)
        assert await anchored(watched) == said["size"] == Witness(state, "w").size("uk")
        status, note, _ = await watched_api.call("GET", "/v1/log/uk/checkpoint?witnessed=true")
        assert status == 200
        size, _ = open_checkpoint(note.decode(), watched.signer.vkey, "portvault/uk")
        assert size == said["size"]
        assert open_cosignature(note.decode(), Witness(state, "w").vkey) > 1_700_000_000
    status, proof, _ = await watched_api.call("GET", "/v1/log/uk/inclusion?index=1&witnessed=true")
    assert (status, proof.decode().count("— w ")) == (200, 1)


async def anchored_after(vault: Vault, number: int) -> int | None:
    """Return how far the log is anchored once so many records more were published."""
    await step(vault, number)
    return await anchored(vault)


async def test_a_log_that_begins_anew_is_an_alarm(
    watched_api: Api,
    watched: Vault,
    pool: asyncpg.Pool,
    state: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rewritten whole and signed by its own key, shorter, as long or longer: it is caught."""
    await step(watched, 50)
    await look(watched_api, state, monkeypatch)
    size = Witness(state, "w").size("uk")
    for number, what in ((10, "shorter"), (size, "two histories"), (size + 40, "no prefix")):
        for alarm in state.glob("ALARM-*"):
            alarm.unlink()
        await rewrite(pool, watched)
        await step(watched, number)
        with pytest.raises(AlarmError, match=what) as caught:
            await look(watched_api, state, monkeypatch)
        assert caught.value.exit_status == ALARM
        (evidence,) = state.glob("ALARM-uk-*")
        assert evidence.read_text().count("portvault/uk\n") == 2
        assert Witness(state, "w").size("uk") == size


async def test_after_an_alarm_nothing_is_cosigned(
    watched_api: Api,
    watched: Vault,
    pool: asyncpg.Pool,
    state: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also when the true log is shown again, until a person has taken the evidence away."""
    await step(watched, 50)
    await look(watched_api, state, monkeypatch)
    log = watched.config.home / "objects" / "uk" / "log"
    shutil.copytree(log, state.parent / "kept")
    async with pool.acquire() as conn:
        for table in TABLES:
            await conn.execute(f"create table kept_{table} as select * from {table}")
        await rewrite(pool, watched)
        await step(watched, 5)
        with pytest.raises(AlarmError, match="shorter"):
            await look(watched_api, state, monkeypatch)
        await rewrite(pool, watched)
        await conn.execute("set session_replication_role = replica")
        for table in TABLES:
            overriding = "overriding system value" if table == "log_queue" else ""
            await conn.execute(
                f"insert into {table} {overriding} select * from kept_{table} where region = 'uk'"
            )
        await conn.execute("set session_replication_role = default")
    shutil.copytree(state.parent / "kept", log)
    await step(watched, 5)
    with pytest.raises(AlarmError, match="remove it"):
        await look(watched_api, state, monkeypatch)
    for alarm in state.glob("ALARM-*"):
        alarm.unlink()
    await look(watched_api, state, monkeypatch)
    assert await anchored(watched) == Witness(state, "w").size("uk")


async def test_a_split_view_is_caught_when_both_sides_meet(
    watched_api: Api,
    watched: Vault,
    pool: asyncpg.Pool,
    state: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two witnesses are shown two histories; each that is shown the other's raises the alarm."""
    other = tmp_path / "regulator"
    await step(watched, 30)
    await look(watched_api, state, monkeypatch)
    first = json.loads((state / "uk.json").read_text())["note"]
    await rewrite(pool, watched)
    await step(watched, 60)
    Witness(other, "w")
    shutil.copy(state / "witness.key", other / "witness.key")
    await look(watched_api, other, monkeypatch)
    second = json.loads((other / "uk.json").read_text())["note"]
    for directory, note in ((state, second), (other, first)):
        with pytest.raises(AlarmError):
            Witness(directory, "w").see("uk", note, [], [], 0)


async def test_a_change_of_key_is_followed_and_a_stranger_is_not(
    watched_api: Api, watched: Vault, state: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The key that was trusted leads to its successor; another log's key is an alarm."""
    await step(watched, 5)
    key = tmp_path / "key"
    key.write_text(watched.signer.vkey)
    await look(watched_api, state, monkeypatch, "--key", str(key))
    await rotate_key(watched, OPERATOR)
    await rotate_key(watched, OPERATOR, finish=True)
    await step(watched, 5)
    await look(watched_api, state, monkeypatch, "--key", str(key))
    await look(watched_api, state, monkeypatch, "--key", watched.signer.vkey)
    stranger = Signer("portvault", own_key(tmp_path / "stranger.key")).vkey
    with pytest.raises(ConfigurationError, match="another key"):
        await look(watched_api, state, monkeypatch, "--key", stranger)
    assert json.loads((state / "uk.json").read_text())["key"] == watched.signer.vkey
    text = f"portvault/uk\n{10**6}\n{base64.b64encode(bytes(32)).decode()}\n"
    note = Signer("portvault", own_key(tmp_path / "stranger.key")).sign(text)
    with pytest.raises(AlarmError, match="not signed"):
        Witness(state, "w").see("uk", note, watched.signer.handovers, [], 0)


def test_a_witness_keeps_its_name(state: Path) -> None:
    """Its public key is known under the name of the first start, also when that is not repeated."""
    first = Witness(state, "compliance.example")
    assert Witness(state).vkey == Witness(state, "compliance.example").vkey == first.vkey
    with pytest.raises(ConfigurationError, match="compliance.example"):
        Witness(state, "other")


async def test_only_a_known_witness_is_heard(
    api: Api, vault: Vault, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a stranger says of the log is refused, and so is who may not cosign."""
    await step(vault, 5)
    with pytest.raises(ForbiddenError):
        await look(api, state, monkeypatch)
    for body, role, status in (
        ({"size": 1, "cosignature": "— w AAAA\n"}, "porting", 403),
        ({"size": 10**6, "cosignature": "— w AAAA\n"}, "compliance", 404),
        ({"size": 0, "cosignature": "— w AAAA\n"}, "compliance", 422),
        ({"size": True, "cosignature": "— w AAAA\n"}, "compliance", 422),
        ({"size": 1, "cosignature": "two\nlines\n"}, "compliance", 422),
        ({"size": 1}, "compliance", 422),
    ):
        found, _, _ = await api.call("POST", "/v1/log/uk/cosignatures", json=body, role=role)
        assert found == status, body


async def test_a_witness_goes_on_while_the_vault_is_away(
    watched_api: Api, state: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Nothing answers: it says so and looks again; asked to look once, it fails."""
    monkeypatch.setenv("PORTVAULT_TOKEN", watched_api.tokens["compliance"])
    arguments = ["--server", "http://127.0.0.1:1", "--region", "uk", "--state", str(state)]
    args = make_parser().parse_args(["log", "witness", *arguments, "--interval", "0.01"])
    task = asyncio.create_task(command.witness(args))
    said = ""
    while said.count("nothing answers") < 3:
        await asyncio.sleep(0.02)
        said += capsys.readouterr().err
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_key_that_was_stolen_is_followed_nowhere(
    watched_api: Api, watched: Vault, state: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The witness shouts, and takes the new key only from a person, once; then it goes on."""
    await step(watched, 5)
    await look(watched_api, state, monkeypatch)
    new = await rotate_key(watched, OPERATOR, stolen=True)
    await step(watched, 5)
    with pytest.raises(AlarmError, match="stolen"):
        await look(watched_api, state, monkeypatch)
    for path in state.glob("ALARM-*"):
        path.unlink()
    with pytest.raises(AlarmError, match="stolen"):
        await look(watched_api, state, monkeypatch)
    for path in state.glob("ALARM-*"):
        path.unlink()
    key = tmp_path / "key"
    key.write_text(new)
    await look(watched_api, state, monkeypatch, "--key", str(key))
    await step(watched, 5)
    await look(watched_api, state, monkeypatch)


async def test_what_the_retired_key_signs_later_is_an_alarm(
    watched_api: Api, watched: Vault, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log goes on honestly, and one checkpoint of it is signed by the old key alone."""
    retired = Signer("portvault", own_key(watched.signer._path))
    await step(watched, 5)
    await look(watched_api, state, monkeypatch)
    await rotate_key(watched, OPERATOR)
    await rotate_key(watched, OPERATOR, finish=True)
    await step(watched, 5)
    # Whoever holds the old key and the database has the log go on under the old key.
    signers = watched.signer._signers
    monkeypatch.setattr(watched.signer, "_signers", [retired])
    await step(watched, 5)
    monkeypatch.setattr(watched.signer, "_signers", signers)
    with pytest.raises(AlarmError, match="not signed"):
        await look(watched_api, state, monkeypatch)
    verdict = await verify_region(watched, COMPLIANCE, "uk")
    assert (verdict.intact, "ceased to sign" in verdict.findings[0]) == (False, True)
