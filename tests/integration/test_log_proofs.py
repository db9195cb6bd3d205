"""The log over HTTP, checked by a client that knows the specifications and nothing of us."""

import asyncio
import base64
import json
import random
from typing import Any

import asyncpg
import pytest

from keys.notes.signing import ANNOUNCEMENT, HANDOVER
from tests.access_records import append
from tests.fixtures_server import OPERATOR, Api
from tests.tlog_client import check_consistency, check_proof, open_checkpoint, read_log, sha256
from vault.actions.keys import rotate_key
from vault.actions.log_publish import publish_log, sequence_log
from vault.context import Vault
from vault.domain.access import Role

ORIGIN = "portvault/uk"
#: How many sessions of the test's database wait for another's lock.
WAITING = """
    select count(*) from pg_stat_activity
    where datname = current_database() and wait_event_type = 'Lock'
"""


async def step(vault: Vault, number: int = 0) -> None:
    """Append so many records, order what waits, and publish it."""
    if number:
        await append(vault, number)
    while await sequence_log(vault, "uk"):
        pass
    await publish_log(vault, "uk")


async def fetch(api: Api, path: str, role: str = "compliance") -> bytes:
    """Fetch what is below the log's address."""
    status, body, _ = await api.call("GET", f"/v1/log/uk/{path}", role=role)
    assert status == 200, (path, body)
    return body if isinstance(body, bytes) else json.dumps(body).encode()


async def size_of(api: Api, vault: Vault) -> int:
    """Return how many records are published."""
    note = (await fetch(api, "checkpoint")).decode()
    return open_checkpoint(note, vault.signer.vkey, ORIGIN)[0]


async def refused(api: Api, path: str, role: str = "compliance") -> int:
    """Ask for what is not given; returns the status."""
    status, _, _ = await api.call("GET", f"/v1/log/uk/{path}", role=role)
    assert status >= 400
    return status


async def test_a_client_that_knows_only_the_specifications_reads_the_log(
    api: Api, vault: Vault
) -> None:
    """Signatures, tiles of every level and entries are what C2SP and the RFCs say, as it grows."""
    entries = list[bytes]()
    for number in (1, 254, 1, 300, 513):
        await step(vault, number)
        entries = await read_log(lambda path: fetch(api, path), vault.signer.vkey, ORIGIN)
        assert len(entries) >= number
    # Each fetch was an access itself.
    assert len(entries) > 1069
    assert {json.loads(entry)["action"] for entry in entries} >= {"log.prove", "log.read"}


async def test_every_record_is_proved_to_be_in_the_log(api: Api, vault: Vault) -> None:
    """By its place or by its id; a proof holds for its own leaf and for no other."""
    await step(vault, 700)
    entries = await read_log(lambda path: fetch(api, path), vault.signer.vkey, ORIGIN)
    chance = random.Random(7)
    for index in [0, 255, 256, 511, 512, len(entries) - 1, *chance.sample(range(700), 10)]:
        leaf = sha256(b"\x00", entries[index])
        text = (await fetch(api, f"inclusion?index={index}")).decode()
        assert check_proof(text, leaf, vault.signer.vkey, ORIGIN) == index
        record = json.loads(entries[index])["id"]
        assert (await fetch(api, f"inclusion?record={record}")).decode() == text
        with pytest.raises(AssertionError):
            check_proof(text, sha256(leaf), vault.signer.vkey, ORIGIN)


async def test_every_earlier_log_is_proved_to_be_a_prefix(api: Api, vault: Vault) -> None:
    """Checkpoints that were published one after the other are consistent, each with each."""
    notes = []
    for number in (1, 2, 61, 200, 300):
        await step(vault, number)
        notes.append((await fetch(api, "checkpoint")).decode())
    await step(vault)
    opened = [open_checkpoint(note, vault.signer.vkey, ORIGIN) for note in notes]
    assert len({size for size, _ in opened}) == 5
    for old, old_root in opened:
        for new, new_root in opened:
            if old <= new:
                answer = json.loads(await fetch(api, f"consistency?from={old}&to={new}"))
                proof = [base64.b64decode(item) for item in answer["proof"]]
                check_consistency(old, new, old_root, new_root, proof)
    answer = json.loads(await fetch(api, f"consistency?from={opened[0][0]}"))
    assert answer["to"] > opened[-1][0]


async def test_a_partial_tile_is_served_when_it_has_become_whole(api: Api, vault: Vault) -> None:
    """Whoever still holds an earlier checkpoint gets the tile that it needs."""
    await step(vault, 100)
    partial = f"000.p/{await size_of(api, vault)}"
    paths = [f"tile/{level}/{partial}" for level in ("0", "entries")]
    early = [await fetch(api, path) for path in paths]
    await step(vault, 300)
    assert [await fetch(api, path) for path in paths] == early
    for path, tile in zip(("tile/0/000", "tile/entries/000"), early, strict=True):
        assert (await fetch(api, path)).startswith(tile)


