"""
Faxes: their states, how a failed delivery is tried again, and the receipt that stays.

The words are those of fax gateways. A fax that has come to an end, whichever, is shredded in the
same transaction; what stays is the receipt: times, pages, masked numbers, result, T.30 facts.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from uuid import UUID

import phonenumbers

from vault.domain.certificates import trade_words
from vault.domain.documents import PDF, TIFF, Custody
from vault.domain.regions import REGIONS
from vault.domain.text import E164
from vault.errors import ConflictError, InvalidRequestError

MEDIA_TYPES = frozenset({TIFF, PDF})
#: Stands for the numbers of a fax that a restore brought back: only its row had them.
UNKNOWN_NUMBER = "?"


class Direction(StrEnum):
    """`inbound` comes from the telephone network, `outbound` goes there."""

    INBOUND = "inbound"
    OUTBOUND = "outbound"


class Channel(StrEnum):
    """Who delivers: a gateway that fetches, or the vault's own relay by mail."""

    GATEWAY = "gateway"
    MAIL = "mail"


class State(StrEnum):
    """`received` and `queued` wait, `delivering` is tried; the others are final, and shredded."""

    RECEIVED = "received"
    QUEUED = "queued"
    DELIVERING = "delivering"
    DELIVERED = "delivered"
    FAILED = "failed"
    EXPIRED = "expired"


FINAL = frozenset({State.DELIVERED, State.FAILED, State.EXPIRED})
OPEN = frozenset(State) - FINAL
#: What an answer says of a fax whose pages are gone, by how it ended.
GONE = {
    State.DELIVERED: "the fax was delivered, and its pages were shredded with that",
    State.FAILED: "the fax was refused for good, and its pages were shredded with that",
    State.EXPIRED: "the fax was not delivered in its time, and its pages were shredded",
}

TRANSITIONS: dict[State, frozenset[State]] = {
    State.RECEIVED: FINAL | {State.QUEUED, State.DELIVERING},
    State.QUEUED: FINAL | {State.QUEUED, State.DELIVERING},
    State.DELIVERING: FINAL | {State.QUEUED, State.DELIVERING},
    **{state: frozenset[State]() for state in sorted(FINAL)},
}


@dataclass(frozen=True, slots=True)
class Numbers:
    """Who sends and who gets it, E.164; `caller` is None where it is unknown or withheld."""

    caller: str | None
    callee: str


@dataclass(frozen=True, slots=True)
class Fax:
    """One fax as its row says; without `metadata`, which dies with the key, it is the receipt."""

    id: UUID
    region: str
    direction: Direction
    channel: Channel
    state: State
    custody: Custody
    media_type: str
    size_bytes: int
    pages: int
    stream_header: bytes
    metadata: bytes | None
    caller_masked: str | None
    callee_masked: str
    facts: Mapping[str, str]
    attempts: int
    next_attempt_at: datetime
    result: str | None
    received_at: datetime
    ended_at: datetime | None
    last_generation: int | None
    purged_at: datetime | None
    sealed_at: datetime | None
    #: When a restore brought it back without its row, and what of it is not known since.
    recovered_at: datetime | None = None
    not_known: list[str] | None = None
    #: When a restore left it behind, whose seal, or one before it, destroyed what its key hung on.
    left_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Checked:
    """What the sandbox found a fax to be; `seconds` on the line, where the file says it."""

    pages: int
    seconds: int | None


@dataclass(frozen=True, slots=True)
class Mail:
    """What the sandbox found in a mail: its Message-ID, where it has one, and its faxes."""

    message_id: str | None
    faxes: tuple[bytes, ...] = field(repr=False)


def check_transition(old: State, new: State) -> bool:
    """Return whether something changes; raises `ConflictError` where it may not."""
    if new in TRANSITIONS[old]:
        return True
    if old is new:
        return False
    raise ConflictError(f"the fax is {old}; that is final, and its content is shredded")


def next_attempt_at(
    now: datetime, attempts: int, *, first_seconds: float, last_seconds: float
) -> datetime:
    """Return when a delivery that failed `attempts` times is tried again: twice as late each."""
    # Beyond this exponent any wait is longer than the longest.
    doubled = first_seconds * 2.0 ** min(max(attempts - 1, 0), 32)
    return now + timedelta(seconds=min(doubled, last_seconds))


def encode_numbers(numbers: Numbers) -> bytes:
    """Return the bytes that are encrypted under the fax's own key."""
    return json.dumps({"from": numbers.caller, "to": numbers.callee}).encode()


def decode_numbers(data: bytes) -> Numbers:
    """Return what `encode_numbers` was given."""
    fields = json.loads(data)
    return Numbers(fields["from"], fields["to"])


# ---- Telephone numbers of faxes: checked, masked by the region's rule, and the region they stand
# for.
#
# What a gateway calls a caller is remote text and may be anything. Only E.164 passes; what says
# that the caller wants to stay unknown is not kept at all, not even under a key.

_SEPARATORS = re.compile(r"[ ().\-]+", re.ASCII)
_DIGITS = re.compile(r"[0-9]{4,}", re.ASCII)
#: What networks and gateways send where the caller withholds the number (P and O: Telcordia
#: GR-31), compared in lower case.
ANONYMOUS = frozenset(
    {"anonymous", "private", "withheld", "restricted", "unavailable", "unknown", "p", "o"}
)
#: How many last digits each region's privacy rules want masked in what outlives the call.
MASKED_DIGITS = dict.fromkeys(REGIONS, 3)

#: The countries of North America's numbers that are the United States' or their territories'.
_AMERICAN = frozenset({"US", "AS", "GU", "MP", "PR", "VI"})
#: Country codes that one region has alone.
_PREFIXES = {"+64": "nz", "+61": "au", "+65": "sg", "+852": "hk", "+44": "uk"}

