"""Rows out of a dump: what a repair looks for in a backup."""

from collections.abc import Collection, Mapping
from pathlib import Path
from uuid import UUID

from vault.adapters.dump import Dump

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
