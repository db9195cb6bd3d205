"""An old backup comes back: faxes that passed through since stay gone, what waits is here."""

import asyncio
from pathlib import Path

import aiohttp

from tests.command_line import token_of
from tests.fixtures_process import VaultProcess
from tests.fixtures_telefax import CALLEE


async def test_a_dump_from_before_brings_back_what_waits(tmp_path: Path, fax: bytes) -> None:
    """What was delivered since is shredded and says so; what waits is byte-identical."""
    vault = VaultProcess(tmp_path / "home", mirror_interval_seconds="1")
    await vault.start()
    try:
        token = await token_of(vault, "fax-gateway")
        path = tmp_path / "fax.tif"
        path.write_bytes(fax)

        async def take(commid: str) -> str:
            told = (str(path), "ttyS0", commid, "", "private")
            taken = await vault.json("fax", "received", "--to", CALLEE, *told, **token)
            return str(taken["id"])

        async def call(method: str, fax_id: str, what: str) -> tuple[int, bytes]:
            headers = {"Authorization": f"Bearer {token['PORTVAULT_TOKEN']}"}
            url = f"{vault.url}/v1/faxes/{fax_id}/{what}"
            async with (
                aiohttp.ClientSession(headers=headers) as http,
                http.request(method, url) as response,
            ):
                return response.status, await response.read()

        living, delivered = await take("1"), await take("2")
        dump = tmp_path / "old.dump"
        await vault.json("backup", str(dump))
        assert (await call("POST", delivered, "actions/deliver"))[0] == 200
        await vault.json("keys", "seal")
        later = await take("3")
        # The log, which is the ledger of shreds, is published about a second later.
        await asyncio.sleep(3)
        vault.kill()
        (vault.home / "postgres").rename(vault.home / "lost")

        (plan,) = await vault.json("restore", str(dump), "--dry-run")
        states = {line["document"]: line["state"] for line in plan["documents"]}
        assert states[living] == "living"
        assert states[delivered] in {"shredded", "sealed"}
        assert states[later] == "recovered"
        assert await vault.json("restore") == [plan]
        await vault.start()
        for waiting in (living, later):
            assert await call("GET", waiting, "content") == (200, fax)
        assert (await vault.json("fax", "show", later, **token))["to_masked"] == "?"
        assert (await call("GET", delivered, "content"))[0] == 410
        receipt = await vault.json("fax", "show", delivered, **token)
        assert (receipt["state"], receipt["custody"] != "stored") == ("delivered", True)
        assert (await vault.json("keys", "verify"))[0]["findings"] == []
    finally:
        if vault.process is not None and vault.process.poll() is None:
            await vault.stop()
