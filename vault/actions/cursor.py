"""Cursors: where the next page of a list that is sorted by time and id begins."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import datetime
from uuid import UUID

from vault.domain.text import parse_time
from vault.errors import InvalidRequestError


def encode_cursor(at: datetime, identity: UUID) -> str:
    """Return the cursor after the last row of a page."""
    return urlsafe_b64encode(f"{at.isoformat()}|{identity}".encode()).decode()


def decode_cursor(text: str) -> tuple[datetime, UUID]:
    """Return what `encode_cursor` was given; raises `InvalidRequestError`."""
    refusal = InvalidRequestError("cursor is not one that was handed out")
    try:
        at, _, identity = urlsafe_b64decode(text).decode().partition("|")
        moment, found = parse_time(at), UUID(identity)
    except ValueError:
        raise refusal from None
    if moment.tzinfo is None:
        raise refusal
    return moment, found
