"""
Follow: do anew, in an older database, what the published log says was decided after the backup.

The log has ids and codes, so each decision is done anew as far as it can be told, and what cannot
is said. Where it cannot be told what keeps a document, it is kept: a hold of which nobody knows
what it covers keeps its whole region, and a policy or an instruction that is not known has nothing
go by its time until two people agree (`expiry.resume`).
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from vault.actions.orders import settle
from vault.context import Vault
from vault.domain.access import Action
from vault.domain.documents import Custody, Kind
from vault.domain.holds import EVERY_CUSTOMER, Hold, Restriction, Targets, covers
from vault.domain.orders import (
    AHEAD_MAX,
    DESK,
    END_NOT_KNOWN,
    ENDED,
    Order,
    OrderEvent,
    Status,
    fold,
    parse_time_said,
)
from vault.domain.text import said_time
from vault.sql import access as access_sql
from vault.sql import documents as documents_sql
from vault.sql import holds as holds_sql
from vault.sql import learned as learned_sql
from vault.sql import orders as orders_sql
from vault.sql import retention as retention_sql
from vault.sql.connection import Connection
from vault.sql.learned import Learned

NOT_KNOWN = "not known: decided after the backup that was restored"
AGAIN, DOUBTED, LOST = "again", "in doubt", "lost"
_END = {Status.PORTED: "complete", Status.CANCELLED: "cancel"}


@dataclass(frozen=True, slots=True)
class Decision:
    """One decision since the backup: `again`, `in doubt` until a person decides, or `lost`."""

    action: str
    thing: str
    at: datetime
    by: str
    state: str
    detail: str


@dataclass(frozen=True, slots=True)
class _Following:
    vault: Vault
    conn: Connection
    region: str


_Follow = Callable[[_Following, Learned], Awaitable[Decision | None]]


async def follow(vault: Vault, conn: Connection, region: str) -> list[Decision]:
    """Do anew what was decided, in the caller's transaction; returns it all, in its order."""
    following = _Following(vault, conn, region)
    followed = list[tuple[Learned, Decision | None]]()
    for item in await learned_sql.outcomes(conn, region, [*FOLLOWED, *LEFT]):
        action = Action(item.action)
        if action in LEFT:
            followed.append((item, _decision(item, *LEFT[action])))
        else:
            followed.append((item, await FOLLOWED[action](following, item)))
    found = _last_said(followed)
    for item in await learned_sql.unanswered(conn, region, [*DOUBTED_UNANSWERED]):
        detail = "it was begun, and no record says whether it was done"
        found.append(_decision(item, DOUBTED, f"{detail}; ask who did it, and do it again"))
    await learned_sql.use_up_approvals(conn, region)
    if await learned_sql.count(conn):
        await learned_sql.end_sessions(conn)
    return found


def _last_said(followed: list[tuple[Learned, Decision | None]]) -> list[Decision]:
    """Return one decision of all that were made of the same thing: what is true of it now."""
    of_thing = dict[tuple[str, str], list[tuple[Learned, Decision | None]]]()
    for item, decision in followed:
        place = (_ABOUT.get(Action(item.action), item.action), _subject(item))
        of_thing.setdefault(place, []).append((item, decision))
    stand = list[Decision | None]()
    for said in of_thing.values():
        ends = [decision for item, decision in said if item.action in _ENDS]
        begins = [decision for item, decision in said if item.action in _BEGINS]
        # What was ended needs nothing of what came before; what is to be made anew is made as it
        # is to be.
        known = [decision for _, decision in said if decision is not None]
        stand += (ends or begins or known)[-1:]
    kept = {id(decision) for decision in stand}
    return [decision for _, decision in followed if decision is not None and id(decision) in kept]


def _subject(item: Learned) -> str:
    """Return what a decision is about, by whichever member of its record names it."""
    action = Action(item.action)
    if _ABOUT.get(action) not in ("token", "envelope"):
        return _thing(item)
    named = item.principal if action is Action.BREAK_GLASS_OPEN else item.reason or "-"
    # Who makes one says its role before it.
    return named.rpartition(" ")[2]


def doubts(decisions: list[Decision]) -> str | None:
    """Return what is in doubt in a sentence; None when all that keeps documents is known."""
    found = [f"{item.action} of {said_time(item.at)}" for item in decisions]
    named = [text for text, item in zip(found, decisions, strict=True) if item.state == DOUBTED]
    more = f" and {len(named) - 5} more" if len(named) > 5 else ""
    return ", ".join(named[:5]) + more if named else None


def _decision(item: Learned, state: str, detail: str) -> Decision:
    return Decision(item.action, _thing(item), item.at, item.principal, state, detail)


def _thing(item: Learned) -> str:
    if item.reference:
        return item.reference
    if item.document:
        return f"document/{item.document}"
    return f"order/{item.order}" if item.order else item.reason or "-"


