"""Every event that a carrier's documentation names moves an order, or says why it does not."""

import json
from typing import Any
from urllib.parse import parse_qsl, urlencode

import pytest

from vault.domain.carriers import (
    CarrierEvent,
    Ignored,
    Reason,
    read_bandwidth,
    read_telnyx,
    read_twilio,
)
from vault.domain.orders import Status

SID, NUMBER_SID, NUMBER = "KW" + "0" * 32, "PU" + "0" * 32, "+12025550123"


def outcome(event: CarrierEvent | Ignored) -> Status | Reason:
    """Return the status that an event says, or why it says none."""
    return event.reason if isinstance(event, Ignored) else event.status


#: Of "Porting webhooks": the events of a request, and those of one number of it.
TWILIO = {
    "PortInWaitingForSignature": Status.IN_PROCESS,
    "PortInInReview": Status.IN_PROCESS,
    "PortInInProgress": Status.SUBMITTED,
    "PortInCompleted": Status.PORTED,
    "PortInActionRequired": Status.EXCEPTION,
    "PortInCanceled": Status.CANCELLED,
    "PortInExpired": Status.CANCELLED,
}
TWILIO_OF_A_NUMBER = {
    "PortInPhoneNumberWaitingForSignature": Status.IN_PROCESS,
    "PortInPhoneNumberSubmitted": Status.SUBMITTED,
    "PortInPhoneNumberPending": Status.FOC_DATE_CONFIRMED,
    "PortInPhoneNumberCompleted": Status.PORTED,
    "PortInPhoneNumberRejected": Status.EXCEPTION,
    "PortInPhoneNumberCanceled": Status.CANCELLED,
}


def twilio(status: str, **more: str | None) -> CarrierEvent | Ignored:
    """Read a notification of Twilio, by JSON and by form."""
    said = {
        "port_in_request_sid": SID,
        "status": status,
        "last_date_updated": "2026-03-01T12:00:00Z",
        **more,
    }
    found = read_twilio(json.dumps(said).encode(), (), "signed")
    form = parse_qsl(urlencode({name: value or "" for name, value in said.items()}))
    assert read_twilio(b"", form, "signed") == found
    return found


def spellings(event: str) -> tuple[str, ...]:
    """Return how the status of an event is written: by its name, and in words."""
    words = event.removeprefix("PortIn").removeprefix("PhoneNumber")
    spaced = "".join(f" {letter}" if letter.isupper() else letter for letter in words).strip()
    return event, spaced, spaced.lower().replace(" ", "_")


@pytest.mark.parametrize("name", TWILIO)
def test_twilio_of_a_request(name: str) -> None:
    """Every event of a port-in request is known by each of its spellings."""
    for status in spellings(name):
        assert outcome(twilio(status, phone_number=None)) is TWILIO[name], status


@pytest.mark.parametrize("name", TWILIO_OF_A_NUMBER)
def test_twilio_of_a_number(name: str) -> None:
    """So is every event of a single number, which leads to the order of the number."""
    more = {
        "port_in_phone_number_sid": NUMBER_SID,
        "phone_number": NUMBER,
        "portable": "true",
        "not_portable_reason_code": None,
        "rejection_reason": None,
    }
    for status in spellings(name):
        event = twilio(status, **more)
        assert isinstance(event, CarrierEvent), status
        assert (event.status, event.number) == (TWILIO_OF_A_NUMBER[name], NUMBER)
        assert event.reference == SID


def test_twilio_of_something_else() -> None:
    """A number that leaves is no port-in that is completed; a new word is said to be unknown."""
    assert outcome(twilio("PortOutPhoneNumberCompleted", phone_number=NUMBER)) is Reason.OTHER_ORDER
    leaving = twilio("completed", port_out_phone_number_sid="PO1", phone_number=NUMBER)
    assert outcome(leaving) is Reason.OTHER_ORDER
    assert outcome(twilio("Dreaming")) is Reason.UNKNOWN_STATUS
    assert outcome(twilio("")) is Reason.OTHER_EVENT
    assert outcome(twilio("completed", phone_number="02079460123")) is Reason.NO_NUMBER


