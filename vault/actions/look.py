"""
The look at rest: open what nobody has asked for, and name what is damaged.

The worker looks a little at a time, at everything of a region once in `damage_look_seconds`: the
key tree and its mirror, then documents and faxes with their objects, then the details of orders and
what they are found by, then the published log. What it finds is kept until a whole look does not
find it any more, or until it was mended. `portvault repair` looks at all of it at once. Nothing
that is opened leaves here.
"""

import logging
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

from keys.damage import Damage, DamagedError
from keys.errors import IntegrityError, StaleScopeError
from keys.keyring import DataKey, WrappedKey
from vault.actions.access import recorded
from vault.actions.look_log import look_at_log
from vault.actions.seal import worker
from vault.actions.stored_object import Stored, lost_key, open_metadata, open_object
from vault.context import Vault
from vault.domain.access import Action
from vault.domain.documents import Custody, Document
from vault.domain.faxes import Fax
from vault.domain.orders import Details, decode_details, details_context, marks_of
from vault.sql import damage as damage_sql
from vault.sql import documents as documents_sql
from vault.sql import order_details as details_sql
from vault.sql import orders as orders_sql
from vault.sql.connection import Connection, connection, transaction
from vault.sql.damage import Look

log = logging.getLogger(__name__)

#: What is looked at in one step, at most: so many things, and objects of about so many bytes.
THINGS_MAX, BYTES_MAX = 100, 32 * 1024 * 1024
ATTEMPTS = 5
TREE, MIRROR, DOCUMENTS, FAXES, ORDERS = "tree", "mirror", "documents", "faxes", "orders"
LOG = "log"
#: The parts in their order; the first two are the keyring's.
PARTS = (TREE, MIRROR, DOCUMENTS, FAXES, ORDERS, LOG)
_NEXT = {
    DOCUMENTS: damage_sql.next_documents,
    FAXES: damage_sql.next_faxes,
    ORDERS: damage_sql.next_orders,
}


async def look_at_rest(vault: Vault, region: str) -> int:
    """Take one step of the look, where it is time; the reconciler's next comes after a pause."""
    now = vault.clock()
    async with connection(vault.pool) as conn:
        look = await damage_sql.look_of(conn, region)
    if look is None or look.ended_at is not None:
        if look and now - look.began_at < timedelta(seconds=vault.config.damage_look_seconds):
            return 0
        look = Look(PARTS[0], None, now, None)
    async with recorded(vault, worker(vault), Action.DAMAGE_LOOK, region=region):
        found, after = await _step(vault, region, look.part, look.after)
    for item in found:
        log.critical("%s; `portvault repair --region %s` mends what can be", item, region)
    part = look.part if after else next(iter(PARTS[PARTS.index(look.part) + 1 :]), None)
    async with transaction(vault.pool) as conn:
        await damage_sql.note(conn, found, now)
        if part is None:
            await damage_sql.forget_before(conn, region, look.began_at)
        ended_at = now if part is None else None
        look = replace(look, part=part or PARTS[-1], after=after, ended_at=ended_at)
        await damage_sql.set_look(conn, region, look)
    return 0


async def known_damage(vault: Vault) -> dict[str, int]:
    """Return how much is known to be damaged, of each region that has any."""
    async with connection(vault.pool) as conn:
        return await damage_sql.counts(conn)


async def whole_look(vault: Vault, region: str) -> AsyncIterator[Damage]:
    """Yield all that is damaged but the tree and its mirror, whose repair looks at them itself."""
    for part in PARTS[2:]:
        after: str | None = None
        while True:
            found, after = await _step(vault, region, part, after)
            for item in found:
                yield item
            if after is None:
                break


