"""
Correct what was said wrongly: the kind of a document, and the details of an order.

Nothing of the content changes, and a hold or a restriction keeps all as it is: what a case is about
is not rewritten. A document that would be let go sooner by its new kind takes a second person,
since it would be a way around a floor otherwise. The earlier details stay encrypted under the same
key, in backups only, and go with it.
"""

from dataclasses import dataclass, replace
from uuid import UUID

from keys.errors import StaleScopeError
from vault.actions.access import Access, recorded
from vault.actions.approvals import use
from vault.actions.order_details import index_key, opened
from vault.actions.orders import OrderView, view_order
from vault.actions.policy import in_force
from vault.actions.retry import retried
from vault.context import Vault
from vault.domain.access import Action, Principal
from vault.domain.approvals import Act, Terms
from vault.domain.documents import MEDIA_TYPES, Custody, Document, Kind, correction_of
from vault.domain.orders import (
    UNKNOWN_CUSTOMER,
    Details,
    Order,
    check_customer,
    check_details,
    details_context,
    encode_details,
    marks_of,
)
from vault.domain.placement import check_placement
from vault.domain.retention import judge, loosens
from vault.errors import (
    ConflictError,
    FloorError,
    ForbiddenError,
    HeldError,
    InvalidRequestError,
    NotFoundError,
    RestrictedError,
    UnsupportedTypeError,
)
from vault.sql import documents as documents_sql
from vault.sql import holds as holds_sql
from vault.sql import log as log_sql
from vault.sql import order_details as details_sql
from vault.sql import orders as orders_sql
from vault.sql import retention as retention_sql
from vault.sql.connection import Connection, connection, transaction
from vault.sql.retention import Judged


async def correct_kind(
    vault: Vault, principal: Principal, identity: UUID, kind: Kind, approval: UUID | None = None
) -> Document:
    """
    Say that a document is of another kind, and have its retention computed anew.

    Raises `FloorError` when it would be let go sooner than its kind so far allows and no approval
    of `document.correct` is named; `HeldError`, `RestrictedError`, `UnsupportedTypeError`.
    """
    async with connection(vault.pool) as conn:
        document = await documents_sql.find(conn, identity)
    async with recorded(
        vault,
        principal,
        Action.DOCUMENT_CORRECT,
        region=document.region if document else None,
        document=identity,
        order=document.order_id if document else None,
        kind=document.kind.value if document else None,
    ) as access:
        if principal.kinds is not None and kind not in principal.kinds:
            raise ForbiddenError(f"this is for the kinds {', '.join(sorted(principal.kinds))} only")
        async with transaction(vault.pool) as conn:
            found = await _lock_correctable(conn, access)
            document = found.document
            if kind is not document.kind:
                await _check_kind(vault, conn, access, found, kind, approval)
                await documents_sql.set_kind(conn, identity, kind)
            said = f"{document.kind} to {kind}"
            await log_sql.insert_records(conn, [access.conclude(reason=said)])
        return replace(document, kind=kind)


async def _lock_correctable(conn: Connection, access: Access) -> Judged:
    """Return the document of an access, locked, or raise what keeps it as it is."""
    identity, region = access.intent.document, access.intent.region
    await retention_sql.freeze_policy(conn)
    await retention_sql.freeze_holds(conn, region)
    found = await retention_sql.lock_judged(conn, identity) if identity else None
    if found is None:
        raise NotFoundError
    document = found.document
    if document.custody is not Custody.STORED:
        raise ConflictError(f"the document is {document.custody}: nothing of it changes any more")
    if found.facts.holds:
        raise HeldError("a hold keeps this document as it is; it is corrected after its release")
    if document.restricted_at is not None:
        raise RestrictedError("its processing is restricted: it is kept as it is until that ends")
    return found


async def _check_kind(
    vault: Vault,
    conn: Connection,
    access: Access,
    found: Judged,
    kind: Kind,
    approval: UUID | None,
) -> None:
    document = found.document
    if document.media_type not in MEDIA_TYPES[kind]:
        raise UnsupportedTypeError(f"a {kind} is no {document.media_type}")
    current = await in_force(vault, conn)
    before = judge(found.facts, current.policy, current.grace)
    after = judge(replace(found.facts, kind=kind.value), current.policy, current.grace)
    if not loosens(before, after, vault.clock()):
        return
    subject = correction_of(document.id, kind)
    if approval is None:
        raise FloorError(
            f"a {document.kind} is kept longer than a {kind}: a second person has to agree; ask "
            f"with `portvault approval request --act {Act.CORRECT} --subject {subject} "
            f"--region {document.region} --reason wrong-kind`, and name the approval"
        )
    await use(access, conn, approval, Terms(Act.CORRECT, subject, document.region))


