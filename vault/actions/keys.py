"""Keys: what an operator asks about the regions' trees, and the change of a custodian."""

import base64
import contextlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta

from keys.errors import IntegrityError
from keys.keyring import KeyStatus, SealResult, Walk
from keys.notes.note import Verifier
from keys.notes.signing import Mark
from vault.actions.access import recorded, served
from vault.actions.log_publish import wait_published
from vault.context import Vault
from vault.domain.access import WORKER_ROLE, Action, Principal
from vault.domain.checkpoint import open_checkpoint
from vault.errors import ConfigurationError, InvalidRequestError
from vault.sql import documents as documents_sql
from vault.sql import fax_intake as fax_intake_sql
from vault.sql import log as log_sql
from vault.sql.connection import connection, transaction


@dataclass(frozen=True, slots=True)
class RegionKeys:
    """A region's tree, how many documents live in it, and how old its generation is."""

    keys: KeyStatus
    documents: int
    age_seconds: float


async def keys_status(vault: Vault, principal: Principal, region: str) -> RegionKeys:
    """Return the state of the region's key tree."""
    async with (
        recorded(vault, principal, Action.KEYS_READ, region=served(vault, region)),
        connection(vault.pool) as conn,
    ):
        status = await vault.keyring.status(conn, region)
        documents = await documents_sql.count_stored(conn, region)
    age = (vault.clock() - status.created_at).total_seconds()
    return RegionKeys(status, documents, age)


async def verify_keys(vault: Vault, principal: Principal, region: str) -> Walk:
    """Open every key of the region's tree; what does not open, or is missing, is a finding."""
    async with recorded(vault, principal, Action.KEYS_READ, region=served(vault, region)):
        return await vault.keyring.verify(region)


async def rotate_custodian(vault: Vault, principal: Principal, region: str) -> SealResult:
    """
    Make the region's next generation at its new custodian, and destroy what the old one holds.

    Both are configured meanwhile, `custodian` and `custodian_before`, so that every process can
    open the root whoever holds it. No content and no data key is touched.
    """
    async with recorded(vault, principal, Action.KEYS_SEAL, region=served(vault, region)) as access:
        before = vault.config.custodian_before_uri(region)
        if before is None:
            raise ConfigurationError(
                f"set custodian_before of {region} to the custodian that holds its key now and "
                "custodian to the new one, start every server again, then rotate"
            )
        await wait_published(access)
        result = await vault.keyring.seal(region, force=True)
        if result is None:
            raise ConfigurationError(f"{region} was not sealed")
        return result


# ---- Seal: make all shreds so far irrecoverable. ------------------------------------------------
#
# The seal itself is the keyring's. A document becomes `sealed` when every generation that knew its
# key is destroyed and no process can still have one of those keys in its cache.


def worker(vault: Vault) -> Principal:
    """Return the vault itself as a principal."""
    return Principal("worker", WORKER_ROLE, frozenset(vault.config.regions))


async def seal(
    vault: Vault, principal: Principal, region: str, *, force: bool = False
) -> SealResult | None:
    """Replace the region's root generation and destroy the old one; None when nothing is dirty."""
    async with recorded(vault, principal, Action.KEYS_SEAL, region=served(vault, region)) as access:
        # Before anything: the seal ends with what cannot be undone.
        await wait_published(access)
        return await vault.keyring.seal(region, force=force)


async def mark_sealed(vault: Vault, region: str) -> int:
    """Mark documents irrecoverable once the caches of all processes have expired."""
    async with transaction(vault.pool) as conn:
        destroyed = await vault.keyring.destroyed_generation(conn, region)
        if destroyed is None:
            return 0
        generation, destroyed_at = destroyed
        expired_at = destroyed_at + timedelta(seconds=vault.config.key_cache_seconds)
        now = vault.clock()
        if now < expired_at:
            return 0
        faxes = await fax_intake_sql.set_sealed(conn, region, generation, now)
        return faxes + await documents_sql.set_sealed(conn, region, generation, now)


# ---- Signing: replace the key that signs the log and the certificates, in two steps; revoke one.


async def rotate_key(
    vault: Vault, principal: Principal, *, finish: bool = False, stolen: bool = False
) -> str:
    """
    Make the key that is to follow and sign with both, or let it sign alone.

    Returns its public half. Between the two lies the time in which whoever holds the old public key
    learns of the new one; a key that was stolen is replaced without any. It is one key for all
    regions: the log of each says that it was replaced.
    """
    async with _recorded(vault, principal):
        if stolen:
            vault.signer.begin_rotation()
        if stolen or finish:
            return vault.signer.finish_rotation(await _marks(vault), stolen=stolen)
        return vault.signer.begin_rotation()


async def revoke_key(vault: Vault, principal: Principal, vkey: str) -> None:
    """Say of an earlier key that it counts no further than the last checkpoint it signed here."""
    try:
        Verifier(vkey)
    except IntegrityError:
        raise InvalidRequestError("that is no public key of a log: NAME+HASH+BASE64") from None
    async with _recorded(vault, principal):
        vault.signer.revoke(vkey, await _marks(vault, vkey))


@contextlib.asynccontextmanager
async def _recorded(vault: Vault, principal: Principal) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        for region in vault.config.regions:
            await stack.enter_async_context(
                recorded(vault, principal, Action.LOG_ROTATE_KEY, region=region)
            )
        yield


async def _marks(vault: Vault, signed_by: str | None = None) -> list[Mark]:
    """Return what each log is now, or was when a key last signed it."""
    marks = list[Mark]()
    for region in vault.config.regions:
        async with transaction(vault.pool) as conn:
            if signed_by is None:
                # What the old key alone has signed by now is committed before it is looked at.
                await log_sql.await_sequencer(conn, region)
                latest = await log_sql.latest_checkpoint(conn, region)
                note = latest.note if latest else None
            else:
                notes = await log_sql.checkpoint_notes(conn, region, None)
                note = next((note for note in notes if _is_by(signed_by, note)), None)
        if note is not None:
            checkpoint = open_checkpoint(note, vault.signer, region)
            root = base64.b64encode(checkpoint.root).decode()
            marks.append(Mark(checkpoint.origin, checkpoint.size, root))
    return marks


def _is_by(vkey: str, note: str) -> bool:
    with contextlib.suppress(IntegrityError):
        Verifier(vkey).verify(note)
        return True
    return False