def _named(text: str | None, prefix: str) -> UUID | None:
    """Return the id that a record names so."""
    with suppress(ValueError):
        if text is not None and text.startswith(prefix):
            return UUID(text.removeprefix(prefix))
    return None


async def _place_hold(at: _Following, item: Learned) -> Decision | None:
    identity = _named(item.reference, "hold/")
    if identity is None or await holds_sql.find(at.conn, identity) is not None:
        return None
    targets, exact = await _covered(at.conn, item)
    not_known = ["reason", "authority", "reference"] + ([] if exact else ["customers"])
    hold = Hold(
        id=identity,
        region=at.region,
        reason=NOT_KNOWN,
        authority=NOT_KNOWN,
        reference=None,
        placed_by=item.principal,
        placed_at=item.at,
        recovered_at=at.vault.clock(),
        not_known=not_known,
    )
    await holds_sql.insert(at.conn, hold, targets)
    await _look_again(at, targets)
    if exact:
        return _decision(item, AGAIN, "it holds again what it held; its reason is not known")
    return _decision(
        item,
        AGAIN,
        f"the log does not say all that it covers, so it holds all of {at.region}. Narrow it: "
        f"`portvault hold place --region {at.region} --customer NAME --reason WHY --authority WHO`"
        f", then `portvault approval request --act hold.release --subject {identity} --region "
        f"{at.region} --reason case-closed`, and once somebody else has agreed `portvault hold "
        f"release {identity} --reason narrowed --approval ID`",
    )


async def _covered(conn: Connection, item: Learned) -> tuple[Targets, bool]:
    """Return what the log says a hold covers, and whether that is all of it."""
    named = [item, *await learned_sql.noted(conn, [item.intent])]
    documents = {one.document for one in named if one.document}
    orders = {one.order for one in named if one.order}
    exact = item.reason == covers(len(documents) + len(orders))
    everything = () if exact else (EVERY_CUSTOMER,)
    return Targets(tuple(sorted(documents)), tuple(sorted(orders)), everything), exact


async def _release_hold(at: _Following, item: Learned) -> Decision | None:
    identity = _named(item.reference, "hold/")
    hold = await holds_sql.find(at.conn, identity) if identity else None
    if identity is None or hold is None or hold.released_at is not None:
        return None
    notes = await learned_sql.noted(at.conn, [item.intent])
    approvals = [note.reason for note in notes if _named(note.reason, "approval/")]
    approved_by = None
    if approvals and approvals[0]:
        approved_by = await learned_sql.who_approved(at.conn, at.region, approvals[0])
    await holds_sql.release(
        at.conn,
        identity,
        by=item.principal,
        reason=NOT_KNOWN,
        approved_by=approved_by,
        now=item.at,
    )
    await _look_again(at, await holds_sql.targets(at.conn, identity))
    return _decision(item, AGAIN, "it was released, and stays so")


async def _look_again(at: _Following, targets: Targets) -> None:
    await retention_sql.look_again(at.conn, at.region, targets.documents)
    await retention_sql.look_again_at_orders(at.conn, targets.orders)
    await retention_sql.look_again_at_customers(at.conn, at.region, targets.customers)


async def _restrict(at: _Following, item: Learned) -> Decision | None:
    document = await documents_sql.find(at.conn, item.document) if item.document else None
    if document is None or document.custody is not Custody.STORED:
        return None
    if document.restricted_at is None:
        made = Restriction(at.vault.new_id(), document.id, NOT_KNOWN, item.principal, item.at)
        await holds_sql.insert_restriction(at.conn, made)
        await documents_sql.restrict(at.conn, document.id, item.at)
    return _decision(item, AGAIN, "it is restricted again; why is not known")


async def _unrestrict(at: _Following, item: Learned) -> Decision | None:
    if item.document is None:
        return None
    await holds_sql.lift_restriction(at.conn, item.document, item.principal, item.at)
    await documents_sql.restrict(at.conn, item.document, None)
    return _decision(item, AGAIN, "its restriction was lifted, and stays so")


async def _correct_kind(at: _Following, item: Learned) -> Decision | None:
    document = await documents_sql.find(at.conn, item.document) if item.document else None
    word = (item.reason or "").rpartition(" to ")[2]
    if document is None or document.custody is not Custody.STORED or word not in set(Kind):
        return None
    await documents_sql.set_kind(at.conn, document.id, Kind(word))
    return _decision(item, AGAIN, f"it is {word} again")