@dataclass(frozen=True, slots=True)
class Changed:
    """What is to be said of an order instead; None leaves it as it is, "" takes it away."""

    numbers: list[str] | None = None
    customer_reference: str | None = None
    type: str | None = None
    losing_carrier: str | None = None
    gaining_carrier: str | None = None
    #: Whose it is, of an order that a restore brought back and of which nobody knew.
    customer: str | None = None

    def names(self) -> list[str]:
        """Return what is changed, by name: what the log says of it."""
        return [name for name in self.__slots__ if getattr(self, name) is not None]

    def applied(self, details: Details) -> Details:
        """Return the details with the changes, checked as those of a new order."""
        if self.names() == ["customer"]:
            return details

        def said(name: str) -> str | None:
            wanted: str | None = getattr(self, name)
            kept: str | None = getattr(details, name)
            return kept if wanted is None else wanted or None

        return check_details(
            list(details.numbers) if self.numbers is None else self.numbers,
            said("customer_reference"),
            port_type=said("type"),
            losing_carrier=said("losing_carrier"),
            gaining_carrier=said("gaining_carrier"),
        )


async def correct_order(
    vault: Vault, principal: Principal, identity: UUID, changed: Changed
) -> OrderView:
    """
    Say the details of an order anew; it is found by the new numbers and reference only.

    Its customer is said once, of an order that a restore brought back without.
    """
    if not changed.names():
        raise InvalidRequestError("say what is to be corrected")
    if changed.customer is not None:
        check_customer(changed.customer)
    async with connection(vault.pool) as conn:
        order = await orders_sql.find(conn, identity)
    async with recorded(
        vault,
        principal,
        Action.ORDER_CORRECT,
        region=order.region if order else None,
        order=identity,
    ) as access:
        if order is None:
            raise NotFoundError
        return await _corrected(access, principal, order, changed)


@retried
async def _corrected(
    access: Access, principal: Principal, order: Order, changed: Changed
) -> OrderView:
    vault, identity = access.vault, order.id
    index, key = await index_key(vault, order.region)
    async with transaction(vault.pool) as conn:
        new, old = await _encrypt_anew(access, conn, identity, changed)
        warnings = check_placement(
            vault.rules.placements,
            order.region,
            numbers=new.numbers if new.numbers != old.numbers else (),
            customer=order.customer,
            principal=principal,
        )
        if new != old:
            await details_sql.forget_orders(conn, [identity])
            marks = marks_of(key, new)
            if not await details_sql.insert_numbers(conn, order.region, index, identity, marks):
                # The index's key was replaced meanwhile.
                raise StaleScopeError
        said = " ".join(changed.names())
        await log_sql.insert_records(conn, [access.conclude(reason=said)])
    view = await view_order(access, principal, identity)
    return replace(view, warnings=warnings)


async def _encrypt_anew(
    access: Access, conn: Connection, identity: UUID, changed: Changed
) -> tuple[Details, Details]:
    """Replace the encrypted details; returns them as they are now, and as they were."""
    await retention_sql.freeze_holds(conn, access.intent.region)
    order = await orders_sql.find(conn, identity, lock=True)
    wrapped = await orders_sql.details_key(conn, identity)
    if order is None:
        raise NotFoundError
    # What a restore could not bring back is said, not rewritten: a hold does not mind.
    fills = set(changed.names()) <= set(order.not_known or ())
    if not fills and await holds_sql.holds_order(conn, identity):
        raise HeldError("a hold keeps this order as it is; it is corrected after its release")
    details = await opened(access, order, wrapped)
    if details is None or wrapped is None:
        raise ConflictError("the order's details are gone: there is nothing to correct")
    new = changed.applied(details)
    if changed.customer is not None:
        await _say_customer(conn, order, changed.customer)
    key = await access.unwrap(wrapped, order=identity)
    encrypted = key.encrypt(encode_details(new), details_context(order.region, identity))
    await orders_sql.set_details(conn, identity, encrypted, changed.names())
    return new, details


async def _say_customer(conn: Connection, order: Order, customer: str) -> None:
    if order.customer not in (UNKNOWN_CUSTOMER, customer):
        raise ConflictError("whose order it is stands fast; only of a recovered one it is said")
    # Saying whose it is takes it out of nobody's hold; its release is for two people.
    await holds_sql.keep_under(conn, order.id, order.region, customer)
    await orders_sql.set_customer(conn, order.id, customer)
    await retention_sql.look_again_at_orders(conn, [order.id])
