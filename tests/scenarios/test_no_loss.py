"""No loss: what was acknowledged and not shredded stays readable through a crash at any point."""

import asyncio
import contextlib
import random
from collections.abc import Awaitable
from pathlib import Path

import aiohttp
import pytest

from tests.fixtures_process import VaultProcess

ROUNDS = 4


async def porting_token(vault: VaultProcess) -> str:
    """Make a token for the porting team."""
    made = await vault.json("token", "create", "--role", "porting", "--region", "uk")
    return str(made["token"])


class Desk:
    """The porting team at work: remembers what was acknowledged."""

    def __init__(self, vault: VaultProcess, token: str, scan: bytes) -> None:
        self.vault, self.scan = vault, scan
        self.headers = {"Authorization": f"Bearer {token}", "Content-Type": "image/jpeg"}
        self.stored: set[str] = set()
        self.asked: set[str] = set()
        self.shredded: set[str] = set()

    async def order(self, session: aiohttp.ClientSession) -> str:
        """Open an order."""
        fields = {"region": "uk", "customer": "acme", "numbers": ["+442079460123"]}
        async with session.post("/v1/orders", json=fields) as response:
            return str((await response.json())["id"])

    async def upload(self, session: aiohttp.ClientSession, order: str) -> None:
        """Upload without end."""
        while True:
            path = f"/v1/orders/{order}/documents?kind=passport"
            async with session.post(path, data=self.scan) as response:
                if response.status == 201:
                    self.stored.add((await response.json())["id"])

    async def shred(self, session: aiohttp.ClientSession) -> None:
        """Shred one after the other, without end."""
        while True:
            for document in sorted(self.stored - self.asked)[:1]:
                self.asked.add(document)
                path = f"/v1/documents/{document}/actions/shred"
                async with session.post(path, json={"reason": "test"}) as response:
                    if response.status == 200:
                        self.shredded.add(document)
            await asyncio.sleep(0.01)

    def session(self) -> aiohttp.ClientSession:
        """Open a session with the server."""
        headers = {**self.headers}
        return aiohttp.ClientSession(self.vault.url, headers=headers)

    async def living(self, session: aiohttp.ClientSession) -> set[str]:
        """Return what the vault says is stored, also where its answer was lost in a crash."""
        found = set()
        async with session.get("/v1/orders?limit=200") as response:
            orders = (await response.json())["data"]
        for order in orders:
            async with session.get(f"/v1/orders/{order['id']}") as response:
                documents = (await response.json())["documents"]
            found |= {one["id"] for one in documents if one["custody"] == "stored"}
        return found

    async def check(self, session: aiohttp.ClientSession) -> None:
        """Every acknowledged document is whole, and every acknowledged shred is one."""
        purpose = {"Access-Purpose": "verify-identity"}
        for document in self.stored:
            path = f"/v1/documents/{document}/content"
            async with session.get(path, headers=purpose) as response:
                body = await response.read()
                if document in self.shredded:
                    assert response.status == 410
                elif document in self.asked:
                    assert response.status in (200, 410)
                else:
                    assert response.status == 200
                assert response.status == 410 or body == self.scan


async def quietly(work: Awaitable[None]) -> None:
    """Run until the server is gone."""
    with contextlib.suppress(aiohttp.ClientError, ConnectionError):
        await work


@pytest.mark.parametrize("interval", ["0.2", "3600"])
async def test_kill_during_uploads_shreds_and_seals(tmp_path: Path, interval: str) -> None:
    """
    A server killed at any moment, with and without seals going on, loses nothing it acknowledged.

    Afterwards every upload that did not end is swept up, and no key of it was ever kept.
    """
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    scan = (Path(__file__).parents[1] / "samples" / "passport-uto.jpg").read_bytes()
    vault = VaultProcess(tmp_path / "home", seal_interval_seconds=interval)
    await vault.start()
    desk = Desk(vault, await porting_token(vault), scan)
    for _ in range(ROUNDS):
        async with desk.session() as session:
            order = await desk.order(session)
            work = [desk.upload(session, order) for _ in range(4)] + [desk.shred(session)]
            tasks = [asyncio.create_task(quietly(item)) for item in work]
            await asyncio.sleep(chance.uniform(0.3, 1.5))
            vault.kill()
            await asyncio.gather(*tasks)
        await vault.start()
        async with desk.session() as session:
            await desk.check(session)
    assert desk.stored
    assert desk.shredded
    await check_nothing_left(vault, desk)


async def check_nothing_left(vault: VaultProcess, desk: Desk) -> None:
    """Once swept, the bucket holds the objects of living documents and no other."""
    await vault.stop()
    vault.environment["PORTVAULT_RECEIVING_SECONDS_MAX"] = "0.1"
    vault.environment["PORTVAULT_SEAL_INTERVAL_SECONDS"] = "0.5"
    await vault.start()
    objects, living = {""}, set[str]()
    for _ in range(300):
        await asyncio.sleep(0.1)
        async with desk.session() as session:
            living = await desk.living(session)
        objects = {path.name for path in (vault.home / "objects/uk/documents").iterdir()}
        if objects == living:
            break
    assert objects == living
    assert desk.stored - desk.asked <= living
    assert not desk.shredded & living
    async with desk.session() as session:
        await desk.check(session)
    await vault.stop()
