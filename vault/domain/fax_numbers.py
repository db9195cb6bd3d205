"""
Telephone numbers of faxes: checked, masked by the region's rule, and the region they stand for.

What a gateway calls a caller is remote text and may be anything. Only E.164 passes; what says that
the caller wants to stay unknown is not kept at all, not even under a key.
"""

import re
from collections.abc import Mapping
from functools import lru_cache

import phonenumbers

from vault.domain.kept_words import trade_words
from vault.domain.regions import REGIONS
from vault.errors import InvalidRequestError

_E164 = re.compile(r"\+[1-9][0-9]{6,14}", re.ASCII)
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
    if not _E164.fullmatch(text):
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
    return plain if _E164.fullmatch(plain) else None


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
