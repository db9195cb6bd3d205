"""A server that is killed while it hands out a document leaves a record that says so in the end."""

import os
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import aiohttp

from tests.command_line import token_of
from tests.fixtures_process import VaultProcess
from vault.actions.log_publish import sequence_log
from vault.actions.log_records import close_interrupted
from vault.app import open_vault
from vault.config.settings import Config

JPEG_START = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01"
#: More than what the network between holds by itself.
SIZE = 20 * 1024 * 1024


async def test_what_a_dead_server_began_is_interrupted(tmp_path: Path) -> None:
    """Kill -9 while bytes flow: the intent stays open, until the worker ends it hours later."""
    made = VaultProcess(tmp_path / "home", worker="false")
    await made.start()
    scan = tmp_path / "scan.jpg"
    scan.write_bytes(JPEG_START + os.urandom(SIZE))
    token = await token_of(made, "porting")
    order = ("order", "create", "--region", "uk", "--customer", "a", "--number", "+442079460123")
    opened = await made.json(*order, **token)
    document = await made.json(
        "put", str(scan), "--order", opened["id"], "--kind", "passport", **token
    )
    headers = {
        "Authorization": f"Bearer {token['PORTVAULT_TOKEN']}",
        "Access-Purpose": "verify-identity",
    }
    async with aiohttp.ClientSession(headers=headers) as session:
        url = f"{made.url}/v1/documents/{document['id']}/content"
        async with session.get(url) as response:
            assert response.status == 200
            await response.content.readexactly(len(JPEG_START))
            made.kill()
    config = Config(home=made.home, regions=("uk",), worker=False)
    async with open_vault(config) as vault:
        later = replace(vault, clock=lambda: vault.clock() + timedelta(hours=6))
        while await sequence_log(vault, "uk"):
            pass
        assert await close_interrupted(vault, "uk") == 0
        assert await close_interrupted(later, "uk") == 1
        rows = await vault.pool.fetch(
            "select phase, result from access_record where action = 'document.read' order by at"
        )
    ends = [(row["phase"], row["result"]) for row in rows if row["phase"] != "progress"]
    assert ends == [("intent", None), ("outcome", "interrupted")]
