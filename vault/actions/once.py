"""A request that carries an Idempotency-Key has its effect once, however often it is sent."""

import re
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from vault.context import Vault
from vault.domain.access import Principal
from vault.errors import ConflictError, InvalidRequestError, VaultError
from vault.sql import idempotency
from vault.sql.connection import Connection, connection
from vault.sql.intake import Claim

KEY_PATTERN = re.compile(r"[!-~]{1,128}")


class KeyReusedError(VaultError):
    """This Idempotency-Key was used for another request."""


@dataclass(frozen=True, slots=True)
class Once:
    """The key a client sent, if any, and a fingerprint of what it asked for."""

    principal: Principal
    key: str | None
    fingerprint: bytes

    def __post_init__(self) -> None:
        """Refuse a key that is not 1 to 128 visible ASCII characters."""
        if self.key is not None and not KEY_PATTERN.fullmatch(self.key):
            raise InvalidRequestError("Idempotency-Key must be 1 to 128 visible ASCII characters")

    async def earlier(self, vault: Vault) -> UUID | None:
        """Return what the key made before; raises `KeyReusedError` when asked for other things."""
        if self.key is None:
            return None
        async with connection(vault.pool) as conn:
            row = await idempotency.find(conn, self.principal.id, self.key)
        return self.matched(row["fingerprint"], row["resource"]) if row else None

    def matched(self, fingerprint: bytes | None, resource: UUID | None) -> UUID | None:
        """Return what the key was found to have made; raises `KeyReusedError` as `earlier` does."""
        if resource is not None and fingerprint != self.fingerprint:
            raise KeyReusedError
        return resource

    @property
    def wanted(self) -> Claim | None:
        """The claim, for a statement that makes the resource and claims the key at once."""
        return Claim(self.principal.id, self.key, self.fingerprint) if self.key else None

    async def claim(self, conn: Connection, resource: UUID, now: datetime) -> None:
        """Bind the key in the transaction that makes the resource; one of two racers fails."""
        if self.key is None:
            return
        first = await idempotency.insert(
            conn,
            self.principal.id,
            self.key,
            fingerprint=self.fingerprint,
            resource=resource,
            now=now,
        )
        if not first:
            raise ConflictError("a request with this Idempotency-Key is in progress or just done")
