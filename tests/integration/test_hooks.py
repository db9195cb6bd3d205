"""Carriers' webhooks over real HTTP: signed or refused, repeated without effect, in any order."""

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.fixtures_server import Api, serving
from vault.actions.expire import expire
from vault.actions.log_publish import sequence_log
from vault.app import open_vault
from vault.config.settings import Config
from vault.context import Vault
from vault.web.hooks import FIELDS_MAX

KEY = Ed25519PrivateKey.generate()
PUBLIC = base64.b64encode(KEY.public_key().public_bytes_raw()).decode()
ADDRESS = "https://vault.example"
TOKEN, CREDENTIALS = "twilio-token", "band:width"


@dataclass
class Carriers:
    """A vault that carriers may call, and what they send."""

    vault: Vault
    api: Api

    async def post(self, path: str, body: bytes, **headers: str) -> tuple[int, Any]:
        """Post without a token."""
        async with self.api.session.post(
            self.api.url + path, data=body, headers=headers
        ) as response:
            return response.status, await response.json(content_type=None)

    async def telnyx(self, event: dict[str, Any], *, at: int = 0) -> tuple[int, Any]:
        """Send a signed event."""
        body, when = json.dumps({"data": event}).encode(), str(int(time.time()) + at)
        signature = base64.b64encode(KEY.sign(when.encode() + b"|" + body)).decode()
        return await self.post(
            "/v1/hooks/telnyx",
            body,
            **{"telnyx-timestamp": when, "telnyx-signature-ed25519": signature},
        )

    async def status(self, order: str) -> str:
        """Return where an order stands."""
        _, shown, _ = await self.api.call("GET", f"/v1/orders/{order}")
        return str(shown["status"])


@pytest.fixture
async def carriers(config: Config) -> AsyncIterator[Carriers]:
    """Serve a vault with the secrets of three carriers."""
    settings = replace(
        config,
        regions=("uk",),
        public_url=ADDRESS,
        telnyx_public_key=PUBLIC,
        twilio_auth_token=TOKEN,
        bandwidth_credentials=CREDENTIALS,
        # A thousand events of one order wait for its row, on a slow machine for longer.
        database_timeout_seconds=30.0,
    )
    async with open_vault(settings, dsn=config.database) as vault, serving(vault) as api:
        yield Carriers(vault, api)


def moved(order: str, status: str, identity: str, at: str) -> dict[str, Any]:
    """Return a Telnyx event with fields that nobody knows."""
    return {
        "id": identity,
        "event_type": "porting_order.status_changed",
        "occurred_at": at,
        "record_type": "event",
        "payload": {
            "id": "eef10fb8-f3df-4c67-97c5-e18179723222",
            "customer_reference": order,
            "status": {"value": status, "details": [{"code": "X"}]},
            "news": [1],
        },
    }


