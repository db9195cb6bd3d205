"""What cannot be undone waits until its record is published; a reading leaves a receipt."""

import base64
import re
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest

from tests.access_records import checkpoints
from tests.fixtures_server import OPERATOR, Api
from tests.tlog_client import check_proof, sha256
from vault.actions.keys import seal
from vault.actions.log_publish import publish_log, sequence_log
from vault.commands import log as log_commands
from vault.commands.parser import make_parser
from vault.context import Vault
from vault.domain.records import Receipt, encode_receipt, parse_receipt
from vault.errors import UnavailableError, VaultError
from vault.sql.log_published import is_published


async def generations(vault: Vault) -> list[str]:
    """Return the states of the region's root generations."""
    rows = await vault.pool.fetch(
        "select state from key_generation where region = 'uk' order by generation"
    )
    return [row["state"] for row in rows]


async def test_a_root_key_dies_only_after_its_record_is_published(vault: Vault) -> None:
    """Without a bucket to publish in nothing is destroyed; with it the intent lies there first."""
    log = vault.config.home / "objects" / "uk" / "log"
    assert not log.exists()
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("in the way")
    with pytest.raises(UnavailableError):
        await seal(vault, OPERATOR, "uk", force=True)
    assert await generations(vault) == ["active"]
    log.unlink()
    await seal(vault, OPERATOR, "uk", force=True)
    assert await generations(vault) == ["destroyed", "active"]
    rows = await vault.pool.fetch(
        "select id, at from access_record where action = 'keys.seal' and phase = 'intent'"
        " order by at"
    )
    destroyed_at = await vault.pool.fetchval("select max(destroyed_at) from key_generation")
    async with vault.pool.acquire() as conn:
        assert await is_published(conn, "uk", rows[-1]["id"])
    published = checkpoints(log)[-1].stat().st_mtime
    assert published <= destroyed_at.timestamp() + timedelta(milliseconds=10).total_seconds()


async def read(api: Api, passport: bytes) -> Receipt:
    """Read a document, and return the receipt."""
    _, document = await api.put(await api.order(), passport)
    _, _, response = await api.call(
        "GET",
        f"/v1/documents/{document['id']}/content",
        headers={"Access-Purpose": "verify-identity"},
    )
    return parse_receipt(response.headers["Access-Receipt"])


async def test_a_reader_holds_what_convicts_a_log_that_forgets(
    api: Api,
    vault: Vault,
    passport: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The receipt names record and leaf; the proof that is asked for later leads from it."""
    receipt = await read(api, passport)
    await sequence_log(vault, "uk")
    await publish_log(vault, "uk")
    row = await vault.pool.fetchrow(
        "select r.action, r.phase, l.leaf_hash from access_record r join log_leaf l"
        " on l.record = r.id where r.id = $1",
        receipt.record,
    )
    assert row is not None
    assert tuple(row) == ("document.read", "intent", receipt.leaf)
    status, proof, _ = await api.call("GET", f"/v1/log/uk/inclusion?record={receipt.record}")
    assert status == 200
    assert check_proof(proof.decode(), receipt.leaf, vault.signer.vkey, "portvault/uk") >= 0

    file = tmp_path / "receipt"
    monkeypatch.setenv("PORTVAULT_TOKEN", api.tokens["porting"])
    monkeypatch.setenv("PORTVAULT_SERVER", api.url)
    args = make_parser().parse_args(["log", "receipt", str(file), "--key", vault.signer.vkey])
    file.write_text(encode_receipt(receipt))
    await log_commands.receipt(args)
    assert str(receipt.record) in capsys.readouterr().out
    # A log that put another record in its place, or none at all, cannot answer.
    forged = Receipt(receipt.region, receipt.record, sha256(receipt.leaf))
    file.write_text(encode_receipt(forged))
    with pytest.raises(VaultError, match="evidence"):
        await log_commands.receipt(args)
    forgotten = Receipt(receipt.region, UUID(int=7), receipt.leaf)
    file.write_text(encode_receipt(forgotten))
    with pytest.raises(VaultError, match="no such record"):
        await log_commands.receipt(args)


def test_a_receipt_comes_back() -> None:
    """What a header says is read again; anything else is refused."""
    receipt = Receipt("uk", UUID(int=1), bytes(32))
    text = encode_receipt(receipt)
    assert re.fullmatch(r'region="uk", record="[0-9a-f-]{36}", leaf=:[A-Za-z0-9+/]+=:', text)
    assert parse_receipt(text + "\n") == receipt
    short = base64.b64encode(bytes(31)).decode()
    for wrong in ("", text[1:], text.replace("uk", ""), re.sub(":.*:", f":{short}:", text)):
        with pytest.raises(ValueError):
            parse_receipt(wrong)