async def _move_order(at: _Following, item: Learned) -> Decision | None:
    """
    Move an order as it was moved.

    Records of earlier releases do not say when it was. An end that a carrier reported then is left
    to be said again, since a late one may have been overtaken; one of the desk counts from the
    latest that it may have been.
    """
    order = await orders_sql.find(at.conn, item.order, lock=True) if item.order else None
    if order is None or item.reason not in set(Status):
        return None
    status = Status(item.reason)
    carrier = item.action == Action.ORDER_EVENT
    occurred_at = parse_time_said(item.said)
    if carrier and status in ENDED and occurred_at is None:
        await orders_sql.set_end_not_known(at.conn, order.id, at.vault.clock())
        return _decision(
            item,
            LOST,
            f"{item.principal} said {status}, and not when. The order is open, and its documents "
            f"are kept until somebody says so: `portvault order {_END[status]} {order.id}`",
        )
    source = item.principal.removeprefix("carrier:") if carrier else DESK
    when = max(occurred_at or await _latest(at.conn, item, order, status), order.created_at)
    await settle(at.vault, at.conn, order, OrderEvent(source, str(item.intent), status, when))
    stands = await orders_sql.find(at.conn, order.id) or order
    said = f"it is {status} again, as of {when:%Y-%m-%d %H:%M} UTC"
    if stands.status is not status:
        said = f"it is {stands.status} again, which came after {status}"
    if END_NOT_KNOWN not in (stands.not_known or ()):
        return _decision(item, AGAIN, said)
    return _decision(
        item,
        LOST,
        f"{said}; a carrier said before that it had ended, and not when. Its documents are kept "
        f"until somebody says so: `portvault order complete {order.id}`, or cancel",
    )


async def _latest(conn: Connection, item: Learned, order: Order, status: Status) -> datetime:
    """Return the latest that a move may have counted from, after all that was said before."""
    last_at = fold(await orders_sql.events_of_order(conn, order.id)).last_at
    ahead = AHEAD_MAX if status in ENDED else timedelta()
    return max(item.at + ahead, last_at + timedelta(microseconds=1))


async def _end_instruction(at: _Following, item: Learned) -> Decision | None:
    identity = _named(item.reference, "instruction/")
    found = await retention_sql.find_instruction(at.conn, identity, lock=True) if identity else None
    if identity is None or found is None or found.withdrawn_at is not None:
        return None
    withdrawn = item.action == Action.INSTRUCTION_WITHDRAW
    change = (
        retention_sql.withdraw_instruction if withdrawn else retention_sql.set_nearest_instruction
    )
    await change(at.conn, identity, item.principal, item.at)
    await retention_sql.look_again_at_customers(at.conn, at.region, [found.customer])
    return _decision(item, AGAIN, "it is withdrawn" if withdrawn else "it is resolved")


async def _revoke_token(at: _Following, item: Learned) -> Decision | None:
    identity = _named(item.reason, "token:")
    if identity is None or not await access_sql.revoke_token(at.conn, identity, item.at):
        return None
    return _decision(item, AGAIN, "it is revoked again")


async def _end_credential(at: _Following, item: Learned) -> Decision | None:
    """Revoke what was revoked, and what was opened, since it opens once."""
    revoked = item.action == Action.BREAK_GLASS_REVOKE
    identity = _named(item.reason if revoked else item.principal, "break-glass:")
    if identity is None or await access_sql.show_break_glass(at.conn, identity, lock=True) is None:
        return None
    await access_sql.revoke_break_glass(at.conn, identity, item.principal, item.at)
    what = "revoked again" if revoked else "revoked, since it was opened: seal a new one"
    return _decision(item, AGAIN, f"it is {what}")


async def _forget_name(at: _Following, item: Learned) -> Decision | None:
    if item.reason is None or not await access_sql.forget_name(at.conn, item.reason):
        return None
    return _decision(item, AGAIN, "its names are taken away again")


