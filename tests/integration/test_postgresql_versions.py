"""Every major version of PostgreSQL that is claimed does everything; others are refused by name."""

import asyncio
import struct
from pathlib import Path

import asyncpg
import pytest

from tests.command_line import SCAN, get, scan_of, token_of
from tests.fixtures_postgresql import DATABASE, OWNER, VERSIONS, make_accounts, server_of
from tests.fixtures_process import VaultProcess
from vault.errors import ConfigurationError
from vault.migrate import migrate


@pytest.mark.parametrize("version", VERSIONS)
async def test_from_migration_to_restore(tmp_path: Path, version: int) -> None:
    """Migrate, serve, upload, read, shred, seal, back up, lose the database, restore, verify."""
    async with server_of(version) as server:
        await make_accounts(server)
        vault = VaultProcess(
            tmp_path / "home",
            database=server.login,
            database_owner=server.owner,
            mirror_interval_seconds="1",
        )
        vault.home.mkdir(mode=0o700)
        assert (await vault.json("migrate"))["applied"]
        await vault.start()
        found = {row["check"]: row for row in await vault.json("doctor")}
        assert found["database"]["verdict"] == "ok", found["database"]
        assert f"PostgreSQL {version}," in found["database"]["detail"]
        token = await token_of(vault, "porting")
        order, living = await scan_of(vault, token)
        # The same scan in the same order is the same document, unless it is put again on purpose.
        put = ("put", str(SCAN), "--order", order, "--kind", "passport", "--again")
        gone = (await vault.json(*put, **token))["id"]
        await vault.json("shred", gone, "--reason", "withdrawn", **token)
        await vault.json("keys", "seal")
        status, _, _ = await vault.run(*get(gone, tmp_path / "gone"), **token)
        assert status == 3
        await vault.json("backup", str(tmp_path / "dump"))
        await _only_adds(server.login)
        assert await vault.stop() == 0
        conn = await asyncpg.connect(server.owner)
        await conn.execute("drop schema public cascade; create schema public")
        await conn.close()
        await vault.json("restore", str(tmp_path / "dump"))
        await vault.start()
        for document, expected in ((living, 0), (gone, 3)):
            status, _, says = await vault.run(*get(document, tmp_path / document), **token)
            assert status == expected, says
        assert (tmp_path / living).read_bytes() == SCAN.read_bytes()
        verdict = (await vault.json("log", "verify"))["uk"]
        assert {verdict[name] for name in ("intact", "complete", "consistent")} == {True}
        await _only_adds(server.login)
        assert await vault.stop() == 0


async def _only_adds(address: str) -> None:
    """Whoever logs in as the vault can add to the log, and not change it."""
    conn = await asyncpg.connect(address)
    try:
        for statement in (
            "delete from access_record",
            "update log_leaf set leaf_hash = ''",
            "set session_replication_role = replica",
            f"set role {OWNER}",
            "alter table access_record disable trigger all",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await conn.execute(statement)
    finally:
        await conn.close()


@pytest.mark.parametrize(
    "said, words",
    [
        ({"server_version": "14.12"}, "PostgreSQL 14 is too old; 15"),
        ({"server_version": "9.6.24"}, "PostgreSQL 9 is too old; 15"),
        ({"server_version": "13.0.0", "crdb_version": "CockroachDB CCL v25.1"}, "CockroachDB"),
        ({"server_version": "15.12-YB-2025.1.0.0-b0"}, "YugabyteDB"),
        ({"server_version": "8.0.2"}, "too old"),
    ],
)
async def test_another_database_is_refused_by_name(said: dict[str, str], words: str) -> None:
    """What introduces itself as anything else is asked nothing, and named."""

    async def introduce(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        size = struct.unpack("!i", await reader.readexactly(4))[0]
        start = await reader.readexactly(size - 4)
        if start == struct.pack("!i", 80877103):  # no TLS
            writer.write(b"N")
            size = struct.unpack("!i", await reader.readexactly(4))[0]
            await reader.readexactly(size - 4)
        writer.write(_message(b"R", struct.pack("!i", 0)))
        for name, value in {"client_encoding": "UTF8", **said}.items():
            writer.write(_message(b"S", f"{name}\0{value}\0".encode()))
        writer.write(_message(b"K", struct.pack("!ii", 1, 2)) + _message(b"Z", b"I"))
        asked = await reader.read(1)
        assert asked in (b"X", b""), asked
        writer.close()

    server = await asyncio.start_server(introduce, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        with pytest.raises(ConfigurationError, match=words):
            await migrate(f"postgresql://x@127.0.0.1:{port}/{DATABASE}")


def _message(kind: bytes, content: bytes) -> bytes:
    return kind + struct.pack("!i", len(content) + 4) + content
