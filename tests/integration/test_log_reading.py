"""Looking into the log: pages, cursors, the newest checkpoint, and who may."""

import base64
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from keys.notes.note import Verifier
from tests.access_records import append
from vault.actions.log_publish import sequence_log
from vault.actions.log_records import latest_checkpoint, list_records, verify_region
from vault.context import Vault
from vault.domain.access import Principal
from vault.domain.checkpoint import decode
from vault.domain.records import Record, Wanted
from vault.errors import ForbiddenError, InvalidRequestError, NotFoundError

COMPLIANCE = Principal("token:compliance", "compliance", frozenset({"uk"}))
PORTING = Principal("desk", "porting", frozenset({"uk"}))


async def test_pages_show_every_record_once_newest_first(vault: Vault) -> None:
    """Paging goes through all, also where many share a time, and is itself recorded."""
    at = datetime.now(UTC) + timedelta(seconds=60)
    made = await append(vault, 7, at=at) + await append(vault, 3, at=at + timedelta(seconds=1))
    await append(vault, 1, "sg", at=at)
    await sequence_log(vault, "uk")
    seen: list[Record] = []
    cursor = None
    while not seen or cursor:
        page, cursor = await list_records(
            vault, COMPLIANCE, region="uk", wanted=Wanted(), cursor=cursor, limit=4
        )
        seen += [item.record for item in page]
    expected = sorted(made, key=lambda item: (item.at, item.id), reverse=True)
    # What was recorded a moment ago is found, too: the looks themselves.
    assert [item for item in seen if item.action != "log.read"] == expected
    assert len({item.id for item in seen}) == len(seen)
    looked = "select count(*) from access_record where action = 'log.read' and phase = 'intent'"
    assert await vault.pool.fetchval(looked) == -(-len(seen) // 4)


async def test_the_last_page_has_no_cursor(vault: Vault) -> None:
    """A document's or an order's records alone, and no cursor when that is all."""
    document, order = uuid.uuid4(), uuid.uuid4()
    await append(vault, 4)
    (one,) = await append(vault, 1, document=document, order=order)
    (two,) = await append(vault, 1, order=order)
    await sequence_log(vault, "uk")
    for wanted, found in (
        (Wanted(document=document), {one.id}),
        (Wanted(order=order), {one.id, two.id}),
        (Wanted(document=document, order=order), {one.id}),
    ):
        page, cursor = await list_records(
            vault, COMPLIANCE, region=None, wanted=wanted, cursor=None, limit=20
        )
        assert {item.record.id for item in page} == found
        assert cursor is None


async def test_only_ones_own_log_is_shown(vault: Vault) -> None:
    """Another region's log, no region's and one's own without the role: refused."""
    for principal, region, error in [
        (COMPLIANCE, "sg", ForbiddenError),
        (COMPLIANCE, "xx", ForbiddenError),
        (PORTING, "uk", ForbiddenError),
        (replace(COMPLIANCE, regions=frozenset({"uk", "sg"})), None, InvalidRequestError),
        (replace(COMPLIANCE, regions=frozenset()), None, ForbiddenError),
    ]:
        with pytest.raises(error):
            await list_records(
                vault, principal, region=region, wanted=Wanted(), cursor=None, limit=9
            )
        if region is not None:
            with pytest.raises(error):
                await latest_checkpoint(vault, principal, region)
            with pytest.raises(error):
                await verify_region(vault, principal, region)


async def test_a_wrong_cursor_is_refused(vault: Vault) -> None:
    """A cursor that was not handed out is the caller's mistake."""
    for cursor in ["x", "====", "é", base64.b64encode(b"2025-01-01|no").decode(), "AAAA"]:
        with pytest.raises(InvalidRequestError, match="cursor"):
            await list_records(
                vault, COMPLIANCE, region="uk", wanted=Wanted(), cursor=cursor, limit=9
            )


async def test_the_newest_checkpoint_is_shown(vault: Vault) -> None:
    """Before the first there is none; then always the newest."""
    with pytest.raises(NotFoundError, match="no checkpoint yet"):
        await latest_checkpoint(vault, COMPLIANCE, "uk")
    with pytest.raises(NotFoundError, match="no checkpoint yet"):
        await verify_region(vault, COMPLIANCE, "uk")
    await sequence_log(vault, "uk")
    first = await latest_checkpoint(vault, COMPLIANCE, "uk")
    await sequence_log(vault, "uk")
    second = await latest_checkpoint(vault, COMPLIANCE, "uk")
    sizes = [decode(Verifier(vault.signer.vkey).verify(note)).size for note in (first, second)]
    assert sizes == [4, 6]
