"""
Carriers' webhooks: their signatures and their own words, as their public documentation gives them.

Pure. What is not of a porting order's status is `Ignored`, with a reason as a code; fields that are
not known say nothing. Decision 59 says which parts could not be confirmed.
"""

import base64
import binascii
import hashlib
import hmac
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from vault.domain.orders import Status
from vault.domain.text import E164, parse_time
from vault.errors import InvalidRequestError, UnauthenticatedError, UnreadableError

TELNYX, TWILIO, BANDWIDTH = "telnyx", "twilio", "bandwidth"
CARRIERS = (TELNYX, TWILIO, BANDWIDTH)
#: A Telnyx signature older than this, or so far ahead, is a replay.
TOLERANCE_SECONDS = 300
REFERENCE = re.compile(r"[A-Za-z0-9._-]{1,128}")
_ELEMENT = re.compile(r"<(Status|OrderId|OrderType|CustomerOrderId|LastModified)>([^<]*)</\1>")

_TWILIO = {
    "inreview": Status.IN_PROCESS,
    "waitingforsignature": Status.IN_PROCESS,
    "inprogress": Status.SUBMITTED,
    "submitted": Status.SUBMITTED,
    "pending": Status.FOC_DATE_CONFIRMED,
    "actionrequired": Status.EXCEPTION,
    "rejected": Status.EXCEPTION,
    "completed": Status.PORTED,
    "canceled": Status.CANCELLED,
    "expired": Status.CANCELLED,
}
#: What only notifications of single numbers have.
_TWILIO_OF_A_NUMBER = ("port_in_phone_number_sid", "phone_number_sid", "phone_number")
_BANDWIDTH = {
    "PENDING_DOCUMENTS": Status.IN_PROCESS,
    "SUBMITTED": Status.SUBMITTED,
    "FOC": Status.FOC_DATE_CONFIRMED,
    "REQUESTED_SUPP": Status.IN_PROCESS,
    "EXCEPTION": Status.EXCEPTION,
    "COMPLETE": Status.PORTED,
    "REQUESTED_CANCEL": Status.CANCEL_PENDING,
    "CANCELLED": Status.CANCELLED,
}


@dataclass(frozen=True, slots=True)
class CarrierEvent:
    """A status that a carrier reports; `occurred_at` is None where it does not say when."""

    carrier: str
    #: The carrier's id of the event; where it gives none, all that it said, which tells it apart.
    event: str | bytes
    reference: str
    customer_reference: str | None
    status: Status
    occurred_at: datetime | None
    #: Of an event of one number of a request, E.164: the order is found by it.
    number: str | None = field(default=None, repr=False)


class Reason(StrEnum):
    """Why an event that was signed changes nothing."""

    #: It tells of something else than a status, as a comment.
    OTHER_EVENT = "other-event"
    #: It is of another kind of order than a port-in, as a port-out.
    OTHER_ORDER = "other-order"
    #: The carrier's word for the status is not known here.
    UNKNOWN_STATUS = "unknown-status"
    #: It is of one number, and does not say which.
    NO_NUMBER = "no-number"
    #: No order is linked to the carrier's id, or moves the number.
    NO_ORDER = "no-order"
    #: More than one open order moves the number, and none of them is linked to the carrier's id.
    SEVERAL_ORDERS = "several-orders"
    #: The order moves other numbers, too, of which this event says nothing.
    SEVERAL_NUMBERS = "several-numbers"
    #: The order's details are gone: whether this was said before cannot be told any more.
    DETAILS_GONE = "details-gone"


@dataclass(frozen=True, slots=True)
class Ignored:
    """An event that was signed and changes nothing."""

    reason: Reason


def check_telnyx(headers: Mapping[str, str], body: bytes, public_key: str, now: datetime) -> None:
    """Raise unless Ed25519 over `timestamp|body` holds, and the timestamp is of now."""
    timestamp = headers.get("telnyx-timestamp", "")
    if not timestamp.isascii() or not timestamp.isdigit() or len(timestamp) > 12:
        raise UnauthenticatedError("the webhook is not signed")
    if abs(now.timestamp() - int(timestamp)) > TOLERANCE_SECONDS:
        raise UnauthenticatedError("the webhook's signature is of another time")
    try:
        key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public_key, validate=True))
        signature = base64.b64decode(headers.get("telnyx-signature-ed25519", ""), validate=True)
        key.verify(signature, timestamp.encode() + b"|" + body)
    except (ValueError, binascii.Error, InvalidSignature):
        raise UnauthenticatedError("the webhook's signature does not hold") from None