FACT_LENGTH_MAX = 120
_FACTS = {
    "commid": re.compile(r"[A-Za-z0-9]{1,32}", re.ASCII),
    "device": re.compile(r"[A-Za-z0-9._:-]{1,32}", re.ASCII),
    "rate": re.compile(r"[0-9]{1,6}", re.ASCII),
    "seconds": re.compile(r"[0-9]{1,6}", re.ASCII),
    "station": re.compile(rf"[ -~]{{1,{FACT_LENGTH_MAX}}}", re.ASCII),
    "message": re.compile(rf"[ -~]{{1,{FACT_LENGTH_MAX}}}", re.ASCII),
}
#: Facts that are ids of the gateway's: a word without a digit is none.
_IDS = frozenset({"commid", "device"})
_DIGIT = re.compile(r"[0-9]", re.ASCII)
#: A station that is a number; others are names.
_STATION = re.compile(r"[0-9+().\- ]+", re.ASCII)
#: What a gateway may tell of a call (T.30), and nothing else.
FACTS = tuple(_FACTS)


def check_number(text: str, name: str) -> str:
    """Return an E.164 number, or raise `InvalidRequestError`, which does not repeat it."""
    if not E164.fullmatch(text):
        raise InvalidRequestError(f"{name} must be an E.164 telephone number, as +442079460123")
    return text


def check_caller(text: str | None) -> str | None:
    """Return the caller's number, None where it is missing or withheld; raises as above."""
    if not text or text.strip().lower() in ANONYMOUS:
        return None
    return check_number(text, "from")


def read_number(text: str) -> str | None:
    """Return the number that remote text stands for, with its usual separators; else None."""
    plain = _SEPARATORS.sub("", text)
    return plain if E164.fullmatch(plain) else None


def mask(number: str, region: str) -> str:
    """Return a number as the region's rule lets it be recorded."""
    hidden = MASKED_DIGITS[region]
    return number[:-hidden] + "*" * hidden


def region_of(number: str) -> str | None:
    """
    Return the region that a number's country code stands for; None for all other countries.

    North America shares one code, of which only the area codes of other countries are told apart:
    one that the library does not know yet is ours.
    """
    for prefix, region in _PREFIXES.items():
        if number.startswith(prefix):
            return region
    return _american(number[:5]) if number.startswith("+1") else None


def region_by_code(number: str) -> str | None:
    """Return the region that answers for a country code: for North America's the United States."""
    return region_of(number) or ("us" if number.startswith("+1") else None)


@lru_cache(maxsize=1000)
def _american(area: str) -> str | None:
    try:
        parsed = phonenumbers.parse(f"{area}5550123", None)
    except phonenumbers.NumberParseException:
        return None
    country = phonenumbers.region_code_for_number(parsed)
    return "us" if country is None or country in _AMERICAN else None


def check_facts(given: Mapping[str, str]) -> dict[str, str]:
    """
    Return the facts of a call as they may stay in the receipt, which outlives the fax.

    Runs of digits are masked. A station that is no number is left out, since people name stations
    after themselves, and so is the id of a call or a device without a digit; of a message stay the
    words of the trade.
    """
    facts = {}
    for name, value in given.items():
        if name not in _FACTS:
            raise InvalidRequestError(f"there is no fact {name!r}; known: {', '.join(FACTS)}")
        if not _FACTS[name].fullmatch(value):
            raise InvalidRequestError(f"{name} is not what a gateway says of a call")
        if (kept := _kept(name, value)) is not None:
            facts[name] = kept
    return facts


def _kept(name: str, value: str) -> str | None:
    """Return what of a fact stays; of a station or a device that is a mere name, nothing does."""
    if name in _IDS and not _DIGIT.search(value):
        return None
    if name == "station":
        return _mask_digits(value) if _STATION.fullmatch(value) else None
    return trade_words(_mask_digits(value)) if name == "message" else value


def clean_facts(given: Mapping[str, str]) -> dict[str, str]:
    """Return those of a gateway's facts that pass, made printable; what does not is left out."""
    cleaned = {}
    for name, value in given.items():
        text = "".join(c if " " <= c <= "~" else " " for c in value).strip()[:FACT_LENGTH_MAX]
        if _FACTS[name].fullmatch(text):
            cleaned[name] = text
    return cleaned


def _mask_digits(text: str) -> str:
    """Mask what may be a telephone number in free text: of four digits and more the last three."""
    joined = re.sub(r"(?<=[0-9])[ ().\-]+(?=[0-9])", "", text)
    return _DIGITS.sub(lambda found: found[0][:-3] + "***", joined)


# ---- The addresses of faxes in mail: `number@fax.domain`, and RFC 3192's
# `FAX=+number@fax.domain`.
#
# A sub-address (`/T33S=…`) names one of several recipients behind a number; a gateway that cannot
# dial it would give the fax to another one, so it is refused.

_GLOBAL = re.compile(r"\+?[0-9][0-9.\-]{5,30}", re.ASCII)


def parse_address(address: str, domains: frozenset[str]) -> str | None:
    """Return the E.164 number of a fax address; None for any other address."""
    local, found, domain = address.rpartition("@")
    if not found or domain.lower().rstrip(".") not in domains:
        return None
    local = local.strip('"')
    if local[:4].upper() == "FAX=":
        local = local[4:]
        # RFC 3192 knows numbers without a plus sign only as local ones, which say nothing here.
        if not local.startswith("+"):
            return None
    if not _GLOBAL.fullmatch(local):
        return None
    return read_number(local if local.startswith("+") else "+" + local)
