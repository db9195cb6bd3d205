"""Certificates as they are issued and served: for documents and orders, as JSON and on paper."""

import asyncio
import json
from typing import Any

import pytest

from tests.fixtures_server import OPERATOR, Api
from tests.retention_house import PDF
from vault.actions.certificates import certify
from vault.actions.expire import expire
from vault.actions.keys import mark_sealed, rotate_key, seal, worker
from vault.actions.log_publish import publish_log, sequence_log
from vault.actions.shred import purge_shredded
from vault.audit.certificate_auditor import CertificateError, audit, verify
from vault.context import Vault
from vault.domain.certificates import note_digest


async def finish(vault: Vault) -> None:
    """Let the worker shred, seal, purge and certify all there is."""
    while await expire(vault, "uk"):
        pass
    await seal(vault, worker(vault), "uk")
    await asyncio.sleep(vault.config.key_cache_seconds)
    await mark_sealed(vault, "uk")
    await purge_shredded(vault, "uk")
    await sequence_log(vault, "uk")
    await certify(vault, "uk")


async def test_documents_and_orders_are_certified(api: Api, vault: Vault, passport: bytes) -> None:
    """A document's certificate holds offline and is in the log; the order's comes with the last."""
    order = await api.order()
    _, scan = await api.put(order, passport)
    _, letter = await api.put(order, PDF, kind="loa")
    await api.call("PATCH", f"/v1/orders/{order}", json={"status": "cancelled"})
    await finish(vault)
    path = f"/v1/documents/{scan['id']}/certificate"
    _, found, _ = await api.call("GET", path, role="compliance")
    fields = verify(found["note"], vault.signer.vkey)
    assert fields["document"] == scan["id"]
    assert fields["policy"]["row"] == "id-scans-uk"
    # A newer checkpoint is signed, but could still be rolled back.
    published = await vault.pool.fetchval("select size from log_published where region = 'uk'")
    signed = await vault.pool.fetchval("select max(size) from log_checkpoint")
    assert int(fields["log_checkpoint"].split("\n")[1]) == published < signed
    assert fields["policy"]["version"] == 1
    assert fields["trigger"]["ground"] == "retention"
    assert (found["anchor"], audit(json.dumps(found), vault.signer.vkey)["anchored_size"]) == (
        None,
        None,
    )
    await sequence_log(vault, "uk")
    await publish_log(vault, "uk")
    _, found, _ = await api.call("GET", path, role="compliance")
    anchored = audit(json.dumps(found), vault.signer.vkey)
    assert anchored["anchored_size"] > max(anchored["log_indices"])
    _, page, _ = await api.call(
        "GET", "/v1/access-records?region=uk&action=certificate.issue", role="compliance"
    )
    named = {record.get("reference") for record in page["data"]}
    assert note_digest(found["note"]) in named
    of_order = f"/v1/orders/{order}/certificate"
    status, problem, _ = await api.call("GET", of_order)
    assert (status, "1 documents of this order" in problem["detail"]) == (409, True)
    await api.call(
        "POST", f"/v1/documents/{letter['id']}/actions/shred", json={"reason": "withdrawn"}
    )
    await finish(vault)
    status, whole, _ = await api.call("GET", of_order)
    assert status == 200
    fields = verify(whole["note"], vault.signer.vkey)
    assert [item["document"] for item in fields["documents"]] == [scan["id"], letter["id"]]
    assert fields["documents"][0]["certificate_sha256"] == note_digest(found["note"])
    await sequence_log(vault, "uk")
    await publish_log(vault, "uk")
    _, whole, _ = await api.call("GET", of_order)
    assert audit(json.dumps(whole), vault.signer.vkey)["anchored_size"] > 0
    await check_forgeries(whole, found, vault.signer.vkey)


async def check_forgeries(answer: dict[str, Any], other: dict[str, Any], vkey: str) -> None:
    """Whatever of the anchor is another one's, or changed, does not hold, and says why."""
    anchor = answer["anchor"]
    record = anchor["record"].replace('"phase":"intent"', '"phase":"outcome"')
    head, _, note = anchor["proof"].partition("\n\n")
    moved = head.replace("index ", "index 1") + "\n\n" + note
    for forged, says in (
        (other["anchor"], "names another certificate"),
        ({**anchor, "record": record}, "not in the log"),
        ({**anchor, "proof": moved}, "not in the log"),
        ({**anchor, "proof": head + "\n\n" + note.replace("uk", "us")}, "did not sign"),
        ({**anchor, "proof": "x\nindex 1"}, "no proof"),
        ({**anchor, "proof": "x"}, "no answer of the vault"),
        ({"record": "{}"}, "no answer of the vault"),
    ):
        with pytest.raises(CertificateError, match=says):
            audit(json.dumps({**answer, "anchor": forged}), vkey)


async def test_a_certificate_holds_across_a_hand_over_of_the_key(
    api: Api, vault: Vault, passport: bytes
) -> None:
    """Whoever trusts an earlier key, or a later one, follows the notes that both keys signed."""
    before = vault.signer.vkey
    _, scan = await api.put(await api.order(), passport)
    await api.call("POST", f"/v1/documents/{scan['id']}/actions/shred", json={"reason": "asked"})
    await rotate_key(vault, OPERATOR)
    await rotate_key(vault, OPERATOR, finish=True)
    await finish(vault)
    assert vault.signer.vkey != before
    _, found, _ = await api.call("GET", f"/v1/documents/{scan['id']}/certificate")
    answer = json.dumps(found)
    assert audit(answer, before)["document"] == audit(answer, vault.signer.vkey)["document"]
    with pytest.raises(CertificateError, match="did not sign"):
        audit(json.dumps({**found, "handovers": []}), before)


async def test_a_certificate_is_shown_while_the_bucket_is_away(
    api: Api, vault: Vault, passport: bytes
) -> None:
    """Only its anchor, which is made of the published log, is missing then."""
    order = await api.order()
    _, scan = await api.put(order, passport)
    await api.call("POST", f"/v1/documents/{scan['id']}/actions/shred", json={"reason": "asked"})
    await finish(vault)
    await sequence_log(vault, "uk")
    await publish_log(vault, "uk")
    path, tiles = f"/v1/documents/{scan['id']}/certificate", vault.config.home / "objects/uk/log"
    _, before, _ = await api.call("GET", path, role="compliance")
    tiles.rename(tiles.with_name("away"))
    status, found, _ = await api.call("GET", path, role="compliance")
    assert (status, found["note"], found["anchor"]) == (200, before["note"], None)
    assert before["anchor"] is not None


async def test_what_is_gone_leaves_a_tombstone(api: Api, vault: Vault, passport: bytes) -> None:
    """410 names where the certificate is, and the certificate prints as a page without script."""
    _, scan = await api.put(await api.order(), passport)
    await api.call("POST", f"/v1/documents/{scan['id']}/actions/shred", json={"reason": "asked"})
    status, tombstone = await api.get(scan["id"])
    assert (status, tombstone["document"]) == (410, scan["id"])
    status, _, _ = await api.call("GET", tombstone["certificate"])
    assert status == 409
    await finish(vault)
    status, page, answer = await api.call(
        "GET", tombstone["certificate"], headers={"Accept": "text/html"}
    )
    text = page.decode()
    assert (status, answer.content_type) == (200, "text/html")
    assert "Irrecoverable since" in text
    assert scan["id"] in text
    assert "<script" not in text
    assert "style-src 'sha256-" in answer.headers["Content-Security-Policy"]
