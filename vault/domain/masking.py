"""Telephone numbers in free text: found, and masked in their last three digits."""

import re

from phonenumbers import Leniency, PhoneNumberMatcher

from vault.domain.regions import REGIONS

#: Fewer digits than any number has that a person could be reached at.
DIGITS_MIN = 9
_MASKED = 3
_COUNTRIES = tuple({"uk": "GB"}.get(region, region.upper()) for region in REGIONS)
# Ids of our own hold digits, too, and are none.
_ID = re.compile(r"(\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b)")


def mask_numbers(text: str) -> str:
    """
    Return a text in which every telephone number has lost its last three digits.

    A number is what libphonenumber calls valid in one of the regions, or with a country code of its
    own. What is too short to be one is left alone, and so are digits within a word or an id.
    """
    pieces = _ID.split(text)
    return "".join(piece if n % 2 else _mask(piece) for n, piece in enumerate(pieces))


def _mask(text: str) -> str:
    if sum(mark.isdigit() for mark in text) < DIGITS_MIN:
        return text
    marks = list(text)
    for country in _COUNTRIES:
        for match in PhoneNumberMatcher(text, country, Leniency.VALID):
            digits = [n for n in range(match.start, match.end) if text[n].isdigit()]
            if len(digits) >= DIGITS_MIN:
                for place in digits[-_MASKED:]:
                    marks[place] = "*"
    return "".join(marks)
