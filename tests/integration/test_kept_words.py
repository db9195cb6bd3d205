"""No name that somebody types reaches the log, a certificate, a receipt or a signal."""

import asyncio

import pytest

from tests.fixtures_server import Api
from vault.actions.certify import certify
from vault.actions.publish import publish_log
from vault.actions.purge import purge_shredded
from vault.actions.seal import mark_sealed, seal, worker
from vault.actions.sequence import sequence_log
from vault.context import Vault

NAME = "John Smith"
#: Where something stands for ever, or longer than what it is about.
KEPT = ("access_record", "log_leaf", "certificate", "order_certificate", "fax", "signal")


async def kept(vault: Vault) -> str:
    """Return all that stands in those tables."""
    found = []
    for table in KEPT:
        if await vault.pool.fetchval("select to_regclass($1) is not null", table):
            found += [row[0] for row in await vault.pool.fetch(f"select t::text from {table} t")]
    return "\n".join(found)


async def test_words_with_a_name_reach_nothing_that_stays(
    api: Api, vault: Vault, passport: bytes
) -> None:
    """They are refused where they would stay, and kept apart where they would not."""
    order = await api.order()
    _, document = await api.put(order, passport)
    path = f"/v1/documents/{document['id']}"
    shred = f"{path}/actions/shred"
    assert (await api.call("POST", shred, json={"reason": f"asked by {NAME}"}))[0] == 422
    hold = {
        "region": "uk",
        "reason": f"a dispute of {NAME}",
        "authority": NAME,
        "documents": [document["id"]],
    }
    status, _, _ = await api.call("POST", "/v1/holds", json=hold, role="dpo")
    assert status == 201
    restrict = {"reason": f"{NAME} contests it"}
    assert (await api.call("POST", f"{path}/actions/restrict", json=restrict, role="dpo"))[0] == 200
    _, other = await api.put(order, passport)
    shred = f"/v1/documents/{other['id']}/actions/shred"
    assert (await api.call("POST", shred, json={"reason": "duplicate"}))[0] == 200
    await seal(vault, worker(vault), "uk")
    await asyncio.sleep(vault.config.key_cache_seconds)
    for step in (mark_sealed, purge_shredded, sequence_log, publish_log, certify):
        await step(vault, "uk")
    stays = await kept(vault)
    assert "duplicate" in stays
    assert "Smith" not in stays


@pytest.mark.parametrize("reason", ["Smith", "smith, twice"])
async def test_a_sentence_is_refused_with_what_to_say_instead(
    api: Api, passport: bytes, reason: str
) -> None:
    """The refusal names the codes, and does not repeat what was said."""
    _, document = await api.put(await api.order(), passport)
    shred = f"/v1/documents/{document['id']}/actions/shred"
    status, problem, _ = await api.call("POST", shred, json={"reason": reason})
    assert (status, "withdrawn" in problem["detail"]) == (422, True)
    assert reason not in problem["detail"]