async def _step(
    vault: Vault, region: str, part: str, after: str | None
) -> tuple[list[Damage], str | None]:
    """Look at some things of a part; returns what is damaged, and the last one if there is more."""
    if part == TREE:
        damages, last = await vault.keyring.look_at_tree(region, int(after or -1))
        return damages, None if last is None else str(last)
    if part == MIRROR:
        return await vault.keyring.look_at_mirror(region, after or "")
    if part == LOG:
        return await look_at_log(vault, region, after)
    async with connection(vault.pool) as conn:
        things = await _NEXT[part](conn, region, UUID(after) if after else None, THINGS_MAX)
    # What many hang on is damaged once.
    found, size = dict[str, Damage](), 0
    for identity in things:
        damages, size_bytes = await _look_at(vault, part, identity)
        found.update((item.place, item) for item in damages)
        size += size_bytes
        if size > BYTES_MAX:
            return list(found.values()), str(identity)
    return list(found.values()), str(things[-1]) if len(things) == THINGS_MAX else None


async def _look_at(vault: Vault, part: str, identity: UUID) -> tuple[list[Damage], int]:
    if part == ORDERS:
        return await _order_damages(vault, identity), 0
    for _ in range(ATTEMPTS):
        thing, wrapped = await _find(vault, part, identity)
        if thing is None or thing.custody is not Custody.STORED:
            return [], 0
        with suppress(StaleScopeError):
            damages = await _damages(vault, thing, wrapped)
            # What was shredded meanwhile is not damaged.
            again, _ = await _find(vault, part, identity) if damages else (thing, None)
            if again is None or again.custody is not Custody.STORED:
                return [], 0
            return damages, thing.size_bytes or 0
    return [], 0


async def _find(
    vault: Vault, part: str, identity: UUID
) -> tuple[Document | Fax | None, WrappedKey | None]:
    async with connection(vault.pool) as conn:
        if part == FAXES:
            return await damage_sql.fax_with_key(conn, identity)
        found = await documents_sql.find_with_key(conn, identity)
        return found.document, found.key


async def _damages(vault: Vault, thing: Document | Fax, wrapped: WrappedKey | None) -> list[Damage]:
    """Open a document or a fax, its metadata and its object."""
    stored, found = Stored.of(thing), list[Damage]()
    try:
        if wrapped is None:
            raise lost_key(thing.region, thing.id)
        key = await vault.keyring.open_key(wrapped)
    except DamagedError as error:
        return list(error.damages)
    try:
        if thing.metadata is not None:
            open_metadata(key, stored, len)
    except DamagedError as error:
        found += error.damages
    try:
        async with open_object(vault, stored, key) as pieces:
            async for _ in pieces:
                pass
    except DamagedError as error:
        found += error.damages
    return found


async def _order_damages(vault: Vault, identity: UUID) -> list[Damage]:
    """Open an order's details, and compare what it is found by."""
    for _ in range(ATTEMPTS):
        async with connection(vault.pool) as conn:
            wrapped = await orders_sql.details_key(conn, identity)
            order = await orders_sql.find(conn, identity)
        if order is None or order.details is None:
            return []
        with suppress(StaleScopeError):
            try:
                if wrapped is None:
                    raise lost_key(order.region, identity)
                key = await vault.keyring.open_key(wrapped)
            except DamagedError as error:
                return list(error.damages)
            try:
                context = details_context(order.region, identity)
                details = decode_details(key.open(order.details, context))
            except IntegrityError:
                says = "does not open"
                return [Damage(order.region, says, "porting_order", str(identity), "details")]
            async with connection(vault.pool) as conn:
                return await _index_damages(vault, conn, order.region, identity, details)
    return []


async def _index_damages(
    vault: Vault, conn: Connection, region: str, order: UUID, details: Details
) -> list[Damage]:
    stands = await damage_sql.marks_of(conn, order)
    if any(key is None for key, _ in stands):
        # It waits to be indexed anew.
        return []
    keys = {key.id: key for key in await details_sql.index_keys(conn, region)}
    for identity in {key for key, _ in stands if key is not None}:
        wrapped = keys[identity].wrapped if identity in keys else None
        if wrapped is None:
            # It is being replaced, which indexes the order anew.
            return []
        try:
            opened: DataKey = await vault.keyring.open_key(wrapped)
        except DamagedError as error:
            return list(error.damages)
        wanted = sorted(marks_of(opened, details))
        if sorted(mark for key, mark in stands if key == identity) != wanted:
            says = "does not find the order"
            return [Damage(region, says, "number_index", str(order), "mac")]
    return []
