"""
A dump of the database as input from outside: rows are read out of it, and nothing in it is run.

Only PostgreSQL's custom format is taken. `pg_restore` writes the rows of one table at a time to a
pipe, without a database and without the vault's environment, and what it writes is read as data:
`COPY` blocks of tables that the caller names, nothing else. Definitions, functions, grants and
settings in a dump are never looked at.
"""

import asyncio
import os
import re
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from vault.adapters.postgres.cluster import tool
from vault.errors import ConfigurationError, VaultError

_MAGIC = b"PGDMP"
#: Longer than the list of any dump of this schema, and than its longest row.
LIST_BYTES_MAX = LINE_BYTES_MAX = 16 * 1024 * 1024
CHUNK_BYTES, COMPLAINT_BYTES = 256 * 1024, 64 * 1024
_ENTRY = re.compile(r"[0-9]+; [0-9]+ [0-9]+ (TABLE DATA|SEQUENCE SET) public ([a-z_0-9]+) .*")
_COPY = re.compile(rb'COPY public\."?([a-z_0-9]+)"? \(([a-z_0-9", ]+)\) FROM stdin;')
_SETVAL = re.compile(
    rb"SELECT pg_catalog\.setval\('public\.\"?([a-z_0-9]+)\"?', ([0-9]{1,18}), (?:true|false)\);"
)
_END = b"\\.\n"
# What `applied_at` of a migration is, is of no interest.
_MIGRATION = re.compile(rb"([a-z0-9_.]+)\t\\\\x([0-9a-f]{64})\t.*")


@dataclass(frozen=True, slots=True)
class Block:
    """The rows of one table, in the text form of COPY, and the columns that they have."""

    table: str
    columns: tuple[str, ...]
    rows: AsyncIterator[bytes]


class Dump:
    """A dump in a file; raises `ConfigurationError` for what is none, `VaultError` for damage."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._entries: dict[tuple[str, str], str] = {}

    async def open(self) -> None:
        """Read what is in it."""
        with self._file.open("rb") as start:
            if start.read(len(_MAGIC)) != _MAGIC:
                raise ConfigurationError(
                    f"{self._file} is no dump in PostgreSQL's custom format, and nothing else is "
                    "taken, since other formats can run commands: make one by `portvault backup`, "
                    "or by `pg_dump --format=custom` from a server that the file was loaded into"
                )
        listed = bytearray()
        async for chunk in self._run("--list"):
            listed += chunk
            if len(listed) > LIST_BYTES_MAX:
                raise VaultError(f"{self._file} holds more things than any vault's database")
        for line in listed.decode(errors="replace").splitlines():
            if match := _ENTRY.fullmatch(line):
                self._entries[match[1], match[2]] = line

    def tables(self) -> set[str]:
        """Return the names of the tables that it has rows of."""
        return {name for kind, name in self._entries if kind == "TABLE DATA"}

    async def block(self, table: str) -> Block | None:
        """Return a table's rows, which are to be read to their end; None where it has none."""
        lines = self._lines("TABLE DATA", table)
        async for line in lines:
            match = _COPY.fullmatch(line.rstrip(b"\n"))
            if match is not None and match[1].decode() == table:
                columns = tuple(name.strip(' "') for name in match[2].decode().split(","))
                return Block(table, columns, _rows(lines, table))
        return None

    async def migrations(self) -> list[tuple[str, bytes]]:
        """Return names and digests of the migrations that its schema had, in their order."""
        found, block = list[tuple[str, bytes]](), await self.block("migration")
        if block is not None and block.columns[:2] == ("name", "sha256"):
            async for rows in block.rows:
                for line in rows.splitlines():
                    match = _MIGRATION.fullmatch(line)
                    if match is None:
                        raise VaultError(f"{self._file} names a migration that is none")
                    found.append((match[1].decode(), bytes.fromhex(match[2].decode())))
        if not found:
            raise VaultError(f"{self._file} is no dump of a vault's database")
        return sorted(found)

    async def sequences(self) -> dict[str, int]:
        """Return the sequences and their last values."""
        found = dict[str, int]()
        for kind, name in self._entries:
            if kind == "SEQUENCE SET":
                async for line in self._lines(kind, name):
                    match = _SETVAL.fullmatch(line.rstrip(b"\n"))
                    if match is not None and match[1].decode() == name:
                        found[name] = int(match[2])
        return found

    async def _lines(self, kind: str, name: str) -> AsyncIterator[bytes]:
        """Yield what `pg_restore` writes of one entry: whole lines, many at a time in the rows."""
        entry = self._entries.get((kind, name))
        if entry is None:
            return
        waiting = b""
        async for chunk in self._run(
            "--data-only", "--file=-", "--use-list=/dev/fd/{list}", entry=entry
        ):
            waiting += chunk
            if len(waiting) > LINE_BYTES_MAX:
                raise VaultError(f"{self._file} holds a row that is longer than any vault's")
            *whole, waiting = waiting.split(b"\n")
            for line in whole:
                yield line + b"\n"
        if waiting:
            yield waiting

    async def _run(self, *arguments: str, entry: str | None = None) -> AsyncIterator[bytes]:
        """Yield what `pg_restore` writes; it gets no address, no password, nothing of ours."""
        with self._file.open("rb") as file, _listing(entry) as number:
            process = await asyncio.create_subprocess_exec(
                tool("pg_restore"),
                *(argument.format(list=number) for argument in arguments),
                stdin=file,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env={"LC_ALL": "C"},
                pass_fds=[number],
            )
        try:
            if process.stdout is None or process.stderr is None:
                raise VaultError("pg_restore cannot be read")
            complaint = asyncio.create_task(process.stderr.read(COMPLAINT_BYTES))
            while chunk := await process.stdout.read(CHUNK_BYTES):
                yield chunk
            lines = (await complaint).decode(errors="replace").strip().splitlines()
            if await process.wait():
                raise VaultError(f"pg_restore failed: {lines[0] if lines else 'no reason given'}")
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