def soon(seconds: int) -> str:
    """Return a time after the orders of this test were opened."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + seconds))


async def test_telnyx_ports_an_order(carriers: Carriers, passport: bytes) -> None:
    """A signed event moves the order; retention starts; the record names the carrier."""
    order = await carriers.api.order()
    _, scan = await carriers.api.put(order, passport)
    assert await carriers.telnyx(moved(order, "ported", "e1", soon(0))) == (
        200,
        {"result": "taken"},
    )
    assert await carriers.status(order) == "ported"
    while await expire(carriers.vault, "uk"):
        pass
    assert (await carriers.api.get(scan["id"]))[0] == 410
    await sequence_log(carriers.vault, "uk")
    _, page, _ = await carriers.api.call(
        "GET", "/v1/access-records?region=uk&action=order.event", role="compliance"
    )
    assert {record["principal"] for record in page["data"]} == {"carrier:telnyx"}


async def test_the_same_event_many_times(carriers: Carriers) -> None:
    """A thousand deliveries of one event have its effect once."""
    order = await carriers.api.order()
    event = moved(order, "submitted", "same", soon(0))
    done = []
    for _ in range(20):
        done += await asyncio.gather(*(carriers.telnyx(event) for _ in range(50)))
    assert {status for status, _ in done} == {200}
    assert sorted(answer["result"] for _, answer in done).count("taken") == 1
    assert await carriers.status(order) == "submitted"


async def test_events_converge_in_any_order(carriers: Carriers) -> None:
    """Late and contradictory events leave two orders in the same state."""
    steps = [("submitted", 1), ("foc-date-confirmed", 2), ("ported", 3), ("exception", 4)]
    orders = [await carriers.api.order() for _ in range(2)]
    for order, sequence in zip(orders, (steps, steps[::-1]), strict=True):
        for status, at in sequence:
            await carriers.telnyx(moved(order, status, f"{order[:8]}-{at}", soon(at)))
    assert [await carriers.status(order) for order in orders] == ["exception"] * 2


@pytest.mark.parametrize("at, status", [(-400, 401), (400, 401), (-200, 200)])
async def test_a_signature_is_of_its_time(carriers: Carriers, at: int, status: int) -> None:
    """A signature of more than five minutes before or after is a replay."""
    order = await carriers.api.order()
    assert (await carriers.telnyx(moved(order, "submitted", "t", soon(0)), at=at))[0] == status


@pytest.mark.parametrize("carrier", ["telnyx", "twilio", "bandwidth"])
async def test_what_is_not_signed_is_refused(carriers: Carriers, carrier: str) -> None:
    """Without, or with another's signature, nothing is read."""
    body = json.dumps({"data": moved("x", "ported", "e", soon(0))}).encode()
    for headers in (
        {},
        {"telnyx-timestamp": str(int(time.time())), "telnyx-signature-ed25519": "AAAA"},
        {"X-Twilio-Signature": "AAAA", "Content-Type": "application/x-www-form-urlencoded"},
        {"Authorization": "Basic AAAA"},
        {"Authorization": f"Bearer {carriers.api.tokens['porting']}"},
    ):
        assert (await carriers.post(f"/v1/hooks/{carrier}", body, **headers))[0] == 401


async def test_a_carrier_that_is_not_set_up_is_refused(api: Api) -> None:
    """A vault without a carrier's key takes no webhook of it."""
    for carrier in ("telnyx", "twilio", "bandwidth"):
        async with api.session.post(f"{api.url}/v1/hooks/{carrier}", data=b"{}") as response:
            assert response.status == 401


def twilio_signature(text: str) -> str:
    """Return what Twilio puts into its header."""
    return base64.b64encode(hmac.digest(TOKEN.encode(), text.encode(), "sha1")).decode()


def twilio_json(said: dict[str, str]) -> tuple[str, bytes, dict[str, str]]:
    """Return path, body and headers of a signed JSON notification."""
    body = json.dumps(said).encode()
    path = f"/v1/hooks/twilio?bodySHA256={hashlib.sha256(body).hexdigest()}"
    signature = twilio_signature(ADDRESS + path)
    return path, body, {"X-Twilio-Signature": signature, "Content-Type": "application/json"}


async def test_twilio_by_form_and_by_json(carriers: Carriers) -> None:
    """Both ways of signing hold; the request's own id leads to the linked order."""
    order = await carriers.api.order()
    link = f"/v1/orders/{order}/actions/link"
    fields = {"carrier": "twilio", "reference": "KW1"}
    assert (await carriers.api.call("POST", link, json=fields))[0] == 200
    form = {"port_in_request_sid": "KW1", "status": "In Progress", "new": "field"}
    url = f"{ADDRESS}/v1/hooks/twilio"
    said = url + "".join(f"{name}{form[name]}" for name in sorted(form))
    status, answer = await carriers.post(
        "/v1/hooks/twilio",
        urlencode(form).encode(),
        **{
            "X-Twilio-Signature": twilio_signature(said),
            "Content-Type": "application/x-www-form-urlencoded",
        },
    )
    assert (status, answer["result"]) == (200, "taken")
    assert await carriers.status(order) == "submitted"
    path, body, headers = twilio_json({"port_in_request_sid": "KW1", "status": "PortInCompleted"})
    assert (await carriers.post(path, body, **headers))[0] == 200
    assert (await carriers.post(path, body + b" ", **headers))[0] == 401
    assert await carriers.status(order) == "ported"


