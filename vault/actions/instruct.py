"""
Instruct: keep what a customer asks for, between the policy's floor and its ceiling.

Outside them the instruction is kept, too, but contradicts the policy: documents stand in conflict,
under the policy's ceiling, until somebody resolves it. Nothing is decided silently.
"""

from datetime import datetime
from uuid import UUID

from vault.actions.access import own_regions, recorded, served
from vault.actions.policy import in_force
from vault.context import Vault
from vault.domain.access import Action, Principal
from vault.domain.holds import check_reference
from vault.domain.orders import check_customer
from vault.domain.retention import (
    GivenInstruction,
    InstructionView,
    Policy,
    check_keep,
    check_kind,
    conflicts,
)
from vault.errors import ConflictError, NotFoundError
from vault.sql import log as log_sql
from vault.sql import retention as retention_sql
from vault.sql.connection import connection, transaction


async def give_instruction(
    vault: Vault,
    principal: Principal,
    *,
    region: str,
    customer: str,
    kind: str | None,
    keep: str,
    reference: str | None,
) -> InstructionView:
    """Keep an instruction in place of the one before; the answer names what it contradicts."""
    given = GivenInstruction(
        id=vault.new_id(),
        region=region,
        customer=check_customer(customer),
        kind=check_kind(kind),
        keep=check_keep(keep),
        reference=check_reference(reference),
        given_by=principal.id,
        given_at=vault.clock(),
    )
    async with recorded(
        vault,
        principal,
        Action.INSTRUCTION_GIVE,
        region=served(vault, region),
        customer=given.customer,
        reference=_name(given.id),
    ) as access:
        async with transaction(vault.pool) as conn:
            await retention_sql.supersede_instruction(conn, given)
            await retention_sql.look_again_at_customers(conn, region, [given.customer])
            policy = (await in_force(vault, conn)).policy
            await log_sql.insert_records(conn, [access.conclude()])
        return _view(given, policy)


async def list_instructions(
    vault: Vault,
    principal: Principal,
    customer: str | None,
    before: tuple[datetime, UUID] | None,
    limit: int,
) -> list[InstructionView]:
    """Return a page of instructions of the principal's regions, newest first."""
    mine = own_regions(vault, principal)
    theirs = principal.customers
    if customer is not None:
        theirs = frozenset({customer}) & (frozenset({customer}) if theirs is None else theirs)
    async with (
        recorded(vault, principal, Action.INSTRUCTION_READ, region=mine),
        connection(vault.pool) as conn,
    ):
        policy = (await in_force(vault, conn)).policy
        found = await retention_sql.page_of_instructions(
            conn, mine, None if theirs is None else sorted(theirs), before, limit
        )
        return [_view(given, policy) for given in found]


async def resolve_instruction(
    vault: Vault, principal: Principal, identity: UUID
) -> InstructionView:
    """Resolve its conflicts: follow it as nearly as the policy allows."""
    return await _end(vault, principal, identity, withdraw=False)


async def withdraw_instruction(
    vault: Vault, principal: Principal, identity: UUID
) -> InstructionView:
    """End it: from now on the policy's ceiling stands."""
    return await _end(vault, principal, identity, withdraw=True)


async def _end(
    vault: Vault, principal: Principal, identity: UUID, *, withdraw: bool
) -> InstructionView:
    async with connection(vault.pool) as conn:
        found = await retention_sql.find_instruction(conn, identity)
    async with recorded(
        vault,
        principal,
        Action.INSTRUCTION_WITHDRAW if withdraw else Action.INSTRUCTION_RESOLVE,
        region=found.region if found else None,
        reference=_name(identity),
    ) as access:
        async with transaction(vault.pool) as conn:
            given = await retention_sql.find_instruction(conn, identity, lock=True)
            if given is None:
                raise NotFoundError
            if given.withdrawn_at is not None:
                raise ConflictError("this instruction was withdrawn, or another took its place")
            change = (
                retention_sql.withdraw_instruction
                if withdraw
                else retention_sql.set_nearest_instruction
            )
            await change(conn, identity, principal.id, vault.clock())
            await retention_sql.look_again_at_customers(conn, given.region, [given.customer])
            await log_sql.insert_records(conn, [access.conclude()])
            policy = (await in_force(vault, conn)).policy
            changed = await retention_sql.find_instruction(conn, identity)
        if changed is None:
            raise NotFoundError
        return _view(changed, policy)


def _view(given: GivenInstruction, policy: Policy) -> InstructionView:
    settled = given.withdrawn_at is not None or given.nearest_at is not None
    found = [] if settled else conflicts(given.keep, given.kind, given.region, policy)
    return InstructionView(given, tuple(found))


def _name(instruction: UUID) -> str:
    return f"instruction/{instruction}"
