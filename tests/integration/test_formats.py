"""docs/formats.md suffices: a reader written from it alone opens everything that lives."""

import base64
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures_server import OPERATOR, serving
from tests.fixtures_telefax import CALLEE, CALLER, Faxes
from tests.formats_reader import Log, Tree, generations, mirror, store_id, vkey_of
from tests.integration.test_certificates import finish
from vault.actions.keys import seal
from vault.actions.log_publish import publish_log, sequence_log
from vault.app import open_vault
from vault.config.settings import Config

NUMBERS = ["+442079460123", "+442079460124"]
DOCUMENT = {"Idempotency-Key": "d"}


@pytest.mark.parametrize("passphrase", [None, "Schlüssel und Schloß"])
async def test_a_reader_written_from_the_text_opens_everything(
    config: Config, tmp_path: Path, passport: bytes, fax: bytes, passphrase: str | None
) -> None:
    """Documents, faxes, names, numbers, the index, with and without a passphrase, after a seal."""
    keys, address = tmp_path / "own-keys", f"file:{tmp_path}/own-keys"
    if passphrase is not None:
        secret = tmp_path / "passphrase"
        secret.touch(mode=0o600)
        secret.write_text(passphrase + "\r\nnot this line\n", encoding="utf-8")
        address += f"?passphrase-file={secret}"
    own = replace(config, custodian=address, objects=f"dir:{tmp_path}/own/{{region}}")
    bucket = tmp_path / "own" / "uk"
    async with open_vault(own, dsn=own.database) as vault, serving(vault) as api:
        fields = {"region": "uk", "customer": "acme", "numbers": NUMBERS, "type": None}
        fields["customer_reference"] = "PO-1"
        _, order, _ = await api.call("POST", "/v1/orders", json=fields)
        said = {"Content-Disposition": "attachment; filename*=UTF-8''J%C3%BCrgen.jpg"}
        _, document = await api.put(order["id"], passport, **said)
        gone = (await api.put(await api.order(), passport))[1]["id"]
        taken = await Faxes(api).taken(fax, direction="outbound")
        shred = f"/v1/documents/{gone}/actions/shred"
        assert (await api.call("POST", shred, json={"reason": "test"}))[0] in {200, 204}
        await seal(vault, OPERATOR, "uk", force=True)
        # Something that only a segment after the base tells.
        _, later = await api.put(order["id"], passport, **said)
        await vault.keyring.mirror("uk")
        fetch = vault.pool.fetchval
        sealed = await fetch("select metadata from document where id = $1::uuid", document["id"])
        numbers = await fetch("select metadata from fax where id = $1::uuid", taken)
        details = await fetch("select details from porting_order where id = $1::uuid", order["id"])
        index = await vault.pool.fetch(
            'select key, mac, reference from number_index where "order" = $1::uuid', order["id"]
        )

    roots = generations(keys, "uk", passphrase)
    assert len(roots) == 1
    assert (keys / "uk.destroyed").read_bytes() == b"1"
    tree = Tree("uk", mirror(bucket), roots)
    assert tree.authentic(bucket)
    for identity in (document["id"], later["id"]):
        assert tree.content(bucket, identity) == passport
    assert tree.content(bucket, taken) == fax
    assert tree.metadata(document["id"], sealed) == {"filename": "Jürgen.jpg"}
    assert tree.metadata(taken, numbers) == {"from": CALLER, "to": CALLEE}
    assert tree.metadata(order["id"], details, "order-details") == {
        "numbers": NUMBERS,
        "customer_reference": "PO-1",
        "type": None,
        "losing_carrier": None,
        "gaining_carrier": None,
    }
    assert len(index) == 1 + len(NUMBERS)
    (key,) = {str(row["key"]) for row in index}
    assert {row["mac"] for row in index if row["reference"]} == {tree.reference_mac(key, "PO-1")}
    macs = {tree.number_mac(key, number) for number in NUMBERS}
    assert macs == {row["mac"] for row in index if not row["reference"]}
    with pytest.raises(KeyError):
        tree.content(bucket, gone)


