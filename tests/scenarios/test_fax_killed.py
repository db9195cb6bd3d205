"""A vault that is killed between the next hop's 250 and its record delivers all the same."""

import asyncio
from pathlib import Path

from tests.command_line import token_of
from tests.fixtures_postfix import HostilePeer
from tests.fixtures_process import VaultProcess
from tests.fixtures_telefax import CALLEE

TABLE = """
[[routes]]
number = "+4420*"
address = "inbox@acme.test"

[[domains]]
domain = "acme.test"
host = "127.0.0.1:{port}"
tls = "opportunistic"
"""


class DeadlyPeer(HostilePeer):
    """A next hop that takes a mail, and the sender dies before it can hear so."""

    victim: VaultProcess | None = None

    async def _say(self, writer: asyncio.StreamWriter, what: str, usual: bytes) -> bool:
        if what == "dot":
            self.mails.append(self.data)
            if self.victim is not None:
                self.victim.kill()
                self.victim = None
        return await super()._say(writer, what, usual)

    mails: list[bytes]


async def test_killed_between_the_answer_and_its_record(tmp_path: Path, fax: bytes) -> None:
    """The mail is sent twice with one Message-ID, and the fax ends delivered and shredded."""
    home = tmp_path / "home"
    home.mkdir()
    peer = DeadlyPeer({})
    peer.mails = []
    async with peer:
        (home / "faxes.toml").write_text(TABLE.format(port=peer.port))
        vault = VaultProcess(home, fax_attempt_seconds_max="2", fax_mail_from="fax@vault.test")
        await vault.start()
        try:
            token = await token_of(vault, "fax-gateway")
            path = tmp_path / "fax.tif"
            path.write_bytes(fax)
            peer.victim = vault
            command = ("fax", "received", "--to", CALLEE, str(path), "ttyS0", "1", "", "private")
            taken = await vault.json(*command, **token)
            for _ in range(200):
                if peer.mails:
                    break
                await asyncio.sleep(0.1)
            assert vault.process is not None
            assert await asyncio.to_thread(vault.process.wait) == -9
            await vault.start()
            receipt = taken
            for _ in range(200):
                receipt = await vault.json("fax", "show", taken["id"], **token)
                if receipt["state"] == "delivered":
                    break
                await asyncio.sleep(0.2)
            assert (receipt["state"], receipt["custody"]) in {
                ("delivered", "shredded"),
                ("delivered", "sealed"),
            }
            name = f"Message-ID: <{taken['id']}@vault.test>\r\n".encode()
            assert [name in mail for mail in peer.mails] == [True, True]
        finally:
            if vault.process is not None and vault.process.poll() is None:
                await vault.stop()
