"""
Documents: their kinds, what file types each kind may be, and their custody.

Custody is the vault's own axis and never mixed with the carrier's status.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID


class Kind(StrEnum):
    """What a document proves."""

    PASSPORT = "passport"
    NATIONAL_ID = "national_id"
    DRIVERS_LICENCE = "drivers_licence"
    WORK_PERMIT = "work_permit"
    PROOF_OF_ADDRESS = "proof_of_address"
    BUSINESS_REGISTRATION = "business_registration"
    LOA = "loa"
    INVOICE = "invoice"
    CSR = "csr"
    OTHER = "other"


# What carriers and forms call the same things, compared in lower case.
ALIASES = {
    "cloa": Kind.LOA,
    "ca": Kind.LOA,
    "e-loa": Kind.LOA,
    "letter_of_authorization": Kind.LOA,
    "cob": Kind.INVOICE,
    "utility_bill": Kind.PROOF_OF_ADDRESS,
}

JPEG, PNG, TIFF = "image/jpeg", "image/png", "image/tiff"
PDF, HEIC = "application/pdf", "image/heic"
_SCANS = frozenset({JPEG, PNG, TIFF, PDF, HEIC})
_PAPERS = frozenset({JPEG, PNG, TIFF, PDF})

MEDIA_TYPES: dict[Kind, frozenset[str]] = {
    Kind.PASSPORT: _SCANS,
    Kind.NATIONAL_ID: _SCANS,
    Kind.DRIVERS_LICENCE: _SCANS,
    Kind.WORK_PERMIT: _SCANS,
    Kind.PROOF_OF_ADDRESS: _SCANS,
    Kind.BUSINESS_REGISTRATION: _PAPERS,
    Kind.LOA: _PAPERS,
    Kind.INVOICE: _PAPERS,
    Kind.CSR: _PAPERS,
    Kind.OTHER: _SCANS,
}


class Custody(StrEnum):
    """`shredded` is beyond use: its key is gone from the tree. `sealed` is irrecoverable."""

    RECEIVING = "receiving"
    STORED = "stored"
    SHREDDED = "shredded"
    SEALED = "sealed"


@dataclass(frozen=True, slots=True)
class Document:
    """One document as its row says; `metadata` is sealed under the document's own key."""

    id: UUID
    region: str
    order_id: UUID
    kind: Kind
    custody: Custody
    media_type: str | None
    size_bytes: int | None
    stream_header: bytes | None
    metadata: bytes | None
    received_at: datetime
    stored_at: datetime | None
    shredded_at: datetime | None
    shred_reason: str | None
    shredded_by: str | None
    last_generation: int | None
    purged_at: datetime | None
    purged_versions: int | None
    sealed_at: datetime | None
    #: On what ground it was shredded, and the row of the policy that stood then.
    shred_ground: str | None
    retention_row: str | None
    #: The version of the policy that judged it last, 0 when it is to be judged anew.
    reviewed: int
    #: Since when nobody may read it (GDPR art. 18).
    restricted_at: datetime | None
    #: Who agreed that it was sent by mistake, against its floor, and what took its place.
    shred_approved_by: str | None = None
    replaced_by: UUID | None = None
    #: When a restore brought it back without its row, and what of it is not known since.
    recovered_at: datetime | None = None
    not_known: list[str] | None = None
    #: When a restore left it behind, whose seal, or one before it, destroyed what its key hung on.
    left_at: datetime | None = None


def correction_of(document: UUID, kind: Kind) -> str:
    """Return what is agreed to where a document is said to be of another kind."""
    return f"{document}/{kind}"


def parse_kind(text: str) -> Kind | None:
    """Return the kind by its name or an alias; None when there is no such kind."""
    word = text.strip().lower()
    try:
        return ALIASES.get(word) or Kind(word)
    except ValueError:
        return None


class Ground(StrEnum):
    """Why somebody asks that a document is shredded; GDPR art. 17(1) where it has a letter."""

    NOT_NEEDED = "no-longer-needed"
    WITHDRAWN = "consent-withdrawn"
    OBJECTION = "objection"
    UNLAWFUL = "unlawfully-processed"
    OBLIGATION = "legal-obligation"
    MISTAKE = "sent-by-mistake"


OBJECTS_PREFIX = "documents/"


def object_name(document: UUID) -> str:
    """Return the name of the document's object in its region's bucket."""
    return f"{OBJECTS_PREFIX}{document}"


def stream_context(region: str, document: UUID) -> bytes:
    """Return the context that the document's stream is bound to; see docs/formats.md."""
    return f"portvault/document/v1/{region}/{document}".encode()


def metadata_context(region: str, document: UUID) -> bytes:
    """Return the context that the document's sealed metadata is bound to."""
    return f"portvault/document-metadata/v1/{region}/{document}".encode()
