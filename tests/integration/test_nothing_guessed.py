"""Nothing that is stored outside the tree confirms a guess at what is sealed."""

import base64
import hashlib
import json
import logging
import uuid
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlencode

import asyncpg
import pytest

from tests.fixtures_server import OPERATOR
from tests.fixtures_telefax import Faxes, tiff
from tests.integration.test_fax_listener import listener, mail
from tests.integration.test_hooks import ADDRESS, CREDENTIALS, TOKEN, twilio_json, twilio_signature
from vault.actions.expire import review
from vault.actions.keys import seal
from vault.actions.log_publish import publish_log, sequence_log
from vault.actions.order_details import renew_index
from vault.config.settings import Config
from vault.trials.attackers import Oracle

NUMBER, CALLER, CALLED, MAILED = "+442079460501", "+442079460617", "+442079460733", "+442079460849"
REFERENCE, LOSING, FILENAME = "ACME-7731-XY", "Losing Carrier Ltd", "jane-doe-passport.jpg"
FAX, MAIL = (tiff({}, strip=bytes(range(40, 200)) + name.encode()) for name in ("fax", "mail"))
#: How an older version wrote an order down before it hashed it.
_OLD_DETAILS = (
    f"Details(numbers=('{NUMBER}',), customer_reference='{REFERENCE}', type=None, "
    f"losing_carrier='{LOSING}', gaining_carrier=None)"
)


