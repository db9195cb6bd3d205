"""
The retention policy in force: it stands in the database, so that every process judges by the same.

The operator's file is where a policy comes from. The first one is put in force by the first start;
another only by `apply_policy`, which shows the effect before, and needs a second person when it
shortens.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import lru_cache
from uuid import UUID

from vault.actions.access import Access, own_regions, recorded, served
from vault.actions.approvals import use
from vault.config.policies import load_policy
from vault.config.settings import Config
from vault.context import Vault
from vault.domain.access import Action, Principal
from vault.domain.approvals import Act, Terms
from vault.domain.certificates import PolicyUsed
from vault.domain.documents import FAX, Custody, Document
from vault.domain.faxes import Fax
from vault.domain.holds import check_reference
from vault.domain.orders import check_customer
from vault.domain.retention import (
    Change,
    GivenInstruction,
    InstructionView,
    Policy,
    changes,
    check_faxes,
    check_keep,
    check_kind,
    conflicts,
    fax_custody,
    judge,
    parse_policy,
)
from vault.errors import ConflictError, ForbiddenError, NotFoundError
from vault.sql import expiry as expiry_sql
from vault.sql import log as log_sql
from vault.sql import retention as retention_sql
from vault.sql.connection import Connection, connection, transaction

BATCH = 2000
NAMED_MAX = 200
FIRST_BY = "first-start"


@dataclass(frozen=True, slots=True)
class InForce:
    """A version of the policy, and how long an end waits for its reversal."""

    version: int
    policy: Policy
    grace: timedelta


@dataclass(frozen=True, slots=True)
class FaxCustody:
    """How long faxes of one region wait for their delivery at most, and what says so."""

    version: int
    row: str
    keep_max: timedelta


@dataclass(frozen=True, slots=True)
class SeenFax:
    """A fax as its row says, and when it is shredded at the latest; None once it is."""

    fax: Fax
    expires_at: datetime | None


@lru_cache(maxsize=8)
def _parsed(text: str) -> Policy:
    """Return the rules of a policy's text; raises `ConfigurationError` naming a row."""
    return parse_policy(text)


async def in_force(vault: Vault, conn: Connection) -> InForce:
    """Return the policy in force; raises `ConfigurationError` if this release cannot read it."""
    applied = await retention_sql.newest_policy(conn)
    if applied is None:
        return InForce(0, _parsed(vault.policy_text), _grace_setting(vault))
    return InForce(applied.version, _parsed(applied.text), _grace_of(vault, applied))


async def fax_custody_of(config: Config, conn: Connection, region: str) -> FaxCustody:
    """Return how long faxes of a region wait for their delivery, by the policy in force."""
    applied = await retention_sql.newest_policy(conn)
    policy = _parsed(applied.text if applied else load_policy(config))
    rule = fax_custody(policy, region)
    return FaxCustody(applied.version if applied else 0, rule.row, rule.keep_max)


async def seen_faxes(config: Config, conn: Connection, faxes: Sequence[Fax]) -> list[SeenFax]:
    """Return faxes, in their order, with the times at which the policy in force shreds them."""
    custody = {
        region: (await fax_custody_of(config, conn, region)).keep_max
        for region in {fax.region for fax in faxes}
    }
    return [
        SeenFax(
            fax,
            fax.received_at + custody[fax.region] if fax.custody is Custody.STORED else None,
        )
        for fax in faxes
    ]


def _grace_of(vault: Vault, applied: retention_sql.AppliedPolicy) -> timedelta:
    return _grace_setting(vault) if applied.grace is None else applied.grace


def _grace_setting(vault: Vault) -> timedelta:
    return timedelta(seconds=vault.config.reversal_grace_seconds)


async def policy_used(vault: Vault, conn: Connection, document: Document) -> PolicyUsed:
    """Return by which row a document was shredded, from the policy that stood then."""
    applied = await retention_sql.find_policy(conn, document.reviewed)
    policy = _parsed(applied.text) if applied else (await in_force(vault, conn)).policy
    rules = [
        rule
        for rule in policy.values()
        if (rule.kind, rule.region) == (document.kind.value, document.region)
    ]
    rule = next((rule for rule in rules if rule.row == document.retention_row), rules[0])
    return PolicyUsed(
        version=applied.version if applied else 0,
        row=rule.row,
        citation=rule.citation,
        applied_by=applied.applied_by if applied else FIRST_BY,
        approved_by=applied.approved_by if applied else None,
    )


async def start_policy(vault: Vault) -> bool:
    """Put the first policy in force; returns whether the operator's file is what is in force."""
    shipped = _parsed(vault.policy_text)
    check_faxes(shipped)
    async with transaction(vault.pool) as conn:
        await retention_sql.lock_policy(conn)
        if await retention_sql.newest_policy(conn) is None:
            await retention_sql.insert_policy(conn, _first(vault))
        return (await in_force(vault, conn)).policy == shipped


async def start_grace(vault: Vault) -> timedelta | None:
    """
    Put the grace of the settings in force; returns the earlier one where that was another.

    It is a new version of the policy in force, so that every document is judged anew by it, in
    every process: the one that served or worked last said it. Commands of the operator do not.
    """
    grace = _grace_setting(vault)
    async with transaction(vault.pool) as conn:
        await retention_sql.lock_policy(conn)
        newest = await retention_sql.newest_policy(conn) or _first(vault)
        if newest.grace == grace:
            return None
        version = replace(newest, version=newest.version + 1, grace=grace, applied_at=vault.clock())
        await retention_sql.insert_policy(conn, version)
        return newest.grace


