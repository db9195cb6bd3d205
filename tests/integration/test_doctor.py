"""`portvault doctor`: each broken part is found, said with what to do, and hides no other."""

import asyncio
import json
import shutil
import socket
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import asyncpg
import pytest

from tests.fixtures_custodians import Token
from tests.fixtures_postgres import as_service
from tests.fixtures_process import VaultProcess
from vault.app import login
from vault.commands.doctor import Finding, ask_state, check_custodian, settled
from vault.commands.doctor_looks import Known, check_store
from vault.config.settings import Config
from vault.context import Vault
from vault.errors import ConfigurationError

PARTS = {"home", "database", "descriptors", "libmagic", "policy", "store uk", "custodian uk"}
#: What is looked at only where the database is there and migrated, or told where it is wrong.
MAYBE = {"at rest", "log uk", "seal uk", "expiry uk", "queues uk", "serving"}

LESS = (
    "the database knows less than the bucket of uk: stop every server, then "
    "`portvault restore FILE --dry-run`"
)


@pytest.fixture
async def made(tmp_path: Path, database: str) -> VaultProcess:
    """Give a vault that has served once, on a database of its own, and does not run now."""
    vault = VaultProcess(tmp_path / "home", database=as_service(database), database_owner=database)
    vault.home.mkdir(mode=0o700)
    await vault.json("keys", "status")
    return vault


async def examine(vault: VaultProcess, **variables: str) -> tuple[int, dict[str, str], str]:
    """Run the doctor; return its status, each part's verdict, and all it says."""
    status, out, says = await vault.run("doctor", "--json", **variables)
    found = json.loads(out)
    assert {row["check"] for row in found} - MAYBE == PARTS
    assert "Traceback" not in says
    return status, {row["check"]: row["verdict"] for row in found}, out + says


def failed(verdicts: dict[str, str]) -> set[str]:
    """Return the parts that failed."""
    return {name for name, verdict in verdicts.items() if verdict == "fail"}


async def test_a_sound_vault(made: VaultProcess) -> None:
    """Nothing fails; what a file custodian's destruction is worth is a warning that says it."""
    status, verdicts, says = await examine(made)
    assert (status, failed(verdicts)) == (0, set())
    assert verdicts["custodian uk"] == "warn"
    assert "overwritten and unlinked" in says
    status, out, _ = await made.run("doctor")
    assert (status, out.splitlines()[0].split()) == (0, ["verdict", "check", "detail"])


async def test_a_vault_that_nothing_serves_is_said_to_be(made: VaultProcess, database: str) -> None:
    """Where no process runs, killed or stopped, a line says so with the last look; none fails."""
    conn = await asyncpg.connect(database)
    looks = "insert into expiry_clock (region, seen_at) values ('uk', now() - interval '1 hour')"
    await conn.execute(f"{looks} on conflict (region) do update set seen_at = excluded.seen_at")
    status, verdicts, says = await examine(made)
    assert (status, verdicts["serving"]) == (0, "warn")
    assert "no process of this vault is connected" in says
    assert "a worker last looked at 20" in says
    await conn.execute("update expiry_clock set seen_at = now()")
    await conn.close()
    _, verdicts, says = await examine(made)
    assert verdicts["serving"] == "ok"


async def test_before_the_first_start_it_makes_no_home(tmp_path: Path) -> None:
    """On a fresh machine nothing fails, and looking leaves no home behind."""
    vault = VaultProcess(tmp_path / "home")
    status, verdicts, says = await examine(vault)
    assert (status, failed(verdicts)) == (0, set())
    assert "portvault serve" in says
    assert not vault.home.exists()


async def test_a_database_that_is_away(made: VaultProcess) -> None:
    """A refused connection and one that nobody answers fail alone, within their time."""
    away = "postgresql://x@127.0.0.1:1/x"
    status, verdicts, says = await examine(made, PORTVAULT_DATABASE=away)
    assert (status, failed(verdicts)) == (1, {"database"})
    assert "PORTVAULT_DATABASE" in says
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"postgresql://x@127.0.0.1:{silent.getsockname()[1]}/x"
        limits = {"PORTVAULT_DATABASE": address, "PORTVAULT_DATABASE_TIMEOUT_SECONDS": "1"}
        _, verdicts, _ = await examine(made, **limits)
    assert failed(verdicts) == {"database"}


async def test_a_database_that_lets_nobody_in_or_is_no_address(made: VaultProcess) -> None:
    """A database that does not exist and an address that is none are the operator's to mend."""
    address = made.environment["PORTVAULT_DATABASE"]
    for wrong in (address.replace("/test_", "/none_"), "postgresql://h:port/x", "mysql://x"):
        status, verdicts, _ = await examine(made, PORTVAULT_DATABASE=wrong)
        assert wrong != address
        assert (status, failed(verdicts)) == (1, {"database"}), wrong