async def _rows(lines: AsyncIterator[bytes], table: str) -> AsyncIterator[bytes]:
    """Yield the rows up to the end of a block, many together."""
    waiting = bytearray()
    async for line in lines:
        if line == _END:
            yield bytes(waiting)
            return
        waiting += line
        if len(waiting) >= CHUNK_BYTES:
            yield bytes(waiting)
            waiting.clear()
    raise VaultError(f"the dump's rows of {table} are cut off")


@contextmanager
def _listing(entry: str | None) -> Iterator[int]:
    """Give a descriptor of a file without a name that holds one line of a dump's list."""
    descriptor = os.memfd_create("list")
    try:
        os.write(descriptor, f"{entry or ''}\n".encode())
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor
    finally:
        os.close(descriptor)


# ---- Rows out of a dump: what a repair looks for in a backup. -----------------------------------

_NULL = b"\\N"
#: So few are sought in many rows at once; more in each row by itself.
_FEW = 8


class DumpColumns:
    """
    The rows of a dump, read as text; whoever asks judges what it gets.

    Each look reads the table's rows up to the one that is sought.
    """

    def __init__(self, file: Path) -> None:
        self._file, self._dump = file, Dump(file)

    async def open(self) -> None:
        """Read what is in the dump; raises `ConfigurationError` for what is none."""
        await self._dump.open()

    async def row(self, table: str, identity: UUID) -> Mapping[str, bytes] | None:
        """Return the columns of a row that are not null, as COPY writes them; None without one."""
        return (await self.rows(table, [identity])).get(identity)

    async def rows(
        self, table: str, identities: Collection[UUID]
    ) -> Mapping[UUID, Mapping[str, bytes]]:
        """Return those rows that it has, in one look, each as `row` does."""
        block = await self._dump.block(table)
        found = dict[UUID, Mapping[str, bytes]]()
        if block is None or "id" not in block.columns:
            return found
        at, wanted = block.columns.index("id"), {str(one).encode(): one for one in identities}
        # To its end: a dump that is cut is said to be, whatever stood before.
        async for rows in block.rows:
            if len(wanted) <= _FEW and not any(one in rows for one in wanted):
                continue
            for line in rows.splitlines():
                values = line.split(b"\t")
                if len(values) == len(block.columns) and values[at] in wanted:
                    named = zip(block.columns, values, strict=True)
                    row = {name: value for name, value in named if value != _NULL}
                    found.setdefault(wanted[values[at]], row)
        return found
