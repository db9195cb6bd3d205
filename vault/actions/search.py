"""
Search the access log: what is found has the names of then, and says what became of each reading.

A question that nothing can answer is refused with a sentence: an empty list would be taken for the
word that nobody did it.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from vault.actions.access import own_regions, recorded, served
from vault.actions.cursor import decode_cursor, encode_cursor
from vault.context import Vault
from vault.domain.access import Action, Principal
from vault.domain.records import Found, Wanted, hands_out, went_out
from vault.domain.text import said_time
from vault.errors import InvalidRequestError, NotFoundError
from vault.sql import access as access_sql
from vault.sql import log_search as search_sql
from vault.sql.connection import Connection, connection

#: An id has its kind before it; a label or a name that is searched for has not.
_KIND = ":"
#: The areas of actions upon what is stored.
_STORED = frozenset({"order", "document", "fax"})


async def list_records(
    vault: Vault,
    principal: Principal,
    *,
    region: str | None,
    wanted: Wanted,
    cursor: str | None,
    limit: int,
) -> tuple[list[Found], str | None]:
    """
    Return a page of a region's records, newest first, and the cursor of the next one.

    One that waits, for its place or to be published, is among them and marked. Raises
    `InvalidRequestError` or `NotFoundError` for a question that no record could answer.
    """
    mine = own_regions(vault, principal)
    unclear = region is None and len(mine) > 1
    if region is None and mine:
        region = mine[0]
    before = decode_cursor(cursor) if cursor else None
    known = served(vault, region) if region else None
    async with (
        recorded(
            vault,
            principal,
            Action.LOG_READ,
            region=known,
            document=wanted.document,
            order=wanted.order,
        ) as access,
        connection(vault.pool) as conn,
    ):
        if unclear:
            raise InvalidRequestError(f"say which region: {', '.join(mine)}")
        _check_times(wanted, vault.clock())
        place = known or ""
        wanted = await _by_id(conn, wanted)
        found = await search_sql.page(
            conn, place, wanted, before=before, limit=limit + 1, without=access.intent.id
        )
        # Looks into the log name what was looked for, and are no sign that it ever was.
        only_looks = all(item.record.action == Action.LOG_READ for item in found)
        if before is None and only_looks and wanted.action != Action.LOG_READ:
            await _explain_nothing(conn, mine, place, wanted)
        shown = await _told(conn, place, found[:limit])
    if len(found) <= limit:
        return shown, None
    last = shown[-1].record
    return shown, encode_cursor(last.at, last.id)


def _check_times(wanted: Wanted, now: datetime) -> None:
    if wanted.since is not None and wanted.since > now:
        raise InvalidRequestError(
            f"from is in the future: nothing is recorded yet after {said_time(now)}"
        )
    if wanted.since is not None and wanted.until is not None and wanted.until <= wanted.since:
        raise InvalidRequestError("to must be later than from: no record lies between them")


async def _by_id(conn: Connection, wanted: Wanted) -> Wanted:
    """Return the question about an id, where it names a principal by a label or a name."""
    said = wanted.principal
    if said is None or _KIND in said:
        return wanted
    called = await access_sql.names_called(conn, said)
    if len(called) > 1:
        raise InvalidRequestError(
            f"{len(called)} principals were called so; ask for one of {', '.join(called)}"
        )
    return replace(wanted, principal=called[0]) if called else wanted


async def _explain_nothing(
    conn: Connection, mine: Sequence[str], region: str, wanted: Wanted
) -> None:
    """Raise why nothing can be found: what is asked for lies elsewhere, or never was."""
    for what, identity in (("document", wanted.document), ("order", wanted.order)):
        if identity is None or await search_sql.is_recorded(conn, region, what, identity):
            continue
        place = await search_sql.place_of(conn, what, identity)
        if place == region:
            continue
        if place in mine:
            raise NotFoundError(f"this {what} lies in {place}: ask the log of that region")
        raise NotFoundError(f"there never was this {what}, and nobody asked for it in {region}")
    who = wanted.principal
    if who is not None and not await search_sql.was_ever(conn, who):
        raise NotFoundError(
            "there never was this principal: name a token's label, a person, or an id as "
            "token:…, person:… or operator:…"
        )
    area = (wanted.action or "").partition(".")[0]
    about_content = wanted.purpose is not None or wanted.transfers or area in _STORED
    if about_content and not await search_sql.ever_stored(conn, region):
        raise NotFoundError(f"no order, document or fax was ever in {region}: nothing was read")


async def _told(conn: Connection, region: str, found: Sequence[Found]) -> list[Found]:
    """Return what was found with the names of then, and with what became of each reading."""
    names = await access_sql.names_of(conn, {item.record.principal for item in found})
    intents = [item.record for item in found if hands_out(item.record)]
    followers = await search_sql.followers(conn, region, intents)
    return [
        replace(
            item,
            name=names.at(item.record.principal, item.record.at),
            went_out=went_out(item.record, followers.get(item.record.id, ()))
            if hands_out(item.record)
            else None,
        )
        for item in found
    ]