@pytest.mark.parametrize("field", ["port_in_phone_number_sid", "phone_number"])
async def test_twilio_says_of_one_number_what_moves_no_order(
    carriers: Carriers, field: str
) -> None:
    """That a single number of a request is completed is answered and ignored."""
    order = await carriers.api.order()
    fields = {"carrier": "twilio", "reference": "KW1"}
    await carriers.api.call("POST", f"/v1/orders/{order}/actions/link", json=fields)
    said = {"port_in_request_sid": "KW1", "status": "completed", field: "+12025550123"}
    path, body, headers = twilio_json(said)
    status, answer = await carriers.post(path, body, **headers)
    assert (status, answer["result"]) == (200, "ignored")
    assert await carriers.status(order) == "draft"


async def of_one_number(carriers: Carriers, number: str, **more: str) -> dict[str, Any]:
    """Send Twilio's event of one number, and return the answer."""
    said = {
        "port_in_phone_number_sid": "PN1",
        "phone_number": number,
        "status": "completed",
        **more,
    }
    path, body, headers = twilio_json(said)
    status, answer = await carriers.post(path, body, **headers)
    assert status == 200
    return dict(answer)


async def open_order(carriers: Carriers, *numbers: str) -> str:
    """Open an order of these numbers."""
    fields = {"region": "uk", "customer": "acme", "numbers": list(numbers)}
    status, made, _ = await carriers.api.call("POST", "/v1/orders", json=fields)
    assert status == 201
    return str(made["id"])


async def test_an_event_of_one_number_finds_its_order_by_the_index(carriers: Carriers) -> None:
    """Twilio's events of single numbers move the open order that moves this number alone, once."""
    order = await open_order(carriers, "+442079460777")
    assert (await of_one_number(carriers, "+442079460777"))["result"] == "taken"
    assert await carriers.status(order) == "ported"
    again = await of_one_number(carriers, "+442079460777")
    assert again == {"result": "ignored", "reason": "no-order"}, "it is closed by now"


async def test_an_event_of_one_number_says_why_it_moves_nothing(carriers: Carriers) -> None:
    """No order, several, several numbers, no number: each has its code, and changes nothing."""
    assert (await of_one_number(carriers, "+442079460770"))["reason"] == "no-order"
    assert (await of_one_number(carriers, "02079460770"))["reason"] == "no-number"
    word = await of_one_number(carriers, "+442079460770", status="dreaming")
    assert word["reason"] == "unknown-status"
    several = await open_order(carriers, "+442079460771", "+442079460772")
    assert (await of_one_number(carriers, "+442079460771"))["reason"] == "several-numbers"
    twins = [await open_order(carriers, "+442079460773") for _ in range(2)]
    assert (await of_one_number(carriers, "+442079460773"))["reason"] == "several-orders"
    assert {await carriers.status(order) for order in (several, *twins)} == {"draft"}
    link = {"carrier": "twilio", "reference": "KW9"}
    await carriers.api.call("POST", f"/v1/orders/{twins[1]}/actions/link", json=link)
    said = await of_one_number(carriers, "+442079460773", port_in_request_sid="KW9")
    assert said["result"] == "taken"
    assert [await carriers.status(order) for order in twins] == ["draft", "ported"]


