"""
Shred: put a document beyond use on request.

Its data key leaves the tree in the same transaction that says so and records it. It is
irrecoverable once the generation that knew it is destroyed; see `actions/keys.py`. A floor of the
policy and a hold refuse it, whoever asks, and the refusal is recorded with its ground. What goes by
itself is the business of `actions/expire.py`.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Protocol
from uuid import UUID

from vault.actions.access import Access, recorded
from vault.actions.approvals import use
from vault.actions.bucket import purge_many
from vault.actions.policy import in_force
from vault.actions.signals import tell
from vault.context import Vault
from vault.domain.access import Action, Principal
from vault.domain.approvals import Act, Terms
from vault.domain.certificates import check_shred_reason
from vault.domain.documents import Custody, Document, Ground, object_name
from vault.domain.retention import Verdict, floor_sentence, judge
from vault.domain.signals import SignalType, document_signal
from vault.errors import (
    ConflictError,
    FloorError,
    HeldError,
    InvalidRequestError,
    NotFoundError,
    RestrictedError,
    VaultError,
)
from vault.sql import documents as documents_sql
from vault.sql import fax_intake as fax_intake_sql
from vault.sql import log as log_sql
from vault.sql import retention as retention_sql
from vault.sql.connection import Connection, connection, transaction
from vault.sql.retention import Judged


async def shred(
    vault: Vault,
    principal: Principal,
    identity: UUID,
    reason: str,
    ground: Ground = Ground.NOT_NEEDED,
    *,
    approval: UUID | None = None,
    replaced_by: UUID | None = None,
) -> Document:
    """
    Shred one document; safe to repeat. Raises `FloorError` and `HeldError`.

    What was sent by mistake goes against its floor with an `approval` of `document.mistake`, but
    under no hold or restriction. `replaced_by` is the right document, stored with the same order.
    """
    if (approval or replaced_by) and ground is not Ground.MISTAKE:
        raise InvalidRequestError(
            f"an approval and a replacement go with the ground {Ground.MISTAKE} only"
        )
    said = check_shred_reason(reason)
    async with connection(vault.pool) as conn:
        document = await documents_sql.find(conn, identity)
    async with recorded(
        vault,
        principal,
        Action.DOCUMENT_SHRED,
        region=document.region if document else None,
        document=identity,
        order=document.order_id if document else None,
        kind=document.kind.value if document else None,
        basis=ground.value,
    ) as access:
        if document is None:
            raise NotFoundError
        async with transaction(vault.pool) as conn:
            await retention_sql.freeze_policy(conn)
            await retention_sql.freeze_holds(conn, document.region)
            found = await retention_sql.lock_judged(conn, identity)
            if found is None:
                raise NotFoundError
            document = found.document
            if document.custody is Custody.STORED:
                current = await in_force(vault, conn)
                verdict = judge(found.facts, current.policy, current.grace)
                if replaced_by is not None:
                    await _check_replacement(conn, document, replaced_by)
                approved_by = await _check(vault, conn, access, found, verdict, ground, approval)
                access.size_bytes = document.size_bytes
                document = await _shred_one(
                    vault, conn, access, document, said, ground, verdict, current.version
                )
                if approved_by or replaced_by:
                    await documents_sql.set_mistaken(
                        conn, identity, approved_by=approved_by, replaced_by=replaced_by
                    )
                    document = replace(
                        document, shred_approved_by=approved_by, replaced_by=replaced_by
                    )
            await log_sql.insert_records(conn, [access.conclude()])
        return document


async def _check(
    vault: Vault,
    conn: Connection,
    access: Access,
    found: Judged,
    verdict: Verdict,
    ground: Ground,
    approval: UUID | None,
) -> str | None:
    """Raise unless it may go now; returns who agreed that it goes against its floor."""
    if found.facts.holds:
        raise HeldError(
            "a hold keeps this document; it can be shredded once every hold on it is released"
        )
    if verdict.floor_at is not None and verdict.floor_at <= vault.clock():
        return None
    if ground is not Ground.MISTAKE:
        raise FloorError(floor_sentence(verdict))
    document = found.document
    if document.restricted_at is not None:
        raise RestrictedError("its processing is restricted: it is kept as it is until that ends")
    if approval is None:
        raise FloorError(
            f"{floor_sentence(verdict)}; sent by mistake, it goes with a second person: ask with "
            f"`portvault approval request --act {Act.MISTAKE} --subject {document.id} "
            f"--region {document.region} --reason sent-by-mistake`, and name the approval"
        )
    terms = Terms(Act.MISTAKE, str(document.id), document.region)
    return (await use(access, conn, approval, terms)).approved_by


async def _check_replacement(conn: Connection, document: Document, other: UUID) -> None:
    """Raise unless the other document can stand in for this one."""
    found = await documents_sql.find(conn, other, lock=True)
    fits = (
        found is not None
        and found.id != document.id
        and found.custody is Custody.STORED
        and (found.order_id, found.kind) == (document.order_id, document.kind)
    )
    if not fits:
        raise ConflictError(
            "what takes its place must be stored, of the same kind and with the same order; bring "
            "it first, or correct its kind"
        )


async def _shred_one(
    vault: Vault,
    conn: Connection,
    access: Access,
    document: Document,
    reason: str,
    ground: Ground,
    verdict: Verdict,
    policy: int,
) -> Document:
    generation = await vault.keyring.destroy_keys(conn, document.region, [document.id])
    shredded = await documents_sql.set_shredded(
        conn,
        [document.id],
        reasons=[reason],
        rules=[verdict.rule.row],
        ground=ground.value,
        policy=policy,
        principal=access.intent.principal,
        last_generation=generation,
        now=vault.clock(),
    )
    told = document_signal(SignalType.SHREDDED, shredded[0], vault.clock(), ground=ground.value)
    await tell(vault, conn, [told])
    return shredded[0]


# ---- Purge: remove every version of the objects of what was shredded, which nothing opens any
# more.
#
# An object that cannot be removed holds up no other. The rest of its batch goes; and where of the
# oldest none can be removed, the newest are tried, too.

BATCH = 500

Note = Callable[[Connection, Mapping[UUID, int], datetime], Awaitable[None]]


class Find(Protocol):
    """Looks for what waits, in one region."""

    async def __call__(
        self, conn: Connection, region: str, limit: int, *, newest: bool
    ) -> list[UUID]:
        """Return the oldest of what waits, or the newest."""


async def purge_shredded(vault: Vault, region: str) -> int:
    """
    Purge a batch of shredded documents that no hold keeps; returns how many.

    Raises what went wrong with some only after the others are noted.
    """
    return await _purge_batch(vault, region, documents_sql.unpurged, documents_sql.set_purged)


async def purge_faxes(vault: Vault, region: str) -> int:
    """Purge a batch of faxes that have ended, in the same way."""
    return await _purge_batch(vault, region, fax_intake_sql.unpurged, fax_intake_sql.set_purged)


async def _purge_batch(vault: Vault, region: str, find: Find, note: Note) -> int:
    gone, failures = dict[str, int](), list[VaultError]()
    for newest in (False, True):
        async with connection(vault.pool) as conn:
            waiting = await find(conn, region, BATCH, newest=newest)
        objects = {object_name(identity): identity for identity in waiting}
        gone, failed = await purge_many(vault.stores[region], objects)
        failures += failed
        if gone:
            async with connection(vault.pool) as conn:
                await note(conn, {objects[name]: gone[name] for name in gone}, vault.clock())
        if gone or not failed:
            break
    if failures:
        raise failures[0]
    return len(gone)