async def test_an_account_that_owns_the_database(made: VaultProcess) -> None:
    """A vault that logs in as a superuser works, and is never called sound."""
    owner = made.environment["PORTVAULT_DATABASE_OWNER"]
    status, verdicts, says = await examine(made, PORTVAULT_DATABASE=owner)
    assert (status, failed(verdicts)) == (1, {"database"})
    for word in ("superuser", "create role", "PORTVAULT_DATABASE_OWNER"):
        assert word in says


async def test_migrations_that_wait(tmp_path: Path, made: VaultProcess) -> None:
    """A schema that is behind this release is a warning that names the command."""
    conn = await asyncpg.connect(made.environment["PORTVAULT_DATABASE_OWNER"])
    try:
        await conn.execute("drop schema public cascade")
        await conn.execute("create schema public")
    finally:
        await conn.close()
    _, verdicts, says = await examine(made)
    assert verdicts["database"] == "warn"
    assert "portvault migrate" in says
    status, out, _ = await made.run("migrate", "--json")
    assert (status, len(json.loads(out)["applied"]) > 0) == (0, True)
    _, verdicts, _ = await examine(made)
    assert verdicts["database"] == "ok"


@pytest.mark.parametrize("place, parts", [("home", {"home"}), ("home-keys", {"home"})])
async def test_what_others_may_enter(made: VaultProcess, place: str, parts: set[str]) -> None:
    """A home or a key directory that is not 0700 fails, with the command that mends it."""
    path = made.home.with_name(place)
    path.chmod(0o755)
    status, verdicts, says = await examine(made)
    assert (status, failed(verdicts) >= parts) == (1, True)
    assert f"chmod 700 {path}" in says


#: Runs the program under a filter by which the kernel has no Landlock: 444 is ENOSYS.
WITHOUT_LANDLOCK = """
import ctypes, os, struct, sys
end = (0x06, 0, 0, 0x7FFF0000)
rules = [(0x20, 0, 0, 0), (0x15, 0, 1, 444), (0x06, 0, 0, 0x00050000 | 38), end]
code = b"".join(struct.pack("HBBI", *rule) for rule in rules)
held = ctypes.create_string_buffer(code)
program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(rules), ctypes.addressof(held)))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, program) == 0
os.execv(sys.executable, [sys.executable, "-m", "vault.cli", *sys.argv[1:]])
"""


async def test_a_kernel_without_landlock(tmp_path: Path) -> None:
    """Where nothing confines the embedded PostgreSQL the doctor says so, and what to do."""
    vault = VaultProcess(tmp_path / "home")
    await vault.json("keys", "status")
    said = {}
    for way in (["-m", "vault.cli"], ["-c", WITHOUT_LANDLOCK]):
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *(*way, "doctor", "--json"),
            env=vault.environment,
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await process.communicate()
        rows = {row["check"]: row for row in json.loads(out)}
        said[way[0]] = rows["database"]["detail"]
        assert rows["database"]["verdict"] in {"ok", "warn"}
    assert "Landlock" not in said["-m"]
    assert "the kernel has no Landlock" in said["-c"]
    assert "use a kernel of 5.13 or later" in said["-c"]


async def test_a_store_that_cannot_be_written(made: VaultProcess, tmp_path: Path) -> None:
    """A store whose place is a file fails alone."""
    (tmp_path / "file").touch()
    objects = {"PORTVAULT_OBJECTS": f"dir:{tmp_path}/file/{{region}}"}
    status, verdicts, _ = await examine(made, **objects)
    assert (status, failed(verdicts)) == (1, {"store uk"})


async def test_a_store_of_the_network_that_is_away(made: VaultProcess) -> None:
    """An S3 server that does not answer fails alone, within its time."""
    s3 = {
        "PORTVAULT_OBJECTS": "s3+http://127.0.0.1:1/bucket-{region}",
        "PORTVAULT_STORE_TIMEOUT_SECONDS": "2",
        "PORTVAULT_S3_ACCESS_KEY": "access",
        "PORTVAULT_S3_SECRET_KEY": "not-to-be-shown",
    }
    status, verdicts, says = await examine(made, **s3)
    assert (status, failed(verdicts)) == (1, {"store uk"})
    assert "not-to-be-shown" not in says


async def test_a_custodian_without_the_regions_keys(made: VaultProcess) -> None:
    """Root keys that are gone, as when their disk is not mounted, are noticed."""
    shutil.rmtree(made.home.with_name("home-keys"))
    status, verdicts, says = await examine(made)
    assert (status, failed(verdicts)) == (1, {"custodian uk"})
    assert "bring its keys back" in says