def check_twilio(
    headers: Mapping[str, str],
    body: bytes,
    form: Sequence[tuple[str, str]],
    url: str,
    query: Mapping[str, str],
    token: str,
) -> str:
    """
    Return what X-Twilio-Signature (HMAC-SHA1 of the URL and the form's fields) signs.

    Raises unless it holds. The same fields in another order, or escaped otherwise, sign alike.

    A JSON body is named by its SHA-256 in the query, `bodySHA256`, which the URL then contains.
    """
    signed = url
    if "json" in headers.get("Content-Type", ""):
        digest = hashlib.sha256(body).hexdigest()
        if not hmac.compare_digest(query.get("bodySHA256", "").lower(), digest):
            raise UnauthenticatedError("the webhook's body is not the one that is signed")
    else:
        signed += "".join(f"{name}{value}" for name, value in sorted(set(form)))
    made = hmac.new(token.encode(), signed.encode(), hashlib.sha1).digest()
    sent = headers.get("X-Twilio-Signature", "").encode(errors="surrogatepass")
    if not hmac.compare_digest(base64.b64encode(made), sent):
        raise UnauthenticatedError("the webhook's signature does not hold")
    return signed


def check_bandwidth(headers: Mapping[str, str], credentials: str) -> None:
    """Raise unless the credentials (`USER:PASSWORD`) came by basic authentication."""
    made = b"Basic " + base64.b64encode(credentials.encode())
    sent = headers.get("Authorization", "").encode(errors="surrogatepass")
    if not hmac.compare_digest(sent, made):
        raise UnauthenticatedError("the webhook's credentials are not those that were agreed")


def read_telnyx(body: bytes) -> CarrierEvent | Ignored:
    """Return what `porting_order.status_changed` says."""
    data = _object(_json(body).get("data"))
    if data.get("event_type") != "porting_order.status_changed":
        return Ignored(Reason.OTHER_EVENT)
    payload = _object(data.get("payload"))
    value = _object(payload.get("status")).get("value")
    if value not in list(Status):
        return Ignored(Reason.UNKNOWN_STATUS)
    return CarrierEvent(
        TELNYX,
        _text(data, "id"),
        _text(payload, "id"),
        reference if isinstance(reference := payload.get("customer_reference"), str) else None,
        Status(value),
        _time(data.get("occurred_at")),
    )


def read_twilio(
    body: bytes, form: Sequence[tuple[str, str]], signed: str
) -> CarrierEvent | Ignored:
    """
    Return what a notification of a port-in request, or of one number of it, says.

    `signed` is what `check_twilio` returned.
    """
    fields: dict[str, Any] = dict(form) or _json(body)
    word = re.sub(r"[^a-z]", "", str(fields.get("status") or "").lower())
    if word.startswith("portout") or any(name.startswith("port_out") for name in fields):
        return Ignored(Reason.OTHER_ORDER)
    number = None
    if any(fields.get(name) for name in _TWILIO_OF_A_NUMBER):
        number = str(fields.get("phone_number", ""))
        if not E164.fullmatch(number):
            return Ignored(Reason.NO_NUMBER)
    if not word:
        return Ignored(Reason.OTHER_EVENT)
    word = word.removeprefix("portin")
    word = word.removeprefix("phonenumber") if number else word
    if word not in _TWILIO:
        return Ignored(Reason.UNKNOWN_STATUS)
    # Twilio's notifications have no id: what is signed alike is the same event.
    return CarrierEvent(
        TWILIO,
        signed.encode(),
        # One of a number may go without it.
        ""
        if number and not fields.get("port_in_request_sid")
        else _text(fields, "port_in_request_sid"),
        None,
        _TWILIO[word],
        _time(fields.get("last_date_updated")),
        number,
    )


def read_bandwidth(body: bytes) -> CarrierEvent | Ignored:
    """Return what an order notification of `portins` says; its XML is looked at, never parsed."""
    found = _ELEMENT.findall(body.decode("utf-8", "replace"))
    fields = {name: value.strip() for name, value in found}
    if fields.get("OrderType") != "portins":
        return Ignored(Reason.OTHER_ORDER if fields.get("OrderType") else Reason.OTHER_EVENT)
    if not fields.get("Status"):
        # A note was added to the order.
        return Ignored(Reason.OTHER_EVENT)
    if fields["Status"] not in _BANDWIDTH:
        return Ignored(Reason.UNKNOWN_STATUS)
    return CarrierEvent(
        BANDWIDTH,
        body,
        _text(fields, "OrderId"),
        fields.get("CustomerOrderId"),
        _BANDWIDTH[fields["Status"]],
        _time(fields.get("LastModified")),
    )


def _json(body: bytes) -> dict[str, Any]:
    try:
        return _object(json.loads(body))
    except (ValueError, RecursionError):
        raise UnreadableError("the body must be JSON, and not nested deeply") from None


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not REFERENCE.fullmatch(value):
        raise InvalidRequestError(f"{name} is missing, or no id")
    return value


def _time(value: Any) -> datetime | None:
    """Return when an event was, None where that is no time; raises for one of another age."""
    try:
        datetime.fromisoformat(value)
    except (ValueError, TypeError):
        return None
    try:
        at = parse_time(value)
    except ValueError as error:
        raise InvalidRequestError(str(error)) from None
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at
