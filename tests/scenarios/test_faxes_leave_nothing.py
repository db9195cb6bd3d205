"""A fax passes through and leaves nothing behind that anybody could read."""

import asyncio
import io
import subprocess
from pathlib import Path
from uuid import UUID

import pikepdf

from tests.command_line import token_of
from tests.fixtures_postfix import Postfix, attachment
from tests.fixtures_process import VaultProcess
from tests.fixtures_spool import HylaFax
from vault.adapters.postgres.cluster import NAME, Cluster
from vault.domain.tiff_fax import read_pages
from vault.trials.attackers import Attacker

CALLER, CALLED = "+442079460999", "+442079460123"
TABLE = """
[[routes]]
number = "+4420*"
address = "inbox@acme.test"

[[domains]]
domain = "acme.test"
host = "127.0.0.1:{port}"
ca = "{ca}"
"""


def found_in(directory: Path, wanted: list[bytes]) -> list[str]:
    """Return the files below that hold any of this."""
    return [
        str(path)
        for path in directory.rglob("*")
        if path.is_file() and any(one in path.read_bytes() for one in wanted)
    ]


async def test_from_hylafax_to_a_mailbox_and_gone(
    tmp_path: Path, postfix: Postfix, hylafax: HylaFax, fax: bytes
) -> None:
    """Through the real hook and a real Postfix; what was copied in between opens nothing after."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "faxes.toml").write_text(TABLE.format(port=postfix.port, ca=postfix.ca))
    vault = VaultProcess(home, worker="false", fax_mail_from="fax@vault.test")
    await vault.start()
    try:
        token = await token_of(vault, "fax-gateway")
        path = hylafax.receive(fax)
        status, said = await hylafax.faxrcvd(
            vault, token["PORTVAULT_TOKEN"], path, CALLER, "Alice", CALLED
        )
        assert status == 0, said
        (taken,) = await vault.json("fax", "list", **token)
        identity = UUID(taken["id"])

        # While the fax is in custody: the database, its WAL, the bucket; and nothing in clear.
        attacker = Attacker("uk")
        await attacker.take_database(Cluster(home, durable=True).address(NAME))
        attacker.take_bucket(home / "objects" / "uk")
        await vault.json("backup", str(tmp_path / "between.dump"))
        between = tmp_path / "between"
        between.mkdir()
        # As a thief would: while it runs, and what vanishes meanwhile is not waited for.
        for what in (home / "postgres" / "data", home / "objects"):
            subprocess.run(["cp", "-a", str(what), str(between)], check=False)
        assert list(between.rglob("pg_wal/0*"))
        pages = read_pages(fax, 10)
        strips = [page.strip(fax, number)[64:128] for page in pages for number in range(2)]
        clear = [*strips, CALLER.encode(), CALLED.encode(), CALLER[1:].encode()]
        assert found_in(between, clear) == []
        assert found_in(hylafax.spool, clear) == []
        # The attack works while the root key lives.
        keys = home.with_name("home-keys")
        attacker.take_custodian(keys)
        attacker.learn()
        assert attacker.read([identity]) == {identity: fax}

        await vault.stop()
        vault.environment["PORTVAULT_WORKER"] = "true"
        vault.environment["PORTVAULT_SEAL_INTERVAL_SECONDS"] = "1"
        await vault.start()
        (mail,) = await postfix.wait_for_mail()
        with pikepdf.open(io.BytesIO(attachment(mail))) as pdf:
            assert len(pdf.pages) == 2
        receipt = taken
        for _ in range(100):
            receipt = await vault.json("fax", "show", taken["id"], **token)
            if receipt["custody"] == "sealed":
                break
            await asyncio.sleep(0.5)
        assert (receipt["state"], receipt["custody"]) == ("delivered", "sealed")
        assert (receipt["from_masked"], receipt["to_masked"]) == ("+442079460***",) * 2
        assert receipt["irrecoverable_since"]

        attacker.keys.clear()
        await attacker.take_database(Cluster(home, durable=True).address(NAME))
        attacker.take_bucket(home / "objects" / "uk")
        attacker.take_custodian(keys)
        attacker.learn()
        assert attacker.read([identity]) == {}
        assert list((home / "objects" / "uk" / "documents").glob("*")) == []
        assert found_in(home, clear) == []
        log = (await vault.json("log", "verify"))["uk"]
        assert log["intact"]
    finally:
        if vault.process is not None and vault.process.poll() is None:
            await vault.stop()
