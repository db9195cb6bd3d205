"""A region whose database is lost and restored from a state that was taken before."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from uuid import UUID

from tests.fixtures_server import OPERATOR, PORTING
from tests.retention_house import DPO, OTHER_DPO
from tests.states import State, bring_back, take_state
from vault.actions.approvals import approve, request_approval
from vault.actions.log_publish import publish_log, sequence_log
from vault.actions.read import open_content
from vault.actions.restore import Restored, restore
from vault.actions.shred import shred
from vault.app import open_vault
from vault.config.settings import Config
from vault.context import Vault
from vault.domain.approvals import Act, Terms
from vault.domain.documents import Ground
from vault.sql.connection import connection

REGION = "uk"


@dataclass
class House:
    """A region whose database is lost and restored from a state that was taken before."""

    config: Config
    state: State = field(default_factory=dict)

    async def back_up(self, vault: Vault) -> None:
        """Take a backup, once the log and the tree are in the bucket."""
        await self.publish(vault)
        async with connection(vault.pool) as conn:
            self.state = await take_state(conn)

    async def publish(self, vault: Vault) -> None:
        """Put the logs and the key trees into the buckets."""
        await self.publish_log(vault)
        for region in vault.config.regions:
            await vault.keyring.mirror(region)

    async def publish_log(self, vault: Vault) -> None:
        """Put the logs into the buckets, and leave the key trees as they were there."""
        for region in vault.config.regions:
            await sequence_log(vault, region)
            await publish_log(vault, region)

    @asynccontextmanager
    async def restored(self, **options: bool) -> AsyncIterator[Restored]:
        """Lose the database, bring the backup back, and restore; the dry run says the same."""
        dsn = self.config.database
        async with open_vault(self.config, dsn=dsn, restoring=True) as vault:
            async with connection(vault.pool) as conn:
                await bring_back(conn, self.state)
            leave = options.get("leave_unknown", False)
            plan = await restore(vault, OPERATOR, REGION, dry_run=True, leave_unknown=leave)
            done = await restore(vault, OPERATOR, REGION, dry_run=False, leave_unknown=leave)
        assert asdict(plan) == asdict(done)
        yield done


def states(done: Restored) -> dict[UUID, str]:
    """Return each document's state."""
    return {line.document: line.state for line in done.documents}


async def read(vault: Vault, document: UUID) -> bytes:
    """Read a document in the normal way."""
    async with open_content(
        vault, PORTING, document, purpose="verify-identity", reference=None
    ) as content:
        return b"".join([chunk async for chunk in content.chunks])


async def shred_it(vault: Vault, document: UUID) -> None:
    """Ask for a shred."""
    await shred(vault, PORTING, document, "asked", Ground.NOT_NEEDED)


async def resume(vault: Vault, day: str) -> None:
    """Have two people agree that what is due goes until the end of a day."""
    terms = Terms(Act.EXPIRY_RESUME, day, REGION)
    asked = await request_approval(vault, DPO, terms, reason="incident")
    await approve(vault, OTHER_DPO, asked.id)
