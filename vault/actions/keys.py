"""Keys: what an operator asks about the regions' trees, and the change of a custodian."""

from dataclasses import dataclass

from keys.keyring import KeyStatus, SealResult, Walk
from vault.actions.access import recorded, served
from vault.actions.published_first import wait_published
from vault.context import Vault
from vault.domain.access import Action, Principal
from vault.errors import ConfigurationError
from vault.sql import documents as documents_sql
from vault.sql.connection import connection


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
