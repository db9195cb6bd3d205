"""
What bounds a shred: a tree of pages alone, and the one transaction that re-keys paths in it.

The keys of documents stand right in the pages, 60 in each. There are no scopes and no rows of data
keys, so nothing an upload needs; no mirror, no custodian, no gate. What is left is what every shred
does: read and lock the pages of the paths, open them from the root down, clear a slot, give every
page a fresh key, write the pages, a tombstone and a record for each document, commit.
"""

import os
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from uuid import uuid4

import asyncpg

from keys import wrap

REGION = "uk"
BATCH = 2000
TABLES = """
    create table bare_page (id bigint primary key, page bytea not null);
    alter table bare_page alter column page set storage plain;
    create table bare_tombstone (id uuid primary key, document bigint not null);
    create table bare_record (id uuid primary key, document bigint not null, at timestamptz)
"""


@dataclass
class BareTree:
    """A tree whose page numbers follow from a document's number, so no path is ever looked up."""

    conn: asyncpg.Connection
    documents: int
    depth: int
    root_key: bytes

    def path(self, document: int) -> Iterator[tuple[int, int]]:
        """Yield page and slot on the way to a document, from the root down."""
        for level in reversed(range(self.depth)):
            place = document // wrap.SLOTS**level
            yield number(level, place // wrap.SLOTS), place % wrap.SLOTS

    async def shred(self, count: int) -> tuple[float, int]:
        """Shred random documents; returns the seconds and how many pages were written."""
        documents = random.sample(range(self.documents), count)
        started = time.perf_counter()
        paths = [list(self.path(document)) for document in documents]
        ids = sorted({page for path in paths for page, _ in path}, reverse=True)
        async with self.conn.transaction():
            rows = await self.conn.fetch(
                "select id, page from bare_page where id = any($1) order by id for update", ids
            )
            pages = self._rekey({row["id"]: row["page"] for row in rows}, paths)
            await self.conn.execute(
                "update bare_page b set page = c.page "
                "from unnest($1::bigint[], $2::bytea[]) c (id, page) where b.id = c.id",
                list(pages),
                list(pages.values()),
            )
            for table, more in (("bare_tombstone", ""), ("bare_record", ", now()")):
                await self.conn.execute(
                    f"insert into {table} select id, document{more} "
                    "from unnest($1::uuid[], $2::bigint[]) c (id, document)",
                    [uuid4() for _ in documents],
                    documents,
                )
        return time.perf_counter() - started, len(ids)

    def _rekey(
        self, sealed: dict[int, bytes], paths: list[list[tuple[int, int]]]
    ) -> dict[int, bytes]:
        top = paths[0][0][0]
        keys, opened, above = {top: self.root_key}, dict[int, bytearray](), dict[int, list[int]]()
        for path in paths:
            for index, (page, slot) in enumerate(path):
                if page not in opened:
                    context = wrap.page_context(REGION, page, 1)
                    opened[page] = wrap.decrypt_page(keys[page], sealed[page], context)
                if index + 1 < len(path) and path[index + 1][0] not in keys:
                    below = path[index + 1][0]
                    keys[below] = wrap.child_key(opened[page], slot)
                    above[below] = [page, slot]
        for path in paths:
            page, slot = path[-1]
            wrap.set_child_key(opened[page], slot, os.urandom(wrap.KEY_BYTES))
        written = {}
        # The order of discovery is from the root down, path by path; children are sealed first.
        for page in sorted(opened, key=level_of):
            fresh = wrap.new_key()
            if page == top:
                self.root_key = fresh
            else:
                parent, slot = above[page]
                wrap.set_child_key(opened[parent], slot, fresh)
            written[page] = wrap.encrypt_page(
                fresh, opened[page], wrap.page_context(REGION, page, 1)
            )
        return written


def number(level: int, place: int) -> int:
    """Return the number of a page."""
    return level << 48 | place


def level_of(page: int) -> int:
    """Return the level of a page, 0 at the leaves."""
    return page >> 48


async def grow_bare(dsn: str, documents: int) -> BareTree:
    """Make a bare tree in tables of its own."""
    conn = await asyncpg.connect(dsn)
    await conn.execute(TABLES)
    depth = 1
    while wrap.SLOTS**depth < documents:
        depth += 1
    keys = [os.urandom(wrap.KEY_BYTES) for _ in range(-(-documents // wrap.SLOTS))]
    below: list[bytes] = []
    for level in range(depth):
        waiting = []
        for place, key in enumerate(keys):
            page = os.urandom(wrap.PAGE_BYTES)
            if level:
                held = b"".join(below[place * wrap.SLOTS : (place + 1) * wrap.SLOTS])
                page = held.ljust(wrap.PAGE_BYTES, b"\0")
            identity = number(level, place)
            sealed = wrap.encrypt_page(key, page, wrap.page_context(REGION, identity, 1))
            waiting.append((identity, sealed))
            if len(waiting) >= BATCH or place == len(keys) - 1:
                await conn.copy_records_to_table("bare_page", records=waiting)
                waiting = []
        if level < depth - 1:
            below = keys
            keys = [os.urandom(wrap.KEY_BYTES) for _ in range(-(-len(keys) // wrap.SLOTS))]
    await conn.execute("vacuum analyze bare_page")
    return BareTree(conn, documents, depth, keys[0])