async def test_a_reader_written_from_the_text_follows_the_log(
    config: Config, passport: bytes, fax: bytes
) -> None:
    """Store, signing key, tiles, records, a receipt, a certificate, and what made requests one."""
    directory = config.home.with_name(config.home.name + "-keys")
    async with open_vault(config, dsn=config.database) as vault, serving(vault) as api:
        once = {"Idempotency-Key": "k"}
        fields: Any = {"region": "uk", "customer": "acme", "numbers": NUMBERS, "type": None}
        _, order, _ = await api.call("POST", "/v1/orders", json=fields, headers=once)
        said = {"Content-Disposition": "attachment; filename*=UTF-8''J%C3%BCrgen.jpg"}
        typed, tiff = {"Content-Type": "image/jpg"}, {"Content-Type": "image/tiff"}
        _, document = await api.put(order["id"], passport, **said, **typed, **DOCUMENT)
        taken = await Faxes(api).taken(fax, headers={"Idempotency-Key": "f", **tiff}, seconds="12")
        gone = (await api.put(order["id"], passport))[1]["id"]
        purpose = {"Access-Purpose": "verify-identity"}
        path, receipts = f"/v1/documents/{document['id']}/content", list[str]()
        # More records than a bundle has.
        for _ in range(130):
            _, _, answer = await api.call("GET", path, headers=purpose)
            receipts.append(answer.headers["Access-Receipt"])
        await api.call("POST", f"/v1/documents/{gone}/actions/shred", json={"reason": "test"})
        await finish(vault)
        await sequence_log(vault, "uk")
        await publish_log(vault, "uk")
        path = f"/v1/documents/{gone}/certificate"
        _, certificate, _ = await api.call("GET", path, role="compliance")
        known = await vault.pool.fetchval("select id from object_store where region = 'uk'")
        rows = await vault.pool.fetch("select resource, fingerprint from idempotency")
        made = await vault.pool.fetchval("select fingerprint from fax where id = $1::uuid", taken)
        headers = await vault.pool.fetch("select id, stream_header from document")
        await vault.keyring.mirror("uk")

    bucket = config.home / "objects" / "uk"
    assert store_id(bucket) == known
    tree = Tree("uk", mirror(bucket), generations(directory, "uk", None))
    prints = {str(row["resource"]): row["fingerprint"] for row in rows}
    details = dict.fromkeys(("customer_reference", "type", "losing_carrier", "gaining_carrier"))
    asked: list[Any] = ["order", "uk", "acme", {"numbers": NUMBERS, **details}]
    assert tree.fingerprint(order["id"], asked) == prints[order["id"]]
    asked = ["document", order["id"], "passport", "image/jpg", "Jürgen.jpg"]
    assert tree.fingerprint(document["id"], asked, passport) == prints[document["id"]]
    asked = ["fax", "uk", "inbound", CALLER, CALLEE, {"seconds": "12"}, "image/tiff"]
    assert tree.fingerprint(taken, asked, fax) == made

    log = Log(bucket, "uk", vkey_of(directory))
    assert log.size > 256
    places = [log.place(receipt) for receipt in receipts]
    assert {log.read()[place]["document"] for place in places} == {document["id"]}
    told = log.certified(certificate["note"])
    assert told["document"] == gone
    begin = {str(row["id"]): row["stream_header"] for row in headers}
    assert base64.b64decode(told["stream_header"]) == begin[gone]
    stored = (bucket / "documents" / document["id"]).read_bytes()
    assert stored[:56] == begin[document["id"]]
    others = {path.relative_to(bucket).parts[0] for path in bucket.rglob("*") if path.is_file()}
    assert others == {"store.json", "documents", "keys", "log"}
