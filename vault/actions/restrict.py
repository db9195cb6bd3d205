"""
Restrict: keep a document and let nobody read it (GDPR art. 18), until that is lifted.

A restriction stops reading, and nothing else: the document's time goes on.
"""

from uuid import UUID

from vault.actions.access import recorded
from vault.context import Vault
from vault.domain.access import Action, Principal
from vault.domain.documents import Custody, Document
from vault.domain.holds import Restriction, check_text
from vault.errors import ConflictError, NotFoundError
from vault.sql import documents as documents_sql
from vault.sql import holds as holds_sql
from vault.sql import log as log_sql
from vault.sql.connection import connection, transaction


async def restrict(vault: Vault, principal: Principal, identity: UUID, reason: str) -> Document:
    """Forbid reading from now on; who repeats it changes nothing."""
    return await _change(vault, principal, identity, reason, restricted=True)


async def unrestrict(vault: Vault, principal: Principal, identity: UUID, reason: str) -> Document:
    """Allow reading again, to those who may."""
    return await _change(vault, principal, identity, reason, restricted=False)


async def _change(
    vault: Vault, principal: Principal, identity: UUID, reason: str, *, restricted: bool
) -> Document:
    said = check_text("reason", reason)
    async with connection(vault.pool) as conn:
        document = await documents_sql.find(conn, identity)
    async with recorded(
        vault,
        principal,
        Action.DOCUMENT_RESTRICT if restricted else Action.DOCUMENT_UNRESTRICT,
        region=document.region if document else None,
        document=identity,
        order=document.order_id if document else None,
        kind=document.kind.value if document else None,
    ) as access:
        async with transaction(vault.pool) as conn:
            document = await documents_sql.find(conn, identity, lock=True)
            if document is None:
                raise NotFoundError
            if document.custody is not Custody.STORED:
                raise ConflictError(f"the document is {document.custody}; nobody reads it anyway")
            now = vault.clock()
            if restricted and document.restricted_at is None:
                made = Restriction(vault.new_id(), identity, said, principal.id, now)
                await holds_sql.insert_restriction(conn, made)
                await documents_sql.restrict(conn, identity, now)
            elif not restricted:
                await holds_sql.lift_restriction(conn, identity, principal.id, now)
                await documents_sql.restrict(conn, identity, None)
            await log_sql.insert_records(conn, [access.conclude()])
        async with connection(vault.pool) as conn:
            changed = await documents_sql.find(conn, identity)
        if changed is None:
            raise NotFoundError
        return changed