async def test_a_custodian_that_is_none(made: VaultProcess) -> None:
    """An unknown custodian fails alone, and the known ones are named."""
    status, verdicts, says = await examine(made, PORTVAULT_CUSTODIAN="vault:somewhere")
    assert (status, failed(verdicts)) == (1, {"custodian uk"})
    assert "file:" in says


@pytest.mark.parametrize(
    "there, wrong, says",
    [
        ("", "", "has no root key of generation 1"),
        ("token=portvault", "token=harbour", "harbour"),
        ("libsofthsm2", "libnothing", "libnothing"),
        ("pin-source=", "pin-value=", "pin-source"),
    ],
)
async def test_a_token_that_is_not_the_vaults(
    made: VaultProcess, token: Token, there: str, wrong: str, says: str
) -> None:
    """An empty token, one that is not there, no library, a PIN in the address: each says so."""
    address = token.address.replace(there, wrong)
    variables = {"SOFTHSM2_CONF": str(token.configuration), "PORTVAULT_CUSTODIAN": address}
    status, verdicts, said = await examine(made, **variables)
    assert (status, failed(verdicts)) == (1, {"custodian uk"})
    assert says in said


async def test_a_token_with_another_pin(made: VaultProcess, token: Token) -> None:
    """A refused PIN is named as such, and not shown."""
    token.write_pin("975310")
    variables = {"SOFTHSM2_CONF": str(token.configuration), "PORTVAULT_CUSTODIAN": token.address}
    status, verdicts, said = await examine(made, **variables)
    assert (status, failed(verdicts)) == (1, {"custodian uk"})
    assert "PIN" in said
    assert "975310" not in said


async def test_a_key_server_that_nobody_answers_for(made: VaultProcess, tmp_path: Path) -> None:
    """A transit server that is away fails alone, within its time, and says what to look at."""
    secret = tmp_path / "token"
    secret.touch(mode=0o600)
    secret.write_text("s.none")
    address = f"transit:http://127.0.0.1:1/transit?token-file={secret}"
    status, verdicts, said = await examine(made, PORTVAULT_CUSTODIAN=address)
    assert (status, failed(verdicts)) == (1, {"custodian uk"})
    assert "see that it runs" in said


async def test_a_policy_that_contradicts_itself(made: VaultProcess) -> None:
    """The operator's own policy is read as the start would read it."""
    (made.home / "retention.toml").write_text("nonsense = true\n")
    status, verdicts, _ = await examine(made)
    assert (status, failed(verdicts)) == (1, {"policy"})


async def test_everything_at_once(made: VaultProcess) -> None:
    """Many broken parts are all found in one run, and named at the end."""
    made.home.chmod(0o750)
    broken = {
        "PORTVAULT_DATABASE": "postgresql://x@127.0.0.1:1/x",
        "PORTVAULT_CUSTODIAN": "vault:somewhere",
        "PORTVAULT_OBJECTS": "s3+http://127.0.0.1:1/bucket-{region}",
        "PORTVAULT_STORE_TIMEOUT_SECONDS": "2",
    }
    status, verdicts, says = await examine(made, **broken)
    parts = {"home", "database", "store uk", "custodian uk"}
    assert (status, failed(verdicts)) == (1, parts)
    last = says.splitlines()[-1]
    assert last.startswith("portvault: ")
    assert all(part in last for part in parts)


async def test_a_seal_that_is_overdue(made: VaultProcess, database: str) -> None:
    """What waits too long for its seal fails alone, and says what to do."""
    conn = await asyncpg.connect(database)
    await conn.execute(
        "insert into key_dirty (region, scope, since) "
        "values ('uk', gen_random_uuid(), now() - interval '1 hour')"
    )
    await conn.close()
    status, verdicts, says = await examine(made)
    assert (status, failed(verdicts)) == (1, {"seal uk"})
    assert "keys seal --region uk" in says


async def test_what_goes_by_its_time_stopped(made: VaultProcess, database: str) -> None:
    """It fails alone, and says who has to agree to what."""
    conn = await asyncpg.connect(database)
    await conn.execute(
        "insert into expiry_clock (region, seen_at) values ('uk', now() - interval '8 days')"
        " on conflict (region) do update set seen_at = excluded.seen_at"
    )
    status, verdicts, says = await examine(made)
    assert (status, failed(verdicts)) == (1, {"expiry uk"})
    assert "8 days after the worker last looked at uk" in says
    assert "have two people agree to expiry.resume of" in says
    await conn.execute("update expiry_clock set agreed_until = now() + interval '1 hour'")
    await conn.close()
    status, verdicts, _ = await examine(made)
    assert (status, failed(verdicts)) == (0, set())


