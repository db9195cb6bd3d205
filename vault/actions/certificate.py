"""Certificate: hand out the signed statement that a document was destroyed."""

from uuid import UUID

from vault.actions.access import recorded
from vault.actions.certify import issue_for_order
from vault.context import Vault
from vault.domain.access import Action, Principal
from vault.errors import ConflictError, NotFoundError
from vault.sql import certificates as certificates_sql
from vault.sql import documents as documents_sql
from vault.sql import orders as orders_sql
from vault.sql.connection import connection, transaction


async def certificate(vault: Vault, principal: Principal, identity: UUID) -> str:
    """Return the signed note; raises `ConflictError` while there is none yet, and says why."""
    async with connection(vault.pool) as conn:
        document = await documents_sql.find(conn, identity)
    async with (
        recorded(
            vault,
            principal,
            Action.CERTIFICATE_READ,
            region=document.region if document else None,
            document=identity,
            order=document.order_id if document else None,
            kind=document.kind.value if document else None,
        ),
        connection(vault.pool) as conn,
    ):
        if document is None:
            raise NotFoundError
        note = await certificates_sql.find(conn, identity)
        if note is None:
            raise ConflictError(
                f"the document is {document.custody}; its certificate is issued when it is sealed"
            )
        return note


async def order_certificate(vault: Vault, principal: Principal, identity: UUID) -> str:
    """Return the signed note that all documents of an order are gone; issues it if it is due."""
    async with connection(vault.pool) as conn:
        order = await orders_sql.find(conn, identity)
    async with recorded(
        vault,
        principal,
        Action.CERTIFICATE_READ_ORDER,
        region=order.region if order else None,
        order=identity,
    ):
        async with transaction(vault.pool) as conn:
            note = await issue_for_order(vault, conn, identity)
            waiting = await certificates_sql.uncertified_of_order(conn, identity)
        if note is None:
            raise ConflictError(
                f"{waiting} documents of this order have no certificate yet; the order's own is "
                "issued when it has ended and every document is sealed"
            )
        return note
