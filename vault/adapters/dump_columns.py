"""One column of one row out of a dump: what a repair looks for in a backup."""

from collections.abc import Mapping
from pathlib import Path
from uuid import UUID

from vault.adapters.dump import Dump

_NULL = b"\\N"


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
        block = await self._dump.block(table)
        if block is None or "id" not in block.columns:
            return None
        at, wanted = block.columns.index("id"), str(identity).encode()
        found: dict[str, bytes] | None = None
        # To its end: a dump that is cut is said to be, whatever stood before.
        async for rows in block.rows:
            if found is None and wanted in rows:
                for line in rows.splitlines():
                    values = line.split(b"\t")
                    if len(values) == len(block.columns) and values[at] == wanted:
                        named = zip(block.columns, values, strict=True)
                        found = {name: value for name, value in named if value != _NULL}
        return found