async def test_objects_that_do_not_verify(made: VaultProcess) -> None:
    """Whatever claims to be the vault's in its bucket and is not, is named; nothing fails."""
    names = [
        "log/checkpoint-00000000009999999999",
        "log/minimum-00000000009999999999",
        "keys/00000000009999999999-0badf00d",
    ]
    objects = made.home / "objects" / "uk"
    for name in names:
        (objects / name).parent.mkdir(exist_ok=True)
        (objects / name).write_text("junk")
    status, verdicts, says = await examine(made)
    assert (status, failed(verdicts)) == (0, set())
    assert verdicts["store uk"] == "warn"
    assert all(name in says for name in names)


async def test_what_is_not_the_store_is_left_as_it_is(config: Config, tmp_path: Path) -> None:
    """An empty mount point is refused before anything is written there."""
    place = tmp_path / "mount"
    place.mkdir()
    elsewhere = replace(config, objects=f"dir:{place}")
    with pytest.raises(ConfigurationError, match="mounted"):
        await check_store(elsewhere, "uk", Known(stores={"uk": "a" * 32}))
    assert list(place.iterdir()) == []


async def test_a_store_whose_disk_is_not_mounted(made: VaultProcess) -> None:
    """Nothing makes a directory there or writes into one, and nothing is called missing or lost."""
    objects, away = made.home / "objects", made.home / "away"
    objects.rename(away)
    no_database = {"PORTVAULT_DATABASE": "postgresql://x@127.0.0.1:1/x"}
    for empty in (False, True):
        if empty:
            (objects / "uk").mkdir(parents=True)
        before = sorted(made.home.rglob("*"))
        for variables in ({}, no_database):
            _, verdicts, says = await examine(made, **variables)
            assert variables or failed(verdicts) == {"store uk"}
            assert verdicts["store uk"] == ("warn" if variables and empty else "fail")
            assert verdicts.get("at rest", "warn") == "warn"
            assert "mounted" in says
            assert "missing" not in says
        for command in ("repair --dry-run", "keys verify", "restore --dry-run"):
            status, out, says = await made.run(*command.split())
            assert status == 1, command
            assert "mounted" in says
            assert "missing" not in out + says
        assert sorted(made.home.rglob("*")) == before
    shutil.rmtree(objects)
    away.rename(objects)
    status, verdicts, _ = await examine(made)
    assert (status, failed(verdicts)) == (0, set())


async def test_a_seal_in_between_is_no_alarm(vault: Vault) -> None:
    """What the custodian and the bucket know by then is held against the database of then."""
    known, config = Known(), vault.config
    checks = {
        "custodian uk": partial(check_custodian, config, "uk", known),
        "store uk": partial(check_store, config, "uk", known),
    }
    conn = await asyncpg.connect(login(config))
    await ask_state(config, conn, known)
    await conn.close()
    await vault.keyring.seal("uk", force=True)
    for name, check in checks.items():
        before = Finding(name, *await check())
        assert before.verdict == "fail"
        kept = replace(known, trees={**known.trees}, mirrors={**known.mirrors})
        again = {"custodian uk": check_custodian, "store uk": check_store}[name]
        found = await settled(config, kept, before, partial(again, config, "uk", kept))
        assert found.verdict != "fail", found


async def test_a_database_that_was_lost_or_a_bucket_that_lost_its_checkpoint(
    made: VaultProcess, database: str
) -> None:
    """Each fails alone and names the command; so does a start with a database that is empty."""
    await made.json("keys", "seal", "--force")
    (checkpoint,) = (made.home / "objects/uk/log").glob("checkpoint-*")
    kept = checkpoint.read_bytes()
    checkpoint.write_bytes(kept[:-1])
    status, verdicts, says = await examine(made)
    assert (status, failed(verdicts)) == (1, {"store uk"})
    assert "`portvault repair --region uk` writes it anew" in says
    checkpoint.write_bytes(kept)
    status, _, says = await made.run("backup", "/nowhere/x.dump")
    assert (status, says) == (1, "portvault: /nowhere/x.dump: No such file or directory\n")
    conn = await asyncpg.connect(database)
    await conn.execute("drop schema public cascade")
    await conn.execute("create schema public")
    await conn.close()
    for _ in range(2):
        status, verdicts, says = await examine(made)
        assert (status, failed(verdicts)) == (1, {"store uk", "custodian uk"})
        assert LESS in says
        assert "is the database's disk mounted" in says
        status, _, says = await made.run("keys", "status")
        assert (status, LESS in says) == (1, True)
    status, _, says = await made.run("restore", "--dry-run")
    assert (status, "no backup was loaded" in says) == (1, True)