def _first(vault: Vault) -> retention_sql.AppliedPolicy:
    return retention_sql.AppliedPolicy(
        1, vault.policy_text, vault.clock(), FIRST_BY, None, _grace_setting(vault)
    )


def policy_subject(text: str) -> str:
    """Return by what an approval names a policy: the SHA-256 of its text."""
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(slots=True)
class Effect:
    """What a policy would change, how many documents and faxes it lets go at once, and which."""

    subject: str
    changes: list[Change]
    at_once: int = 0
    documents: list[UUID] = field(default_factory=list)
    by_kind: dict[str, int] = field(default_factory=dict)

    @property
    def shortens(self) -> bool:
        """Whether a second person is needed."""
        return any(change.shortens for change in self.changes)


async def policy_effect(vault: Vault, principal: Principal, text: str) -> Effect:
    """Say what a policy would do; changes nothing. Raises `ConfigurationError` naming a row."""
    async with recorded(vault, principal, Action.POLICY_READ, region=vault.config.regions):
        return await _effect(vault, text)


async def _effect(vault: Vault, text: str) -> Effect:
    new = _parsed(text)
    check_faxes(new)
    async with connection(vault.pool) as conn:
        now = await in_force(vault, conn)
    effect = Effect(policy_subject(text), changes(now.policy, new))
    for region in vault.config.regions:
        kinds = {change.new.kind for change in effect.changes if change.new.region == region}
        if kinds:
            await _count(vault, region, sorted(kinds), now, new, effect)
        if FAX in kinds:
            await _count_faxes(vault, region, now.policy, new, effect)
    return effect


async def _count(
    vault: Vault, region: str, kinds: list[str], now: InForce, new: Policy, effect: Effect
) -> None:
    after, at = None, vault.clock()
    while True:
        async with connection(vault.pool) as conn:
            page = await retention_sql.stored_of_kinds(conn, region, kinds, after, BATCH)
        for item in page:
            before = judge(item.facts, now.policy, now.grace).due_at
            due_at = judge(item.facts, new, now.grace).due_at
            if due_at is not None and due_at <= at and (before is None or before > at):
                effect.at_once += 1
                name = f"{item.document.kind} in {region}"
                effect.by_kind[name] = effect.by_kind.get(name, 0) + 1
                if len(effect.documents) < NAMED_MAX:
                    effect.documents.append(item.document.id)
        if len(page) < BATCH:
            return
        after = page[-1].document.id


async def _count_faxes(vault: Vault, region: str, old: Policy, new: Policy, effect: Effect) -> None:
    """Add the faxes that wait and would go at once, and would not go yet by the policy in force."""
    at = vault.clock()
    after, before = (at - fax_custody(policy, region).keep_max for policy in (old, new))
    if after >= before:
        return
    async with connection(vault.pool) as conn:
        count = await expiry_sql.faxes_that_came(conn, region, after, before)
    if count:
        effect.at_once += count
        effect.by_kind[f"{FAX} in {region}"] = count


async def apply_policy(
    vault: Vault, principal: Principal, text: str, approval: UUID | None
) -> tuple[int, Effect]:
    """
    Put a policy in force everywhere, and return its version with its effect.

    Documents are judged anew by the worker. Raises `ForbiddenError` when it shortens and no
    approval is named.
    """
    served = vault.config.regions
    async with recorded(vault, principal, Action.POLICY_APPLY, region=served) as access:
        effect = await _effect(vault, text)
        async with transaction(vault.pool) as conn:
            await retention_sql.lock_policy(conn)
            current = await in_force(vault, conn)
            if current.policy == _parsed(text):
                raise ConflictError("this policy says what is in force already")
            # Somebody may have applied another one since the effect was computed.
            found = changes(current.policy, _parsed(text))
            _check_own(vault, principal, found)
            approved_by = None
            if any(change.shortens for change in found):
                approved_by = await _second_person(access, conn, approval, effect)
            version = current.version + 1
            applied = retention_sql.AppliedPolicy(
                version, text, vault.clock(), principal.id, approved_by, current.grace
            )
            await retention_sql.insert_policy(conn, applied)
            await log_sql.insert_records(conn, access.conclude_everywhere())
        return version, effect


def _check_own(vault: Vault, principal: Principal, found: list[Change]) -> None:
    """Raise unless every region whose documents are judged otherwise is the principal's own."""
    touched = {change.new.region for change in found} & set(vault.config.regions)
    if others := sorted(touched - principal.regions):
        raise ForbiddenError(f"this policy changes {', '.join(others)}, and that is not yours")


async def _second_person(
    access: Access, conn: Connection, approval: UUID | None, effect: Effect
) -> str | None:
    if approval is None:
        raise ForbiddenError(
            f"this policy shortens what is kept, and {effect.at_once} documents and faxes would go "
            "at once: "
            "a second person has to agree; ask with `portvault approval request --act "
            f"policy.shorten --subject {effect.subject} --region {access.intent.region} "
            "--reason law-changed`, or another reason"
        )
    terms = Terms(Act.POLICY_SHORTEN, effect.subject, access.intent.region)
    used = await use(access, conn, approval, terms)
    return used.approved_by


# ---- Instruct: keep what a customer asks for, between the policy's floor and its ceiling. -------
#
# Outside them the instruction is kept, too, but contradicts the policy: documents stand in
# conflict, under the policy's ceiling, until somebody resolves it. Nothing is decided silently.


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
