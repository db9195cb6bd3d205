"""
Stores: which store is a region's own.

A store carries an identity object, and the database knows its id. So an empty mount point, the
bucket of another region or of another deployment is refused, where objects would be lost in it or
called purged.
"""

import json
import re

from keys.errors import IntegrityError
from vault.actions.bucket import fetch, put_object
from vault.context import STORE_IDENTITY, ObjectStore
from vault.errors import ConfigurationError, ObjectMissingError
from vault.sql import health as health_sql
from vault.sql.connection import Pool, connection, transaction

_ID = re.compile(r"[0-9a-f]{32}")


class _DamagedIdentityError(ConfigurationError):
    """The identity object is none."""


def encode_identity(identity: str) -> bytes:
    """Return the content of the identity object."""
    return json.dumps({"id": identity, "v": 1}).encode() + b"\n"


async def stored_identity(store: ObjectStore) -> str | None:
    """
    Return the id that the store carries; None when it carries none.

    Raises `ConfigurationError` for an identity object that is damaged, and
    `ObjectStoreUnavailableError`.
    """
    try:
        found = json.loads(await fetch(store, STORE_IDENTITY))
        if found["v"] == 1 and _ID.fullmatch(found["id"]):
            return str(found["id"])
    except ObjectMissingError:
        return None
    except (ValueError, TypeError, KeyError, RecursionError, IntegrityError):
        pass
    raise _DamagedIdentityError(
        f"{STORE_IDENTITY} in {store} is damaged or from a later release: bring it back from a copy"
    )


async def require_identity(store: ObjectStore, region: str, known: str) -> None:
    """Raise `ConfigurationError` unless the store carries the known id; it says what to write."""
    try:
        found = await stored_identity(store)
    except _DamagedIdentityError as error:
        raise ConfigurationError(
            f"{error}. If these are the objects of {region}, write {_line(known)} into it"
        ) from None
    compare_identity(store, region, known, found)


def _line(identity: str) -> str:
    return encode_identity(identity).decode().strip()


async def is_store_known(pool: Pool, region: str) -> bool:
    """Whether the database knows which store holds the region's objects."""
    async with connection(pool) as conn:
        return await health_sql.store_id(conn, region) is not None


async def require_own_store(pool: Pool, store: ObjectStore, region: str) -> None:
    """
    Raise `ConfigurationError` where the store is not the one that holds the region's objects.

    Changes nothing.
    """
    async with connection(pool) as conn:
        known = await health_sql.store_id(conn, region)
    if known is not None:
        await require_identity(store, region, known)


async def take_store(pool: Pool, store: ObjectStore, region: str, new_id: str) -> None:
    """
    Do as `require_own_store`; a store that no database knows yet becomes the region's own.

    It receives `new_id`, unless it carries an id already. A crash before the database knows the id
    leaves a store that carries one, which the next start adopts.
    """
    async with transaction(pool) as conn:
        await health_sql.lock_identity(conn, region)
        known = await health_sql.store_id(conn, region)
        if known is not None:
            await require_identity(store, region, known)
            return
        found = await stored_identity(store)
        if found is None:
            await put_object(store, STORE_IDENTITY, encode_identity(new_id))
        await health_sql.keep_store_id(conn, region, found or new_id)


def compare_identity(store: ObjectStore, region: str, known: str, found: str | None) -> None:
    """Raise `ConfigurationError` unless the id that the store carries is the known one."""
    if found == known:
        return
    what = "is another store" if found else f"carries no {STORE_IDENTITY}"
    raise ConfigurationError(
        f"{store} does not hold the objects of {region}: it {what}. Is its disk mounted, and is "
        f"PORTVAULT_OBJECTS right? If these are the objects all the same, write "
        f"{_line(known)} into {STORE_IDENTITY} there"
    )