def telnyx(event_type: str, payload: dict[str, Any], *, bare: bool = False) -> Status | Reason:
    """Read an event of Telnyx, in its envelope or as its older examples have it, bare."""
    event = {
        "event_type": event_type,
        "id": "8179f546-d479-42be-822b-8c78e1e89a59",
        "occurred_at": "2026-03-01T12:00:00.804886Z",
        "payload": payload,
        "record_type": "event",
    }
    meta = {"attempt": 1, "delivered_to": "https://vault.example/v1/hooks/telnyx"}
    return outcome(
        read_telnyx(json.dumps(event if bare else {"data": event, "meta": meta}).encode())
    )


@pytest.mark.parametrize("status", Status)
def test_telnyx_of_a_status(status: Status) -> None:
    """The words of our axis are those of Telnyx; details stand beside them."""
    payload = {
        "customer_reference": "1-alpha-2-bravo",
        "id": "f6e10519-4664-4119-bb03-bbe73cf26ed3",
        "status": {"details": [{"code": "LOA_ILLEGIBLE", "description": "…"}], "value": status},
        "support_key": "sr_ac8c24",
        "updated_at": "2026-03-01T12:00:00+00:00",
        "webhook_url": "https://vault.example/v1/hooks/telnyx",
    }
    assert telnyx("porting_order.status_changed", payload) is status


@pytest.mark.parametrize("bare", [False, True])
@pytest.mark.parametrize(
    "event_type",
    [
        "porting_order.deleted",
        "porting_order.loa_updated",
        "porting_order.messaging_changed",
        "porting_order.sharing_token_expired",
        "porting_order.new_comment",
        "porting_order.split",
        "portout.status_changed",
    ],
)
def test_telnyx_of_something_else(event_type: str, bare: bool) -> None:
    """Comments, splits and the rest move no order, and say so."""
    assert telnyx(event_type, {"id": "x", "status": "ported"}, bare=bare) is Reason.OTHER_EVENT


#: Of "Order Webhook": the states of each type of order of which it tells.
BANDWIDTH = {
    "PENDING_DOCUMENTS": Status.IN_PROCESS,
    "SUBMITTED": Status.SUBMITTED,
    "FOC": Status.FOC_DATE_CONFIRMED,
    "REQUESTED_SUPP": Status.IN_PROCESS,
    "COMPLETE": Status.PORTED,
    "CANCELLED": Status.CANCELLED,
    "EXCEPTION": Status.EXCEPTION,
    "REQUESTED_CANCEL": Status.CANCEL_PENDING,
}
BANDWIDTH_OTHERS = (
    *("orders", "portouts", "disconnects", "dldas", "lsrorders", "e911s", "tnoptions"),
    *("externalTns", "lidb", "bulkPortins", "importtnorders", "removeImportedTnOrders", "csrs"),
    *("emergencyNotificationGroup", "emergencyEndpointGroup"),
)


def bandwidth(kind: str, told: str) -> Status | Reason:
    """Read a notification of Bandwidth."""
    text = f"""<?xml version="1.0" encoding="UTF-8" standalone="yes"?>
<Notification>
    <SubscriptionId>991a60d7-a612-48a5-a86e-326b51997cac</SubscriptionId>
    <OrderType>{kind}</OrderType>
    <OrderId>ee456cfb-d237-4adc-b3f8-9db03d2e62a2</OrderId>
    {told}
    <CompletedTelephoneNumbers>
        <TelephoneNumber>2025550123</TelephoneNumber>
    </CompletedTelephoneNumbers>
</Notification>"""
    return outcome(read_bandwidth(text.encode()))


@pytest.mark.parametrize("word", BANDWIDTH)
def test_bandwidth(word: str) -> None:
    """Every state of a port-in is known, and of no other kind of order."""
    told = f"<Status>{word}</Status>\n<Message>…</Message>"
    assert bandwidth("portins", told) is BANDWIDTH[word]
    for kind in BANDWIDTH_OTHERS:
        assert bandwidth(kind, told) is Reason.OTHER_ORDER, kind


def test_bandwidth_of_something_else() -> None:
    """A note that was added says no status; a new word is said to be unknown."""
    assert bandwidth("portins", "<Note>called them</Note>") is Reason.OTHER_EVENT
    assert bandwidth("portins", "<Status>DREAMING</Status>") is Reason.UNKNOWN_STATUS
    lost = b"<Notification><EventType>MESSAGING_LOST</EventType></Notification>"
    assert outcome(read_bandwidth(lost)) is Reason.OTHER_EVENT
