"""Signing: replace the key that signs the log and the certificates, in two steps."""

from contextlib import AsyncExitStack

from vault.actions.access import recorded
from vault.context import Vault
from vault.domain.access import Action, Principal


async def rotate_key(vault: Vault, principal: Principal, *, finish: bool) -> str:
    """
    Make the key that is to follow and sign with both, or let it sign alone.

    Returns its public half. Between the two lies the time in which whoever holds the old public key
    learns of the new one. It is one key for all regions: the log of each says that it was replaced.
    """
    async with AsyncExitStack() as stack:
        for region in vault.config.regions:
            await stack.enter_async_context(
                recorded(vault, principal, Action.LOG_ROTATE_KEY, region=region)
            )
        return vault.signer.finish_rotation() if finish else vault.signer.begin_rotation()
