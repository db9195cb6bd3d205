"""
Documents: their kinds, what file types each kind may be, and their custody.

Custody is the vault's own axis and never mixed with the carrier's status.
"""

import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from vault.errors import UnsupportedTypeError


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


#: The kind of what is passed through and not filed: in policies, in purposes and in records.
FAX = "fax"

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
    """One document as its row says; `metadata` is encrypted under the document's own key."""

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
    """Return the context that the document's encrypted metadata is bound to."""
    return f"portvault/document-metadata/v1/{region}/{document}".encode()


# ---- What a file is, by its first bytes, and whether that is what its sender says. --------------
#
# Only signatures are looked at; nothing of a file is parsed. This is the one rule for every
# entrance: HTTP, mail, HylaFAX and the command line.

HEAD_BYTES = 2048
#: Viewers find a PDF's header in the first so many bytes (ISO 32000-1, annex H, note 13): mail
#: programs, gateways and printers put things before it.
PDF_HEADER_WITHIN_BYTES = 1024
_PDF_HEADER = b"%PDF-"

_SIGNATURES = (
    (b"\xff\xd8\xff", JPEG),
    (b"\x89PNG\r\n\x1a\n", PNG),
    (b"II*\x00", TIFF),
    (b"MM\x00*", TIFF),
    (b"II+\x00", TIFF),
    (b"MM\x00+", TIFF),
    (b"PK\x03\x04", "application/zip"),
    (b"PK\x05\x06", "application/zip"),
    (b"PK\x07\x08", "application/zip"),
)
# ISO/IEC 23008-12: images and sequences coded with HEVC, and the two brands of any HEIF.
_HEVC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"})
_HEIF_BRANDS = frozenset({b"mif1", b"msf1"})
_AV1_BRANDS = frozenset({b"avif", b"avis"})
#: What says only that there are bytes, or what a browser is to do with them.
_NEUTRAL = frozenset(
    {
        *("", "application/octet-stream", "binary/octet-stream", "application/binary"),
        *("application/unknown", "application/x-unknown", "unknown/unknown"),
        *("application/download", "application/x-download", "application/force-download"),
    }
)
#: Other names of a type, as phones, scanners and mail programs write them.
_SAME = {
    "image/jpg": JPEG,
    "image/pjpeg": JPEG,
    "image/jfif": JPEG,
    "image/pipeg": JPEG,
    "image/x-png": PNG,
    "image/heif": HEIC,
    "image/heic-sequence": HEIC,
    "image/heif-sequence": HEIC,
    "image/tif": TIFF,
    "image/x-tif": TIFF,
    "image/x-tiff": TIFF,
    "image/tiff-fx": TIFF,
    "application/tif": TIFF,
    "application/tiff": TIFF,
    "application/x-tif": TIFF,
    "application/x-tiff": TIFF,
    "application/x-pdf": PDF,
    "application/acrobat": PDF,
    "applications/vnd.pdf": PDF,
    "text/pdf": PDF,
    "text/x-pdf": PDF,
}
_EXTENSIONS = {
    "jpg": JPEG,
    "jpeg": JPEG,
    "jpe": JPEG,
    "jfif": JPEG,
    "jif": JPEG,
    "jfi": JPEG,
    "png": PNG,
    "tif": TIFF,
    "tiff": TIFF,
    "pdf": PDF,
    "heic": HEIC,
    "heif": HEIC,
    "heics": HEIC,
    "heifs": HEIC,
    "hif": HEIC,
}
# A name may hold a dot and end in a word or a number, as in "Mr. Smith" or "page 1.2".
_EXTENSION = re.compile(r"(?=.*[^\W\d_])\S+")
#: A word that is a person's or a place's, as in "Passport J.Lee" or "passport j.smith", unless it
#: is one of those below: a capital letter before small ones, letters beyond ASCII, or a long word.
_WORD = re.compile(r"[A-Z][a-z'’-]+|[^\W\d_]*[^\W\d_a-zA-Z][^\W\d_]*|[a-zA-Z'’-]{5,}")
_OTHER_EXTENSIONS = frozenset(
    {
        *("exe", "msi", "bat", "cmd", "scr", "jar", "apk", "iso", "dmg", "lnk", "hta", "vbs"),
        *("js", "mjs", "php", "html", "htm", "xhtml", "shtml", "mhtml", "svg", "svgz", "xml"),
        *("doc", "docx", "docm", "xls", "xlsx", "xlsm", "ppt", "pptx", "pptm", "odt", "ods", "rtf"),
        *("pages", "numbers", "keynote", "class", "torrent", "sqlite", "mobileconfig"),
        *("zip", "rar", "gz", "bz2", "xz", "tar", "txt", "csv", "json", "eml", "msg", "dat"),
        *("gif", "bmp", "webp", "avif", "avifs", "raw", "dng", "psd", "mov", "mpeg", "webm"),
        *("swf", "xps", "djvu", "epub", "ps", "eps", "p7m", "p7s", "gpg", "asc", "ink"),
    }
)


