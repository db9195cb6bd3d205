"""Readers share lookups, and each gets its own document or its own refusal."""

import asyncio
import uuid
from pathlib import Path

import pytest

from tests.fixtures_server import Api
from vault.context import Vault
from vault.web.requests import BODY_CHUNK_BYTES

JPEG_START = bytes.fromhex("ffd8ffe000104a46494600010100000100010000")


def scan(size: int, mark: int = 0) -> bytes:
    """Return bytes that look like a JPEG, of exactly this size."""
    return JPEG_START + bytes([mark]) * (size - len(JPEG_START))


async def handed_out(vault: Vault, document: uuid.UUID) -> int:
    """Return how many bytes a read handed out, by its outcome, which follows the last of them."""
    async with asyncio.timeout(10):
        while True:
            found: int | None = await vault.pool.fetchval(
                "select size_bytes from access_record where document = $1 and phase = 'outcome' "
                "and action = 'document.read' and result = 'completed'",
                document,
            )
            if found is not None:
                return found
            await asyncio.sleep(0.02)


async def test_each_reader_gets_its_own(api: Api, vault: Vault) -> None:
    """Forty reads at once, of documents there, never there and shredded: each is answered apart."""
    order = await api.order()
    documents = [(await api.put(order, scan(3000, mark)))[1]["id"] for mark in range(10)]
    path = f"/v1/documents/{documents[9]}/actions/shred"
    assert (await api.call("POST", path, json={"reason": "test"}))[0] == 200
    asked = [*documents, str(uuid.uuid4())] * 4
    answers = await asyncio.gather(*(api.get(document) for document in asked))
    expected = [(200, scan(3000, mark)) for mark in range(9)] * 4
    assert [answer for answer in answers if answer[0] == 200] == expected
    assert [status for status, _ in answers] == ([200] * 9 + [410, 404]) * 4
    intents = await vault.pool.fetchval(
        "select count(*) from access_record where action = 'document.read' and phase = 'intent'"
    )
    assert intents == len(asked)


@pytest.mark.parametrize("size", [BODY_CHUNK_BYTES, BODY_CHUNK_BYTES + 1])
async def test_both_ways_out_hand_out_the_whole(api: Api, vault: Vault, size: int) -> None:
    """At the size that goes out in one piece and one byte past it, all arrives and is recorded."""
    _, document = await api.put(await api.order(), scan(size))
    assert await api.get(document["id"]) == (200, scan(size))
    assert await handed_out(vault, uuid.UUID(document["id"])) == size


async def test_of_a_small_altered_object_nothing_goes_out(api: Api, vault: Vault) -> None:
    """A document that goes out in one piece is verified first: altered, it is an error."""
    _, document = await api.put(await api.order(), scan(5000))
    path = Path(vault.config.objects_uri("uk").removeprefix("dir:")) / "documents" / document["id"]
    sealed = bytearray(path.read_bytes())
    sealed[-1] ^= 1
    path.write_bytes(sealed)
    status, problem = await api.get(document["id"])
    assert (status, set(problem)) == (503, {"type", "title", "status", "detail"})
    path.write_bytes(sealed[:-50])
    assert (await api.get(document["id"]))[0] == 503
