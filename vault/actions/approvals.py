"""
Four eyes: ask, agree or decline, withdraw, and use what was agreed to, once.

The record of an act that took an approval names it: `use` writes which one between the act's intent
and its outcome, in the transaction of the act itself.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from uuid import UUID

from vault.actions.access import Access, own_regions, recorded, served
from vault.actions.once import KeyReusedError, Once
from vault.context import Vault
from vault.domain.access import Action, Principal, Role
from vault.domain.approvals import (
    Approval,
    State,
    Terms,
    check_approval,
    check_end,
    check_request,
    check_use,
)
from vault.domain.credentials import Lineage
from vault.domain.masking import mask_numbers
from vault.errors import ConflictError, ForbiddenError, NotFoundError
from vault.sql import access as access_sql
from vault.sql import approvals as approvals_sql
from vault.sql import log as log_sql
from vault.sql.connection import Connection, connection, transaction


async def request_approval(
    vault: Vault,
    principal: Principal,
    terms: Terms,
    *,
    reason: str,
    idempotency_key: str | None = None,
) -> Approval:
    """Ask for an act on these terms; it lapses when nobody agrees within `approval_seconds`."""
    once = Once(principal, idempotency_key)
    identity, now = vault.new_id(), vault.clock()
    async with recorded(
        vault,
        principal,
        Action.APPROVAL_REQUEST,
        region=served(vault, terms.region),
        reference=_named(identity),
    ) as access:
        check_request(principal.role, terms, reason)
        if earlier := await once.earlier(vault):
            return await _asked_before(vault, earlier, terms, reason)
        approval = Approval(
            id=identity,
            terms=terms,
            reason=reason,
            requested_by=principal.id,
            requested_at=now,
            expires_at=now + timedelta(seconds=vault.config.approval_seconds),
        )
        async with transaction(vault.pool) as conn:
            await approvals_sql.insert(conn, approval)
            await once.claim(conn, identity, now)
            await log_sql.insert_records(conn, [access.conclude(reason=_said(terms))])
        return approval


async def list_approvals(
    vault: Vault, principal: Principal, before: tuple[datetime, UUID] | None, limit: int
) -> list[Approval]:
    """Return a page of what was asked for in the principal's regions, newest first."""
    mine = own_regions(vault, principal)
    async with (
        recorded(vault, principal, Action.APPROVAL_LIST, region=mine),
        connection(vault.pool) as conn,
    ):
        # A desk sees its own requests; what others ask for is for those who oversee them.
        by = principal.id if principal.role == Role.PORTING else None
        return await approvals_sql.page(conn, mine, by, before, limit)


async def approve(vault: Vault, principal: Principal, identity: UUID) -> Approval:
    """Agree to what somebody else asked for; it is good for `approval_seconds`, and once."""
    async with _changing(vault, principal, identity, Action.APPROVAL_APPROVE) as (conn, approval):
        # Sent again by who approved it, it is answered as the first time.
        if approval.approved_by != principal.id or approval.ended_as is not None:
            now = vault.clock()
            lineage = await access_sql.find_lineage(conn, [approval.requested_by, principal.id])
            check_approval(approval, principal, vault.config.regions, lineage, now)
            until = now + timedelta(seconds=vault.config.approval_seconds)
            await approvals_sql.set_approved(
                conn, identity, by=principal.id, now=now, expires_at=until
            )
    return await _find(vault, identity)


async def decline(vault: Vault, principal: Principal, identity: UUID) -> Approval:
    """Refuse what somebody else asked for, or what was agreed to and is not used yet."""
    return await _end(vault, principal, identity, Action.APPROVAL_DECLINE, State.DECLINED)


async def withdraw(vault: Vault, principal: Principal, identity: UUID) -> Approval:
    """Take one's own request back, agreed to or not, as long as it is not used."""
    return await _end(vault, principal, identity, Action.APPROVAL_WITHDRAW, State.WITHDRAWN)


async def _end(
    vault: Vault, principal: Principal, identity: UUID, action: Action, ending: State
) -> Approval:
    async with _changing(vault, principal, identity, action) as (conn, approval):
        # Sent again, it is answered as the first time.
        if (approval.ended_as, approval.ended_by) != (ending, principal.id):
            now = vault.clock()
            check_end(approval, principal, ending, now)
            await approvals_sql.set_ended(conn, identity, by=principal.id, ending=ending, now=now)
    return await _find(vault, identity)


@asynccontextmanager
async def _changing(
    vault: Vault, principal: Principal, identity: UUID, action: Action
) -> AsyncIterator[tuple[Connection, Approval]]:
    """Record the action and lock the approval; the outcome is part of its transaction."""
    async with connection(vault.pool) as conn:
        found = await approvals_sql.find(conn, identity)
    async with (
        recorded(
            vault,
            principal,
            action,
            region=found.terms.region if found else None,
            reference=_named(identity),
        ) as access,
        transaction(vault.pool) as conn,
    ):
        approval = await approvals_sql.find(conn, identity, lock=True)
        if approval is None:
            raise NotFoundError
        yield conn, approval
        await log_sql.insert_records(conn, [access.conclude(reason=_said(approval.terms))])


async def unapproved(
    vault: Vault, principal: Principal, identity: UUID, terms: Terms
) -> str | None:
    """
    Return why an approval does not let the principal do this now, in a sentence.

    None where it does; `use` uses it up.
    """
    async with connection(vault.pool) as conn:
        approval = await approvals_sql.find(conn, identity)
        if approval is None:
            return "there is no such approval"
        lineage = await _lineage(conn, approval)
    try:
        check_use(approval, terms, principal.id, lineage, vault.clock())
    except (ForbiddenError, ConflictError) as error:
        return str(error)
    return None


async def use(access: Access, conn: Connection, identity: UUID, terms: Terms) -> Approval:
    """
    Use an approval up, within the transaction that does what it is for.

    Who acts is what `access` says. Raises `ForbiddenError` when it is not for exactly these terms
    and this principal, or was not approved by somebody else; `ConflictError` when it lapsed, was
    used, declined or withdrawn. If the transaction is rolled back, the approval is as good as
    before.
    """
    vault, intent = access.vault, access.intent
    approval = await approvals_sql.find(conn, identity, lock=True)
    if approval is None:
        raise ForbiddenError("there is no such approval")
    check_use(approval, terms, intent.principal, await _lineage(conn, approval), vault.clock())
    await approvals_sql.set_used(conn, identity, vault.clock())
    notes = [one.note(_named(identity)) for one in access.everywhere]
    await log_sql.insert_records(conn, notes)
    return approval


async def _lineage(conn: Connection, approval: Approval) -> Lineage:
    parties = [approval.requested_by, approval.approved_by]
    return await access_sql.find_lineage(conn, [party for party in parties if party is not None])


async def _find(vault: Vault, identity: UUID) -> Approval:
    async with connection(vault.pool) as conn:
        found = await approvals_sql.find(conn, identity)
    if found is None:
        raise NotFoundError
    return found


async def _asked_before(vault: Vault, identity: UUID, terms: Terms, reason: str) -> Approval:
    """Return what an Idempotency-Key asked for before; raises when it was something else."""
    try:
        found = await _find(vault, identity)
    except NotFoundError:
        raise KeyReusedError from None
    if (found.terms, found.reason) != (terms, reason):
        raise KeyReusedError
    return found


def _named(identity: UUID) -> str:
    return f"approval/{identity}"


def _said(terms: Terms) -> str:
    return mask_numbers(terms.text())
