"""
Four eyes: ask, agree, and use what was agreed to, once.

The record of an act that took an approval names it: `use` writes which one between the act's intent
and its outcome, in the transaction of the act itself.
"""

import hashlib
from datetime import datetime, timedelta
from uuid import UUID

from vault.actions.access import Access, own_regions, recorded
from vault.actions.once import Once
from vault.context import Vault
from vault.domain.access import Action, Principal
from vault.domain.approvals import Act, Approval, check_approval, check_request, check_use
from vault.domain.masking import mask_numbers
from vault.errors import ConflictError, ForbiddenError, InvalidRequestError, NotFoundError
from vault.sql import approvals as approvals_sql
from vault.sql import log as log_sql
from vault.sql.connection import Connection, connection, transaction


async def request_approval(
    vault: Vault,
    principal: Principal,
    *,
    act: Act,
    subject: str,
    region: str,
    reason: str,
    idempotency_key: str | None = None,
) -> Approval:
    """Ask for an act upon `subject`; it lapses when nobody agrees within `approval_seconds`."""
    if region not in vault.config.regions:
        raise InvalidRequestError(f"region must be one of {', '.join(vault.config.regions)}")
    asked = hashlib.sha256(repr((act, subject, region, reason)).encode()).digest()
    once = Once(principal, idempotency_key, asked)
    identity, now = vault.new_id(), vault.clock()
    async with recorded(
        vault, principal, Action.APPROVAL_REQUEST, region=region, reference=_named(identity)
    ) as access:
        check_request(principal.role, act, subject, reason)
        if earlier := await once.earlier(vault):
            return await _find(vault, earlier)
        approval = Approval(
            id=identity,
            act=act,
            subject=subject,
            region=region,
            reason=reason.strip(),
            requested_by=principal.id,
            requested_at=now,
            expires_at=now + timedelta(seconds=vault.config.approval_seconds),
        )
        async with transaction(vault.pool) as conn:
            await approvals_sql.insert(conn, approval)
            await once.claim(conn, identity, now)
            await log_sql.insert_records(conn, [access.conclude(reason=_what(approval))])
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
        return await approvals_sql.page(conn, mine, before, limit)


async def approve(vault: Vault, principal: Principal, identity: UUID) -> Approval:
    """Agree to what somebody else asked for; it is good for `approval_seconds`, and once."""
    async with connection(vault.pool) as conn:
        found = await approvals_sql.find(conn, identity)
    async with recorded(
        vault,
        principal,
        Action.APPROVAL_APPROVE,
        region=found.region if found else None,
        reference=_named(identity),
    ) as access:
        async with transaction(vault.pool) as conn:
            approval = await approvals_sql.find(conn, identity, lock=True)
            if approval is None:
                raise NotFoundError
            now = vault.clock()
            # Sent again by who approved it, it is answered as the first time.
            if approval.approved_by != principal.id:
                check_approval(approval, principal, vault.config.regions, now)
                until = now + timedelta(seconds=vault.config.approval_seconds)
                await approvals_sql.set_approved(
                    conn, identity, by=principal.id, now=now, expires_at=until
                )
            await log_sql.insert_records(conn, [access.conclude(reason=_what(approval))])
        return await _find(vault, identity)


async def is_approved(
    vault: Vault, principal: Principal, identity: UUID | None, act: Act, subject: str, region: str
) -> bool:
    """Whether the approval, if one is named, lets the principal do this now; `use` uses it up."""
    if identity is None:
        return False
    async with connection(vault.pool) as conn:
        approval = await approvals_sql.find(conn, identity)
    if approval is None:
        return False
    try:
        check_use(approval, act, subject, region, principal.id, vault.clock())
    except (ForbiddenError, ConflictError):
        return False
    return True


async def use(access: Access, conn: Connection, identity: UUID, act: Act, subject: str) -> Approval:
    """
    Use an approval up, within the transaction that does what it is for.

    Who acts and where is what `access` says. Raises `ForbiddenError` when it is not for this act,
    subject, region or principal, or not approved; `ConflictError` when it lapsed or was used. If
    the transaction is rolled back, the approval is as good as before.
    """
    vault, intent = access.vault, access.intent
    approval = await approvals_sql.find(conn, identity, lock=True)
    if approval is None:
        raise ForbiddenError("there is no such approval")
    check_use(approval, act, subject, intent.region, intent.principal, vault.clock())
    await approvals_sql.set_used(conn, identity, vault.clock())
    notes = [one.note(_named(identity)) for one in access.everywhere]
    await log_sql.insert_records(conn, notes)
    return approval


async def _find(vault: Vault, identity: UUID) -> Approval:
    async with connection(vault.pool) as conn:
        found = await approvals_sql.find(conn, identity)
    if found is None:
        raise NotFoundError
    return found


def _named(identity: UUID) -> str:
    return f"approval/{identity}"


def _what(approval: Approval) -> str:
    return f"{approval.act} {mask_numbers(approval.subject)}"