async def test_no_column_object_or_log_line_confirms_a_guess(
    config: Config, passport: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever came in, by whichever entrance, with or without a key: no plain function of it."""
    caplog.set_level(logging.DEBUG)
    settings = replace(
        config,
        regions=("uk",),
        public_url=ADDRESS,
        twilio_auth_token=TOKEN,
        bandwidth_credentials=CREDENTIALS,
    )
    async with listener(settings) as there:
        api, vault = there.api, there.vault
        fields = {
            "region": "uk",
            "customer": "acme",
            "numbers": [NUMBER],
            "customer_reference": REFERENCE,
            "losing_carrier": LOSING,
        }
        key = {"Idempotency-Key": "key-1"}
        _, order, _ = await api.call("POST", "/v1/orders", json=fields, headers=key)
        assert (await api.call("POST", "/v1/orders", json=fields, headers=key))[1] == order
        link = f"/v1/orders/{order['id']}/actions/link"
        for carrier in ("twilio", "bandwidth"):
            said = {"carrier": carrier, "reference": "KW1"}
            assert (await api.call("POST", link, json=said))[0] == 200
        headers = {
            "Idempotency-Key": "key-2",
            "Content-Disposition": f'attachment; filename="{FILENAME}"',
            "Content-Type": "image/jpeg",
        }
        digest = base64.b64encode(hashlib.sha256(passport).digest()).decode()
        headers["Content-Digest"] = f"sha-256=:{digest}:"
        _, document = await api.put(order["id"], passport, **headers)
        assert (await api.put(order["id"], passport, **headers))[1]["id"] == document["id"]
        faxes = Faxes(api)
        fax = await faxes.taken(
            FAX, headers={"Idempotency-Key": "key-3"}, **{"from": CALLER, "to": CALLED}
        )
        assert (await there.say(mail(MAIL, subtype="tiff"), to=f"{MAILED}@fax.test"))[0] == 250
        form = {"port_in_request_sid": "KW1", "status": "In Progress", "number": NUMBER}
        signed = f"{ADDRESS}/v1/hooks/twilio" + "".join(k + form[k] for k in sorted(form))
        async with api.session.post(
            f"{api.url}/v1/hooks/twilio",
            data=urlencode(form).encode(),
            headers={
                "X-Twilio-Signature": twilio_signature(signed),
                "Content-Type": "application/x-www-form-urlencoded",
            },
        ) as response:
            assert (await response.json())["result"] == "taken"
        path, body, json_headers = twilio_json(
            {"port_in_request_sid": "KW1", "status": "completed", "numbers": NUMBER}
        )
        async with api.session.post(api.url + path, data=body, headers=json_headers) as response:
            assert (await response.json())["result"] == "taken"
        notice = (
            "<Notification><Status>SUBMITTED</Status><OrderId>KW1</OrderId>"
            f"<OrderType>portins</OrderType><TelephoneNumber>{NUMBER}</TelephoneNumber>"
            "</Notification>"
        ).encode()
        basic = base64.b64encode(CREDENTIALS.encode()).decode()
        async with api.session.post(
            f"{api.url}/v1/hooks/bandwidth",
            data=notice,
            headers={"Authorization": f"Basic {basic}"},
        ) as response:
            assert (await response.json())["result"] == "taken"
        await faxes.content(fax)
        await faxes.act(fax, "deliver")
        await api.get(document["id"])
        await review(vault, "uk")
        await renew_index(vault, "uk")
        await seal(vault, OPERATOR, "uk", force=True)
        while await sequence_log(vault, "uk"):
            pass
        await publish_log(vault, "uk")
        principals = await vault.pool.fetch("select distinct principal from access_record")
        rows = await vault.pool.fetch("select id::text, size_bytes from fax")
    oracle = Oracle(
        suspects={
            "number": NUMBER,
            "caller": CALLER,
            "called": CALLED,
            "mailed": MAILED,
            "reference": REFERENCE,
            "carrier": LOSING,
            "file name": FILENAME,
            "passport": passport,
            "fax": FAX,
            "mail": MAIL,
        },
        known=[
            *("uk", "acme", "passport", "image/jpeg", order["id"], document["id"]),
            *(str(len(passport)), *(row["id"] for row in rows), *(row[0] for row in principals)),
        ],
        messages={
            "old order": f"('uk', 'acme', {_OLD_DETAILS})".encode(),
            "old document": (
                f"(UUID('{order['id']}'), <Kind.PASSPORT: 'passport'>, {len(passport)}, "
                f"{hashlib.sha256(passport).digest()!r}, 'image/jpeg')"
            ).encode(),
            "old mail": repr(("<one@acme.test>", MAILED, 0, len(MAIL))).encode(),
            "twilio form": signed.encode(),
            "twilio json": (ADDRESS + path).encode(),
            "twilio body": body,
            "bandwidth": notice,
        },
    )
    looked = await oracle.take_database(config.database)
    tables = {name.partition(".")[0] for name in looked}
    assert {
        "idempotency",
        "document",
        "porting_order",
        "fax",
        "order_event",
        "access_record",
    } <= tables
    assert oracle.take_files("object", config.home / "objects") > 5
    oracle.look("log", caplog.text.encode())
    assert dict(oracle.found) == {}


@pytest.mark.parametrize(
    "planted",
    [
        hashlib.sha256(NUMBER.encode()).digest(),
        hashlib.sha256(f"uk|{NUMBER}|acme".encode()).digest(),
        hashlib.md5(json.dumps([NUMBER, REFERENCE]).encode(), usedforsecurity=False).digest(),
        hashlib.blake2b(REFERENCE.lower().encode()).digest()[:12],
        hashlib.sha3_512(NUMBER[1:].encode()).digest()[-16:],
        uuid.uuid5(uuid.NAMESPACE_URL, NUMBER).bytes,
        hashlib.sha256(hashlib.sha256(FAX).digest()).digest(),
        NUMBER.encode(),
    ],
)
async def test_the_oracle_finds_what_is_planted(
    database: str, tmp_path: Path, planted: bytes
) -> None:
    """A plain hash is found as bytes, text, number or id, in a table, an object and its name."""
    oracle = Oracle({"number": NUMBER, "reference": REFERENCE, "fax": FAX}, ["uk", "acme"])
    forms = {
        "raw": ("bytea", planted),
        "hex": ("text", planted.hex().upper()),
        "base64": ("text", "x-" + base64.urlsafe_b64encode(planted).decode()),
        "id": ("uuid", uuid.UUID(bytes=(planted + bytes(16))[:16])),
        "whole": ("numeric", int.from_bytes(planted[:16])),
        "list": ("text[]", [planted.hex()]),
        "json": ("jsonb", json.dumps({"digest": planted.hex()})),
    }
    conn = await asyncpg.connect(database)
    for name, (kind, value) in forms.items():
        await conn.execute(f"create table planted_{name} (value {kind})")
        await conn.execute(f"insert into planted_{name} values ($1)", value)
    await conn.close()
    await oracle.take_database(database)
    (tmp_path / "objects").mkdir()
    (tmp_path / "objects" / planted.hex()).write_bytes(b"head" + planted + b"tail")
    oracle.take_files("object", tmp_path / "objects")
    oracle.look("piece", b"head" + FAX[100:200] + b"tail")
    assert oracle.found["fax"] >= {"piece"}
    oracle.found["fax"].remove("piece")
    found = set().union(*oracle.found.values())
    wanted = {f"column planted_{name}.value" for name in forms} | {"object", "object name"}
    assert found == wanted