#: What is asked for, and how it is refused.
REFUSED = {
    "tile/0/001": 404,
    "tile/0/000.p/200": 404,
    "tile/7/000": 404,
    "tile/entries/x999/x999/x999/999": 404,
    "tile/0/0": 404,
    "tile/0/..%2F..%2Fcheckpoint": 404,
    "inclusion": 422,
    "inclusion?index=1&record=00000000-0000-4000-8000-000000000000": 422,
    "inclusion?index=x": 422,
    "inclusion?index=-1": 422,
    "inclusion?index=9999999999999999999": 422,
    "inclusion?index=99999": 503,
    "inclusion?record=x": 422,
    "inclusion?record=00000000-0000-4000-8000-000000000000": 404,
    "consistency": 422,
    "consistency?from=0": 422,
    "consistency?from=5&to=4": 422,
    "consistency?from=5&to=99999": 422,
    "checkpoint?witnessed=true": 404,
    "checkpoint?witnessed=maybe": 422,
}


async def test_what_is_not_there_is_refused(api: Api, vault: Vault) -> None:
    """A tile, a record or a size that the published log does not have, or that is none."""
    await step(vault, 20)
    assert {path: await refused(api, path) for path in REFUSED} == REFUSED


async def test_a_record_is_proved_once_it_is_published(api: Api, vault: Vault) -> None:
    """Before that the answer is to try again, not that there is no such record."""
    await step(vault, 3)
    (made,) = await append(vault, 1)
    status, _, response = await api.call("GET", f"/v1/log/uk/inclusion?record={made.id}")
    assert (status, response.headers["Retry-After"]) == (503, "5")
    await sequence_log(vault, "uk")
    assert await refused(api, f"inclusion?record={made.id}") == 503
    await publish_log(vault, "uk")
    assert await fetch(api, f"inclusion?record={made.id}")


async def test_everybody_may_check_and_only_compliance_may_read(api: Api, vault: Vault) -> None:
    """Checkpoints, hashes and proofs say nothing of a record; entries are the records."""
    await step(vault, 5)
    partial = f"000.p/{await size_of(api, vault)}"
    for role in Role:
        for path in ("checkpoint", f"tile/0/{partial}", "inclusion?index=1", "consistency?from=1"):
            assert await fetch(api, path, role)
        if role == "compliance":
            assert await fetch(api, f"tile/entries/{partial}", role)
        else:
            assert await refused(api, f"tile/entries/{partial}", role) == 403


async def test_the_log_of_another_region_is_not_shown(api: Api, vault: Vault) -> None:
    """Neither one that is not served nor one that is not theirs: both look the same."""
    await step(vault, 3)
    for region in ("sg", "hk", "xx", "tile"):
        for path in ("checkpoint", "keys", "tile/0/000.p/3", "inclusion?index=0"):
            status, _, _ = await api.call("GET", f"/v1/log/{region}/{path}", role="porting")
            assert status == 403


async def test_the_key_that_signs_is_shown(api: Api, vault: Vault) -> None:
    """With it, the handovers by which who trusts an earlier one finds it."""
    first = vault.signer.vkey
    await rotate_key(vault, OPERATOR)
    await rotate_key(vault, OPERATOR, finish=True)
    shown: dict[str, Any] = json.loads(await fetch(api, "keys"))
    assert shown["key"] == vault.signer.vkey != first
    assert [note.partition("\n")[0] for note in shown["handovers"]] == [ANNOUNCEMENT, HANDOVER]


async def test_a_stolen_key_ends_after_what_it_has_signed(vault: Vault, pool: asyncpg.Pool) -> None:
    """A checkpoint that it signed and that is not committed yet counts, and is gone on from."""
    await step(vault, 3)
    await append(vault, 1)
    async with pool.acquire() as conn:
        async with conn.transaction():
            await conn.execute("lock table log_checkpoint in exclusive mode")
            ordering = asyncio.create_task(sequence_log(vault, "uk"))
            while await pool.fetchval(WAITING) < 1:
                await asyncio.sleep(0.01)
            rotating = asyncio.create_task(rotate_key(vault, OPERATOR, stolen=True))
            while not rotating.done() and await pool.fetchval(WAITING) < 2:
                await asyncio.sleep(0.01)
        await asyncio.gather(ordering, rotating)
    await publish_log(vault, "uk")
    await step(vault, 1)


async def test_a_log_without_a_checkpoint_says_so(api: Api, vault: Vault) -> None:
    """Before the first second there is nothing to prove."""
    for path in ("checkpoint", "inclusion?index=0", "consistency?from=1", "tile/0/000.p/1"):
        assert await refused(api, path) == 404