#: What is done anew.
FOLLOWED: dict[Action, _Follow] = {
    Action.HOLD_PLACE: _place_hold,
    Action.HOLD_RELEASE: _release_hold,
    Action.DOCUMENT_RESTRICT: _restrict,
    Action.DOCUMENT_UNRESTRICT: _unrestrict,
    Action.DOCUMENT_CORRECT: _correct_kind,
    Action.ORDER_CHANGE: _move_order,
    Action.ORDER_EVENT: _move_order,
    Action.INSTRUCTION_RESOLVE: _end_instruction,
    Action.INSTRUCTION_WITHDRAW: _end_instruction,
    Action.TOKEN_REVOKE: _revoke_token,
    Action.BREAK_GLASS_REVOKE: _end_credential,
    Action.BREAK_GLASS_OPEN: _end_credential,
    Action.LOG_FORGET_NAME: _forget_name,
}
#: What the log does not say enough of to do it anew, and what a person does about it.
LEFT: dict[Action, tuple[str, str]] = {
    Action.POLICY_APPLY: (
        DOUBTED,
        "what it says is not in the log: apply it again (`portvault retention apply FILE`)",
    ),
    Action.INSTRUCTION_GIVE: (
        DOUBTED,
        "what it says is not in the log: give it again (`portvault retention instruct`)",
    ),
    Action.ORDER_CORRECT: (LOST, "its details are as they were: correct them again"),
    Action.ORDER_LINK: (LOST, "what the carrier calls it is not in the log: link it again"),
    Action.TOKEN_CREATE: (LOST, "it is good for nothing any more: make a new one"),
    Action.TOKEN_RENAME: (LOST, "its name is not in the log: rename it again"),
    Action.BREAK_GLASS_SEAL: (LOST, "its envelope opens nothing any more: seal a new one"),
}
#: Actions that change the same of a thing, so that the last one says how it is.
_ABOUT = {
    Action.HOLD_PLACE: "hold",
    Action.HOLD_RELEASE: "hold",
    Action.DOCUMENT_RESTRICT: "restriction",
    Action.DOCUMENT_UNRESTRICT: "restriction",
    Action.ORDER_CHANGE: "status",
    Action.ORDER_EVENT: "status",
    Action.INSTRUCTION_GIVE: "instruction",
    Action.INSTRUCTION_RESOLVE: "instruction",
    Action.INSTRUCTION_WITHDRAW: "instruction",
    Action.TOKEN_CREATE: "token",
    Action.TOKEN_RENAME: "token",
    Action.TOKEN_REVOKE: "token",
    Action.BREAK_GLASS_SEAL: "envelope",
    Action.BREAK_GLASS_OPEN: "envelope",
    Action.BREAK_GLASS_REVOKE: "envelope",
}
#: What ends a thing, and what begins one.
_ENDS = frozenset(
    {
        Action.HOLD_RELEASE,
        Action.INSTRUCTION_WITHDRAW,
        Action.TOKEN_REVOKE,
        Action.BREAK_GLASS_REVOKE,
    }
)
_BEGINS = frozenset({Action.INSTRUCTION_GIVE, Action.TOKEN_CREATE, Action.BREAK_GLASS_SEAL})
#: What keeps documents, so that it is in doubt where nobody knows whether it was done.
DOUBTED_UNANSWERED = frozenset(
    {
        Action.HOLD_PLACE,
        Action.DOCUMENT_RESTRICT,
        Action.DOCUMENT_CORRECT,
        Action.ORDER_CHANGE,
        Action.ORDER_EVENT,
        Action.POLICY_APPLY,
        Action.INSTRUCTION_GIVE,
    }
)
#: What the restore follows by the key tree, or brings back with its things, or does in one go.
FOLLOWED_BY_KEYS = frozenset(
    {
        Action.DOCUMENT_INGEST,
        Action.DOCUMENT_SHRED,
        Action.FAX_RECEIVE,
        Action.FAX_READ,
        Action.FAX_DELIVER,
        Action.FAX_FAIL,
        Action.FAX_EXPIRE,
        Action.ORDER_CREATE,
        Action.ORDER_FORGET,
        Action.KEYS_SEAL,
        Action.KEYS_RESTORE,
        # Approvals that were used, declined or withdrawn are so again; others are asked for anew.
        Action.APPROVAL_REQUEST,
        Action.APPROVAL_APPROVE,
        Action.APPROVAL_DECLINE,
        Action.APPROVAL_WITHDRAW,
        # Everybody signs in again.
        Action.SESSION_BEGIN,
        Action.SESSION_END,
    }
)
#: What leaves nothing behind that a backup could lack, or is done again by itself.
NOTHING_LEFT = frozenset(
    {
        Action.ORDER_READ,
        Action.ORDER_LIST,
        Action.ORDER_NUMBERS,
        Action.ORDER_REINDEX,
        Action.DOCUMENT_DESCRIBE,
        Action.DOCUMENT_READ,
        Action.FAX_DESCRIBE,
        Action.CERTIFICATE_READ,
        Action.CERTIFICATE_READ_ORDER,
        Action.CERTIFICATE_ISSUE,
        Action.HOLD_READ,
        Action.INSTRUCTION_READ,
        Action.EXPIRY_RESUME,
        Action.RETENTION_PLAN,
        Action.SIGNAL_READ,
        Action.SIGNAL_REPLAY,
        Action.POLICY_READ,
        Action.LOG_READ,
        Action.LOG_EXPORT,
        Action.LOG_PROVE,
        Action.LOG_COSIGN,
        Action.LOG_TRIM,
        Action.LOG_ROTATE_KEY,
        Action.BACKUP_CREATE,
        Action.KEYS_READ,
        # What is damaged here is found here again.
        Action.DAMAGE_LOOK,
        Action.DAMAGE_REPAIR,
        Action.TOKEN_LIST,
        Action.BREAK_GLASS_LIST,
        Action.APPROVAL_LIST,
    }
)