async def test_what_is_ignored_is_counted_and_written_down_without_numbers(
    carriers: Carriers, caplog: pytest.LogCaptureFixture
) -> None:
    """The metric and the log name carrier and reason, and nothing of whom it was about."""
    await of_one_number(carriers, "+442079460770")
    event = moved("00000000-0000-4000-8000-000000000000", "ported", "u", soon(0))
    assert (await carriers.telnyx(event))[0] == 404
    assert "a webhook of twilio was ignored: no-order" in caplog.text
    assert "a webhook of telnyx was refused: no-order" in caplog.text
    assert "460770" not in caplog.text
    async with carriers.api.session.get(carriers.api.url + "/metrics") as response:
        shown = await response.text()
    for carrier, result in (("twilio", "ignored"), ("telnyx", "refused")):
        labels = f'carrier="{carrier}",reason="no-order",result="{result}"'
        assert f"portvault_hooks_total{{{labels}}} 1.0" in shown


async def test_what_is_refused_is_counted_and_written_down_in_a_line(
    carriers: Carriers, caplog: pytest.LogCaptureFixture
) -> None:
    """A signed event without what it needs, each time; one that is not signed, once a minute."""
    path, body, headers = twilio_json({"status": "completed"})
    for _ in range(2):
        assert (await carriers.post(path, body, **headers))[0] == 422
    for _ in range(3):
        assert (await carriers.post("/v1/hooks/twilio", b"{}"))[0] == 401
    assert (await carriers.telnyx(moved("x", "ported", "e", soon(0)), at=-400))[0] == 401
    said = [line for line in caplog.messages if "webhook" in line]
    assert said.count("a webhook of twilio was refused: invalid-request") == 2
    assert said.count("a webhook of twilio was refused: unauthenticated") == 1
    assert said.count("a webhook of telnyx was refused: unauthenticated") == 1
    async with carriers.api.session.get(carriers.api.url + "/metrics") as response:
        shown = await response.text()
    labels = 'carrier="twilio",reason="unauthenticated",result="refused"'
    assert f"portvault_hooks_total{{{labels}}} 3.0" in shown


async def test_an_order_without_its_details_says_why_it_does_not_move(carriers: Carriers) -> None:
    """What tells one event from another went with the details: none is taken any more."""
    order = await carriers.api.order()
    fields = {"carrier": "twilio", "reference": "KW1"}
    await carriers.api.call("POST", f"/v1/orders/{order}/actions/link", json=fields)
    gone = "update porting_order set details = null, details_gone_at = now() where id = $1"
    for statement in (gone, "delete from data_key where id = $1"):
        await carriers.vault.pool.execute(statement, order)
    path, body, headers = twilio_json({"port_in_request_sid": "KW1", "status": "completed"})
    status, answer = await carriers.post(path, body, **headers)
    assert (status, answer) == (200, {"result": "ignored", "reason": "details-gone"})
    assert await carriers.status(order) == "draft"


async def test_a_form_has_so_many_fields(carriers: Carriers) -> None:
    """A form at the limit is read as far as its signature, and one past it is refused before."""
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    for count, status in ((FIELDS_MAX, 401), (FIELDS_MAX + 1, 422)):
        body = urlencode([("a", "b")] * count).encode()
        assert (await carriers.post("/v1/hooks/twilio", body, **headers))[0] == status


async def test_a_twilio_form_in_another_order_is_the_same_event(carriers: Carriers) -> None:
    """A recorded form, its fields moved about so that the signature still holds, moves nothing."""
    order = await carriers.api.order()
    link, fields = f"/v1/orders/{order}/actions/link", {"carrier": "twilio", "reference": "KW1"}
    assert (await carriers.api.call("POST", link, json=fields))[0] == 200
    form = [("port_in_request_sid", "KW1"), ("status", "In Progress")]
    said = f"{ADDRESS}/v1/hooks/twilio" + "".join(f"{name}{value}" for name, value in form)
    headers = {
        "X-Twilio-Signature": twilio_signature(said),
        "Content-Type": "application/x-www-form-urlencoded",
    }
    bodies = (
        urlencode(form),
        urlencode(form[::-1]),
        urlencode(form) + "&status=In%20Progress",
        urlencode([("port_in_request_sid", "KW1"), ("statusIn", " Progress")]),
    )
    answers = [await carriers.post("/v1/hooks/twilio", body.encode(), **headers) for body in bodies]
    assert [answer.get("result") for _, answer in answers] == ["taken", "known", "known", "ignored"]
    # What is linked to one carrier hears another only once it is linked to that, too.
    link_too = {"carrier": "telnyx", "reference": "KW2"}
    assert (await carriers.api.call("POST", link, json=link_too))[0] == 200
    assert (await carriers.telnyx(moved(order, "exception", "later", soon(1))))[0] == 200
    assert (await carriers.post("/v1/hooks/twilio", bodies[1].encode(), **headers))[0] == 200
    assert await carriers.status(order) == "exception"


