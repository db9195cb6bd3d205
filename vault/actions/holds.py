"""
Hold: keep documents whatever their time is, as long as a case goes on; release it with four eyes.

A hold is placed only when everybody who shreds by what holds were has ended, and nobody shreds
until it stands: what is answered with its id is kept.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from vault.actions.access import Access, own_regions, recorded, served
from vault.actions.approvals import use
from vault.actions.signals import tell
from vault.context import Vault
from vault.domain.access import Action, Principal
from vault.domain.approvals import Act, Terms
from vault.domain.documents import Custody, Document
from vault.domain.holds import (
    Hold,
    Restriction,
    Targets,
    check_reference,
    check_targets,
    check_text,
    covers,
)
from vault.domain.orders import check_customer
from vault.domain.records import Record
from vault.domain.signals import SignalType, hold_signal
from vault.errors import ConflictError, ForbiddenError, NotFoundError
from vault.sql import documents as documents_sql
from vault.sql import holds as holds_sql
from vault.sql import log as log_sql
from vault.sql import retention as retention_sql
from vault.sql.connection import Connection, connection, transaction


@dataclass(frozen=True, slots=True)
class HoldView:
    """A hold and what it covers."""

    hold: Hold
    targets: Targets


async def place_hold(
    vault: Vault,
    principal: Principal,
    *,
    region: str,
    reason: str,
    authority: str,
    reference: str | None,
    targets: Targets,
) -> HoldView:
    """Place a hold; raises `ConflictError` when what it is to keep is shredded already."""
    check_targets(targets)
    for customer in targets.customers:
        check_customer(customer)
    hold = Hold(
        id=vault.new_id(),
        region=region,
        reason=check_text("reason", reason),
        authority=check_text("authority", authority),
        reference=check_reference(reference),
        placed_by=principal.id,
        placed_at=vault.clock(),
    )
    async with recorded(
        vault,
        principal,
        Action.HOLD_PLACE,
        region=served(vault, region),
        document=targets.documents[0] if len(targets.documents) == 1 else None,
        order=targets.orders[0] if len(targets.orders) == 1 else None,
        reference=hold_name(hold.id),
    ) as access:
        async with transaction(vault.pool) as conn:
            await retention_sql.change_holds(conn, region)
            await _check_there(conn, region, targets)
            await holds_sql.insert(conn, hold, targets)
            placed = hold_signal(SignalType.HOLD_PLACED, hold.id, region, hold.placed_at)
            await tell(vault, conn, [placed])
            await _look_again(conn, region, targets)
            await log_sql.insert_records(conn, _said(access, targets))
        return HoldView(hold, targets)


def _said(access: Access, targets: Targets) -> list[Record]:
    """Return the outcome, and before it what is covered: a restore places the hold anew by it."""
    documents, orders = sorted(set(targets.documents)), sorted(set(targets.orders))
    note = access.note("covered")
    named = [replace(note, id=access.vault.new_id(), document=one, order=None) for one in documents]
    named += [replace(note, id=access.vault.new_id(), document=None, order=one) for one in orders]
    count = len(documents) + len(orders) + len(set(targets.customers))
    return [*(named if count > 1 else []), access.conclude(reason=covers(count))]


def hold_name(hold: UUID) -> str:
    """Return what a record calls a hold."""
    return f"hold/{hold}"


async def _check_there(conn: Connection, region: str, targets: Targets) -> None:
    documents = await holds_sql.regions_of_documents(conn, targets.documents)
    orders = await holds_sql.regions_of_orders(conn, targets.orders)
    for what, wanted, found in (
        ("document", targets.documents, documents),
        ("order", targets.orders, orders),
    ):
        for identity in wanted:
            if found.get(identity) != region:
                raise NotFoundError(f"there is no {what} {identity} in {region}")
    if shredded := await holds_sql.shredded_among(conn, targets.documents):
        raise ConflictError(f"document {shredded[0]} is shredded already; no hold brings it back")
    if gone := await holds_sql.gone_orders(conn, targets.orders):
        raise ConflictError(
            f"order {gone[0]} has ended, and its documents and details are gone: there is nothing "
            "to keep"
        )


async def _look_again(conn: Connection, region: str, targets: Targets) -> None:
    await retention_sql.look_again(conn, region, targets.documents)
    await retention_sql.look_again_at_orders(conn, targets.orders)
    await retention_sql.look_again_at_customers(conn, region, targets.customers)


async def show_hold(vault: Vault, principal: Principal, identity: UUID) -> HoldView:
    """Return a hold, released or not."""
    async with connection(vault.pool) as conn:
        hold = await holds_sql.find(conn, identity)
        targets = await holds_sql.targets(conn, identity)
    async with recorded(
        vault,
        principal,
        Action.HOLD_READ,
        region=hold.region if hold else None,
        reference=hold_name(identity),
    ):
        if hold is None:
            raise NotFoundError
        return HoldView(hold, targets)


async def list_holds(
    vault: Vault, principal: Principal, before: tuple[datetime, UUID] | None, limit: int
) -> list[Hold]:
    """Return a page of the holds of the principal's regions, newest first."""
    mine = own_regions(vault, principal)
    async with (
        recorded(vault, principal, Action.HOLD_READ, region=mine),
        connection(vault.pool) as conn,
    ):
        return await holds_sql.page(conn, mine, before, limit)


async def release_hold(
    vault: Vault, principal: Principal, identity: UUID, reason: str, approval: UUID | None
) -> HoldView:
    """
    Release a hold that somebody else has agreed to release.

    What it kept is judged anew, and goes when its time has come and no other hold keeps it.
    """
    said = check_text("reason", reason)
    async with connection(vault.pool) as conn:
        hold = await holds_sql.find(conn, identity)
    async with recorded(
        vault,
        principal,
        Action.HOLD_RELEASE,
        region=hold.region if hold else None,
        reference=hold_name(identity),
    ) as access:
        if hold is None:
            raise NotFoundError
        async with transaction(vault.pool) as conn:
            await retention_sql.change_holds(conn, hold.region)
            hold = await holds_sql.find(conn, identity, lock=True)
            if hold is None:
                raise NotFoundError
            if hold.released_at is not None:
                raise ConflictError("this hold was released before")
            if approval is None:
                raise ForbiddenError(
                    "somebody else has to agree first: ask for hold.release with this hold's id as "
                    "the subject (POST /v1/approvals), and name the approval here"
                )
            terms = Terms(Act.HOLD_RELEASE, str(identity), hold.region)
            used = await use(access, conn, approval, terms)
            await holds_sql.release(
                conn,
                identity,
                by=principal.id,
                reason=said,
                approved_by=used.approved_by,
                now=vault.clock(),
            )
            targets = await holds_sql.targets(conn, identity)
            await _look_again(conn, hold.region, targets)
            released = hold_signal(SignalType.HOLD_RELEASED, identity, hold.region, vault.clock())
            await tell(vault, conn, [released])
            await log_sql.insert_records(conn, [access.conclude()])
            hold = await holds_sql.find(conn, identity)
        if hold is None:
            raise NotFoundError
        return HoldView(hold, targets)


# ---- Restrict: keep a document and let nobody read it (GDPR art. 18), until that is lifted. -----
#
# A restriction stops reading, and nothing else: the document's time goes on.


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
