"""
The backups of the drill: what a careful operator keeps, made by PostgreSQL's own tools.

A base backup, a dump, all WAL since in an archive with a named point after each step, and a copy of
every object that was ever in the bucket.
"""

import asyncio
import hashlib
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg

from vault.adapters.postgres.cluster import run_tool
from vault.adapters.postgres.embedded import EmbeddedPostgres
from vault.errors import VaultError

ARCHIVE_SECONDS = 60.0
RECOVERY_SECONDS = 60.0
#: How the name of a segment ends that is not all there yet.
_COMING = ".coming"


class Backups:
    """All that was kept of a vault with an embedded PostgreSQL."""

    def __init__(self, home: Path, place: Path) -> None:
        self._home, self._place = home, place
        self.dump, self.base = place / "database.dump", place / "base"
        self.archive, self.bucket = place / "wal", place / "bucket"
        self.server = EmbeddedPostgres(home, archive=self.archive)
        self.points = list[str]()

    async def begin(self) -> str:
        """Start the server with its WAL archived; returns the address."""
        self._place.mkdir(mode=0o711)
        self.archive.mkdir()
        dsn = await self.server.start()
        self._give(self.archive)
        conn = await asyncpg.connect(dsn)
        try:
            await conn.execute("alter system set archive_mode = on")
            segment = f"{self.archive}/%f"
            # Whoever looks for it meanwhile finds all of it, or nothing.
            copy = f"cp %p {segment}{_COMING} && mv {segment}{_COMING} {segment}"
            command = f"test -f {segment} || {{ {copy}; }}"
            await conn.execute(f"alter system set archive_command = '{command}'")
        finally:
            await conn.close()
        await self.server.stop()
        return await self.server.start()

    def segments(self) -> list[Path]:
        """Return the files of the archive that are all there, the oldest first."""
        return sorted(path for path in self.archive.iterdir() if path.suffix != _COMING)

    async def take_dump(self, dsn: str) -> None:
        """Dump the database."""
        await run_tool("pg_dump", "--format=custom", f"--file={self.dump}", dsn=dsn)

    async def take_base(self, dsn: str) -> None:
        """Copy the whole cluster while it runs."""
        options = ("--wal-method=none", "--checkpoint=fast", "--no-verify-checksums")
        await run_tool("pg_basebackup", f"--pgdata={self.base}", *options, dsn=dsn)

    async def mark(self, dsn: str, name: str) -> None:
        """Name this moment in the WAL, and keep every object that the bucket holds now."""
        conn = await asyncpg.connect(dsn)
        try:
            await conn.fetchval("select pg_create_restore_point($1)", name)
            last = await conn.fetchval("select pg_walfile_name(pg_switch_wal())")
        finally:
            await conn.close()
        async with asyncio.timeout(ARCHIVE_SECONDS):
            # PostgreSQL archives at its own pace, and tells nobody.
            while not (self.archive / last).exists():  # noqa: ASYNC110 - files tell nobody
                await asyncio.sleep(0.05)
        self.points.append(name)
        self.keep_objects()

    def keep_objects(self) -> None:
        """Keep each version of each object that is not kept yet."""
        source = self._home / "objects"
        for path in source.rglob("*"):
            if not path.is_file() or ".partial" in path.parts:
                continue
            data = path.read_bytes()
            version = hashlib.sha256(data).hexdigest()[:16]
            kept = self.bucket / version / path.relative_to(source)
            if not kept.exists():
                kept.parent.mkdir(parents=True, exist_ok=True)
                kept.write_bytes(data)

    def bucket_copies(self, region: str) -> list[Path]:
        """Return directories that each look like a region's bucket."""
        return sorted(self.bucket.glob(f"*/{region}"))

    @asynccontextmanager
    async def recovered(self, home: Path, point: str | None) -> AsyncIterator[str]:
        """Run a copy of the base backup, recovered up to a point, or as far as the WAL goes."""
        await self.recover(home, point)
        server = EmbeddedPostgres(home)
        try:
            yield await server.start()
        finally:
            await server.stop()
            shutil.rmtree(home)

    async def recover(self, home: Path, point: str | None) -> None:
        """Make a home whose database is the base backup, recovered and promoted."""
        data = home / "postgres" / "data"
        home.mkdir(mode=0o711)
        data.parent.mkdir(mode=0o700)
        shutil.copytree(self.base, data)
        target = f"recovery_target_name = '{point}'\n" if point else ""
        with (data / "postgresql.auto.conf").open("a") as settings:
            settings.write(
                f"archive_mode = off\nrestore_command = 'cp {self.archive}/%f %p'\n{target}"
                "recovery_target_action = 'promote'\n"
            )
        (data / "recovery.signal").touch()
        for path in (data.parent, *data.parent.rglob("*")):
            self._give(path)
        server = EmbeddedPostgres(home, archive=self.archive)
        dsn = await server.start()
        try:
            await _promoted(dsn)
        finally:
            await server.stop()

    def _give(self, path: Path) -> None:
        """Give a path to the account that runs PostgreSQL, which is another one for root."""
        owner = (self._home / "postgres" / "data").stat()
        os.chown(path, owner.st_uid, owner.st_gid)


async def _promoted(dsn: str) -> None:
    async with asyncio.timeout(RECOVERY_SECONDS):
        while True:
            try:
                conn = await asyncpg.connect(dsn)
                try:
                    if not await conn.fetchval("select pg_is_in_recovery()"):
                        return
                finally:
                    await conn.close()
            except (OSError, asyncpg.PostgresError) as error:
                if isinstance(error, asyncpg.InvalidCatalogNameError):
                    raise VaultError("the recovered cluster holds no vault") from error
            await asyncio.sleep(0.1)
