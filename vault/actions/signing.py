"""Signing: replace the key that signs the log and the certificates, in two steps; revoke one."""

import base64
import contextlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

from keys.errors import IntegrityError
from keys.handover import Mark
from keys.note import Verifier
from vault.actions.access import recorded
from vault.context import Vault
from vault.domain.access import Action, Principal
from vault.domain.checkpoint import open_checkpoint
from vault.errors import InvalidRequestError
from vault.sql import log as log_sql
from vault.sql.connection import transaction


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