async def test_a_reference_that_is_no_text_is_none(carriers: Carriers) -> None:
    """A signed event whose customer reference is a number leads to no order, and to no fault."""
    event = moved("x", "ported", "n", soon(0))
    event["payload"]["customer_reference"] = 5
    assert (await carriers.telnyx(event))[0] == 404


async def test_bandwidth_by_basic_authentication(carriers: Carriers) -> None:
    """An order notification moves the order that was given as the customer's order id."""
    order = await carriers.api.order()
    headers = {"Authorization": "Basic " + base64.b64encode(CREDENTIALS.encode()).decode()}
    body = (
        "<?xml version='1.0'?><Notification><Status>EXCEPTION</Status><OrderId>b-1</OrderId>"
        f"<OrderType>portins</OrderType><CustomerOrderId>{order}</CustomerOrderId>"
        "<Message>something</Message></Notification>"
    )
    status, answer = await carriers.post("/v1/hooks/bandwidth", body.encode(), **headers)
    assert (status, answer["result"]) == (200, "taken")
    assert await carriers.status(order) == "exception"
    other = body.replace("portins", "disconnects").encode()
    _, answer = await carriers.post("/v1/hooks/bandwidth", other, **headers)
    assert answer == {"result": "ignored", "reason": "other-order"}


async def test_unknown_orders_and_other_events(carriers: Carriers) -> None:
    """An order that is not here is not found; a comment is ignored; the future is refused."""
    unknown = moved("00000000-0000-4000-8000-000000000000", "ported", "u", soon(0))
    assert (await carriers.telnyx(unknown))[0] == 404
    comment = {**unknown, "event_type": "porting_order.new_comment"}
    assert (await carriers.telnyx(comment))[1] == {"result": "ignored", "reason": "other-event"}
    order = await carriers.api.order()
    assert (await carriers.telnyx(moved(order, "ported", "f", "2999-01-01T00:00:00Z")))[0] == 422
    assert (await carriers.post("/v1/hooks/telnyx", bytes(300_000)))[0] == 413


@pytest.mark.parametrize(
    "at, status",
    [("2026-01-01T00:00:00", 422), ("2999-01-01T00:00:00Z", 422), ("soon", 422)],
)
async def test_a_desk_says_since_when(carriers: Carriers, at: str, status: int) -> None:
    """Naive, far-future and malformed times are refused; an illegal step names the legal ones."""
    order = await carriers.api.order()
    path = f"/v1/orders/{order}"
    fields = {"status": "submitted", "effective_at": at}
    assert (await carriers.api.call("PATCH", path, json=fields))[0] == status
    _, problem, _ = await carriers.api.call("PATCH", path, json={"status": "cancel-pending"})
    assert "it can become cancelled, exception" in problem["detail"]
    later = {"status": "ported", "effective_at": soon(5)}
    status, shown, _ = await carriers.api.call("PATCH", path, json=later)
    assert (status, shown["ended_at"]) == (200, later["effective_at"])
    earlier = {"status": "exception", "effective_at": soon(3)}
    assert (await carriers.api.call("PATCH", path, json=earlier))[0] == 409
