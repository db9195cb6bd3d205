"""
The adversary of the demonstration: tries every key it learns on everything it has.

It has a backup, the present database, a copy of the bucket, and all the custodian still holds.
Deliberately not the keyring: it knows the formats, and follows no rule about which key is whose.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import asyncpg

from keys import wrap
from keys.custodian import Custodian
from keys.errors import IntegrityError, KeysError
from keys.stream import DataKey
from vault.domain.documents import object_name, stream_context


@dataclass(slots=True)
class Loot:
    """Every wrap of one or several databases."""

    roots: list[asyncpg.Record] = field(default_factory=list)
    nodes: list[asyncpg.Record] = field(default_factory=list)
    wraps: list[asyncpg.Record] = field(default_factory=list)

    async def take(self, dsn: str) -> None:
        """Copy all wraps of a database."""
        conn = await asyncpg.connect(dsn)
        try:
            self.roots += await conn.fetch("select * from key_tree")
            self.nodes += await conn.fetch("select * from key_node")
            self.wraps += await conn.fetch("select * from data_key")
        finally:
            await conn.close()

    def __len__(self) -> int:
        return len(self.roots) + len(self.nodes) + len(self.wraps)


async def revive(
    loot: Loot, custodian: Custodian, region: str, objects: Path, documents: Iterable[UUID]
) -> dict[UUID, bytes]:
    """Return every one of the documents that can be decrypted, with its content."""
    known = await _root_keys(loot, custodian, region)
    before = -1
    while len(known) > before:
        before = len(known)
        known |= _children(loot, region, known)
    data_keys = _data_keys(loot, region, known)
    found = {}
    for document in documents:
        sealed = (objects / object_name(document)).read_bytes()
        for key in data_keys:
            content = _open(key, sealed, stream_context(region, document))
            if content is not None:
                found[document] = content
    return found


async def _root_keys(loot: Loot, custodian: Custodian, region: str) -> set[bytes]:
    found = set()
    for generation in await custodian.generations(region):
        for row in loot.roots:
            context = wrap.root_context(row["region"], row["generation"])
            try:
                found.add(await custodian.unwrap(region, generation, row["root_wrap"], context))
            except KeysError:
                continue
    return found


def _children(loot: Loot, region: str, known: set[bytes]) -> set[bytes]:
    found = set()
    for row in loot.nodes:
        context = wrap.page_context(region, row["id"], row["epoch"])
        for key in known:
            try:
                page = wrap.open_page(key, row["page"], context)
            except IntegrityError:
                continue
            found |= {
                bytes(page[start : start + wrap.KEY_BYTES])
                for start in range(0, len(page), wrap.KEY_BYTES)
            } - {wrap.EMPTY}
    return found


def _data_keys(loot: Loot, region: str, known: set[bytes]) -> set[bytes]:
    found = set()
    for row in loot.wraps:
        context = wrap.data_key_context(region, row["scope"], row["scope_epoch"], row["id"])
        for key in known:
            try:
                found.add(wrap.unwrap(key, row["wrap"], context))
            except IntegrityError:
                continue
    return found


def _open(key: bytes, sealed: bytes, context: bytes) -> bytes | None:
    decryptor = DataKey(key).decryptor(context)
    try:
        return decryptor.update(sealed) + decryptor.finalize()
    except IntegrityError:
        return None