def by_signature(head: bytes) -> str | None:
    """Return the media type that the first bytes are the signature of."""
    for signature, media_type in _SIGNATURES:
        if head.startswith(signature):
            return media_type
    if _is_heic(head):
        return HEIC
    # Last: what begins as something else is that, whatever stands in it.
    return PDF if _PDF_HEADER in head[: PDF_HEADER_WITHIN_BYTES + len(_PDF_HEADER) - 1] else None


def _is_heic(head: bytes) -> bool:
    if head[4:8] != b"ftyp":
        return False
    if head[8:12] in _HEVC_BRANDS:
        return True
    end = min(int.from_bytes(head[:4]), len(head))
    compatible = {head[start : start + 4] for start in range(16, end, 4)}
    return head[8:12] in _HEIF_BRANDS and (
        not compatible & _AV1_BRANDS or bool(compatible & _HEVC_BRANDS)
    )


def extension(filename: str) -> str | None:
    """
    Return the name's extension in lower case; dots and spaces at the end hide none.

    None where there is none, or where what stands behind the last dot is a word of the name.
    """
    stem, dot, end = filename.rstrip(". \u00a0\u202f").rpartition(".")
    if not stem or not dot or not _EXTENSION.fullmatch(end):
        return None
    known = end.lower() in _EXTENSIONS or end.lower() in _OTHER_EXTENSIONS
    return end.lower() if known or not _WORD.fullmatch(end) else None


def readable(name: str) -> str:
    """Return a file's name whose bytes are no UTF-8 as what they are in Windows' Latin alphabet."""
    raw = name.encode("utf-8", "surrogateescape")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("cp1252", "replace")


_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,60}/[a-z0-9][a-z0-9!#$&^_.+-]{0,60}")


def _agrees(said: str, sniffed: str) -> bool:
    """Whether a type is the file's, or what phones go on to call a photo that they made a JPEG."""
    return said == sniffed or (said, sniffed) == (HEIC, JPEG)


def check_type(declared: str | None, filename: str | None, sniffed: str) -> None:
    """Raise `UnsupportedTypeError` when the Content-Type or the extension says otherwise."""
    said = (declared or "").partition(";")[0].strip().lower()
    said = _SAME.get(said, said)
    if said not in _NEUTRAL and not _agrees(said, sniffed):
        # What was sent is a stranger's text: only what looks like a type is said back.
        sent = said if _TYPE.fullmatch(said) else "something else"
        raise UnsupportedTypeError(
            f"the file is {sniffed}, and its Content-Type says {sent}: send {sniffed}, or "
            f"application/octet-stream to have the vault look for itself"
        )
    named = extension(filename) if filename else None
    if named is None:
        return
    if named not in _EXTENSIONS:
        raise UnsupportedTypeError(
            f"no document is called .{named}; the file is {sniffed}, name it so"
        )
    if not _agrees(_EXTENSIONS[named], sniffed):
        raise UnsupportedTypeError(
            f"the file is {sniffed}, and its name's extension .{named} says otherwise"
        )
