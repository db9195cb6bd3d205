"""
A tree of many documents, built at once: its pages and wraps are made here and copied in.

The root and its generation are planted by the keyring; what hangs below has the shape that the
keyring would have given it: 60 scopes a leaf, two documents a scope.
"""

import os
import sys
import time
from collections.abc import Iterator
from uuid import UUID, uuid4

import asyncpg

from keys import wrap
from keys.custodian import Custodian

KEYS_IN_A_SCOPE = 2
BATCH = 20_000

Rows = dict[str, list[tuple[object, ...]]]


class Grower:
    """Makes the rows of a tree below its root, leaf by leaf."""

    def __init__(self, region: str, documents: int, first_id: int) -> None:
        self._region = region
        self._scopes = -(-documents // KEYS_IN_A_SCOPE)
        self._next = first_id
        self.keys = list[UUID]()
        self.nodes = 0

    def grow(self, root: int, root_key: bytes) -> Iterator[Rows]:
        """Yield rows in batches; the last one has the root's own page."""
        level, count = 0, self._scopes
        while count > wrap.SLOTS:
            level, count = level + 1, -(-count // wrap.SLOTS)
        yield from self._node(root, root_key, level, self._scopes, None, None, {})

    def _node(
        self,
        identity: int,
        key: bytes,
        level: int,
        scopes: int,
        parent: int | None,
        slot: int | None,
        waiting: Rows,
    ) -> Iterator[Rows]:
        page, used, below = bytearray(wrap.PAGE_BYTES), 0, wrap.SLOTS**level
        for place in range(-(-scopes // below)):
            child = os.urandom(wrap.KEY_BYTES)
            wrap.set_child_key(page, place, child)
            used |= 1 << place
            if level == 0:
                self._scope(identity, place, child, waiting)
            else:
                self._next += 1
                here = min(below, scopes - place * below)
                yield from self._node(self._next, child, level - 1, here, identity, place, waiting)
        sealed = wrap.encrypt_page(key, page, wrap.page_context(self._region, identity, 1))
        row = (self._region, identity, level, 1, parent, slot, used, sealed)
        waiting.setdefault("key_node", []).append(row)
        self.nodes += 1
        if parent is None or len(waiting.get("data_key", ())) >= BATCH:
            yield dict(waiting)
            waiting.clear()

    def _scope(self, node: int, slot: int, key: bytes, waiting: Rows) -> None:
        scope = uuid4()
        waiting.setdefault("key_scope", []).append((scope, self._region, 1, node, slot))
        for _ in range(KEYS_IN_A_SCOPE):
            identity = uuid4()
            context = wrap.data_key_context(self._region, scope, 1, identity)
            sealed = wrap.wrap(key, os.urandom(wrap.KEY_BYTES), context)
            waiting.setdefault("data_key", []).append((identity, self._region, scope, 1, sealed))
            self.keys.append(identity)


COLUMNS = {
    "key_node": ["region", "id", "level", "epoch", "parent", "slot", "used", "page"],
    "key_scope": ["id", "region", "epoch", "node", "slot"],
    "data_key": ["id", "region", "scope", "scope_epoch", "wrap"],
}


async def grow(dsn: str, custodian: Custodian, region: str, documents: int) -> Grower:
    """Fill a freshly planted tree; says how far it is on standard error."""
    started = time.monotonic()
    conn = await asyncpg.connect(dsn)
    try:
        (head,) = await conn.fetch("select * from key_tree where region = $1", region)
        context = wrap.root_context(region, head["generation"])
        root_key = await custodian.unwrap(region, head["generation"], head["root_wrap"], context)
        # Below the root go ids that nobody has yet, in whichever region.
        highest = await conn.fetchval("select max(id) from key_node")
        grower = Grower(region, documents, highest)
        await conn.execute("delete from key_node where region = $1", region)
        for rows in grower.grow(head["root"], root_key):
            for table in ("key_node", "key_scope", "data_key"):
                if table in rows:
                    await conn.copy_records_to_table(
                        table, records=rows[table], columns=COLUMNS[table]
                    )
            print(
                f"\r  grown to {len(grower.keys)} documents, {time.monotonic() - started:.0f} s",
                end="",
                file=sys.stderr,
            )
        await conn.execute(
            "select setval(pg_get_serial_sequence('key_node', 'id'), max(id)) from key_node"
        )
        await conn.execute("vacuum analyze")
        # Nothing of this is still on its way to the disk while something is measured.
        await conn.execute("checkpoint")
    finally:
        await conn.close()
    print(file=sys.stderr)
    return grower
