"""
Certificates of destruction: what was destroyed, when, how, by which rule and on whose word.

One for each document, and one for an order when all its documents are gone. A document is named by
its stream header (salt and key commitment) and size, never by a digest of its content. After NIST
SP 800-88's fields where they apply to keys. The text is signed as a C2SP signed note; verifying
needs the public key only.
"""

import hashlib
import json
import re
from base64 import b64encode
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from vault.domain.documents import Document
from vault.domain.orders import Order
from vault.domain.text import is_reference
from vault.errors import InvalidRequestError

FORMAT = "portvault-certificate/v1"
ORDER_FORMAT = "portvault-order-certificate/v1"
NOT_COVERED = (
    "plaintext that was read while the document lived; the access log lists who read it",
    "memory of processes before the seal",
    "copies of the custodian's own storage, where the custodian keeps any",
)
ORDER_NOT_COVERED = (
    *NOT_COVERED,
    "documents of other orders of the same customer",
    "the order's own numbers and references, where they are not among the documents",
)


@dataclass(frozen=True, slots=True)
class PolicyUsed:
    """The row that stood at the shred, its source, and who put its policy in force."""

    version: int
    row: str
    citation: str
    applied_by: str
    approved_by: str | None


#: Members of a certificate by the names of what a restore may not know of a document.
_MEMBERS = {
    "stream_header": "stream_header",
    "shred_reason": "reason",
    "policy": "policy",
    "replaced_by": "replaced_by",
}
_POLICY = tuple(PolicyUsed.__dataclass_fields__)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What stands in the certificate beside the document's own row."""

    custodian: str
    destroy_level: int
    destroy_promise: str
    #: None where a restore took the shred from the log, which does not say the row.
    policy: PolicyUsed | None
    log_indices: tuple[int, ...]
    #: The signed checkpoint that covers every record at those indices.
    checkpoint: str | None


def certificate_text(document: Document, evidence: Evidence, issued_at: datetime) -> str:
    """Return the text to sign: one line that names the format, and the fields as JSON."""
    fields = {
        "document": str(document.id),
        "order": str(document.order_id),
        "kind": document.kind.value,
        "region": document.region,
        "received_at": _time(document.received_at),
        "stored_at": _time(document.stored_at),
        "beyond_use_since": _time(document.shredded_at),
        "irrecoverable_since": _time(document.sealed_at),
        "trigger": {
            "ground": document.shred_ground,
            "reason": _kept_reason(document.shred_reason),
            "principal": document.shredded_by,
            **_mistake(document),
        },
        "policy": asdict(evidence.policy) if evidence.policy else dict.fromkeys(_POLICY),
        "method": "cryptographic erase: every generation of the root key above it was destroyed",
        "generation_destroyed": document.last_generation,
        "custodian": evidence.custodian,
        "custodian_destroy_level": evidence.destroy_level,
        "custodian_destroy_promise": evidence.destroy_promise,
        "stream_header": b64encode(document.stream_header or b"").decode(),
        "size_bytes": document.size_bytes,
        "object_versions_purged": document.purged_versions,
        "purged_at": _time(document.purged_at),
        "log_indices": list(evidence.log_indices),
        "log_checkpoint": evidence.checkpoint,
        **_not_known(document),
        "not_covered": list(NOT_COVERED),
        "issued_at": _time(issued_at),
    }
    return _text(FORMAT, fields)


def _mistake(document: Document) -> dict[str, str]:
    """Return what is said of a document that went against its floor, or was replaced."""
    found = {}
    if document.shred_approved_by is not None:
        found = {"against_floor": "sent by mistake", "approved_by": document.shred_approved_by}
    if document.replaced_by is not None:
        found["replaced_by"] = str(document.replaced_by)
    return found


def _not_known(document: Document) -> dict[str, list[str]]:
    """Return which members a restore could not tell, where there are any."""
    found = [_MEMBERS[name] for name in document.not_known or () if name in _MEMBERS]
    return {"not_known": found} if found else {}


@dataclass(frozen=True, slots=True)
class Issued:
    """A document's certificate, as an order's certificate refers to it."""

    document: UUID
    kind: str
    note: str
    sealed_at: datetime


def _kept_reason(reason: str | None) -> str | None:
    """Return the reason where it is a code; earlier releases took sentences, which do not stay."""
    return reason if reason is not None and is_kept_reason(reason) else None


def order_certificate_text(order: Order, issued: list[Issued], issued_at: datetime) -> str:
    """Return the text to sign when every document of an order is gone."""
    fields = {
        "order": str(order.id),
        "region": order.region,
        "status": order.status.value,
        "created_at": _time(order.created_at),
        "ended_at": _time(order.ended_at),
        "irrecoverable_since": _time(max(item.sealed_at for item in issued)),
        "documents": [
            {
                "document": str(item.document),
                "kind": item.kind,
                "certificate_sha256": note_digest(item.note),
            }
            for item in issued
        ],
        "not_covered": list(ORDER_NOT_COVERED),
        "issued_at": _time(issued_at),
    }
    return _text(ORDER_FORMAT, fields)


def note_digest(note: str) -> str:
    """Return by what the log and an order's certificate name a signed certificate."""
    return hashlib.sha256(note.encode()).hexdigest()


def parse_certificate(text: str) -> dict[str, Any]:
    """Return the fields of a certificate's text, signed or not; verifies nothing."""
    lines = text.split("\n")
    if lines[0] not in (FORMAT, ORDER_FORMAT):
        raise ValueError("not a certificate of destruction")
    fields: dict[str, Any] = json.loads(lines[1])
    return fields


def _text(title: str, fields: dict[str, Any]) -> str:
    return f"{title}\n{json.dumps(fields, sort_keys=True)}\n"


def _time(at: datetime | None) -> str | None:
    return at.isoformat().replace("+00:00", "Z") if at else None


# ---- Words that outlive what they are about: in certificates and in receipts. -------------------
#
# What cannot be changed later holds ids and codes. A reason is a code or the number of a case, and
# of what a gateway or a mail server says, only the words of its trade stay. So no name gets there.

#: Why somebody has a document shredded, where there is no case that has a number.
SHRED_REASONS = (
    "asked",
    "customer-left",
    "data-subject",
    "duplicate",
    "not-needed",
    "order-ended",
    "sent-by-mistake",
    "superseded",
    "test",
    "unreadable",
    "withdrawn",
    "wrong-document",
)
#: What the reasons of the vault itself begin with.
RETENTION = "retention: "

HIDDEN = "..."
_WORD = re.compile(r"[A-Za-z]+(?:'[a-z]+)?|[^A-Za-z\s]+|\s+", re.ASCII)
#: The vault's own errors, which the relay says.
_OURS = re.compile(r"(?:[A-Z][a-z]+)+Error", re.ASCII)
#: What T.30, HylaFAX, modems and mail servers say of a call or a mail.
_TRADE_WORDS = """
    a abort aborted accept accepted access account active address after again all already an
    and answer answered any at authentication available bad be been blocked box busy by call
    called caller calling cancelled cannot carrier cd closed code collision command
    communication complete completed compression confirm confirmation connect connected
    connection cts data dcd dcn dcs deferred delayed delivered delivery denied detected device
    dial dialing did disabled disc disconnect disconnected disk disruption domain down drop
    dropped dsr ecm empty end eof eom eop error exceeded expected expired failed failure fax
    fcd fcs fcf fht file for found frame from ftt full generation gone got greylisted hang
    hangup has host hung hdlc id in incompatible incoming initialize insufficient internal
    interrupted interval invalid is isdn it job jobs later length level limit limits line link
    load local lock long lost mail mailbox malformed many max maximum mcf message missing
    modem mps negotiation network no none not number of off offline on only open operator or
    other out outgoing over page pages paper parameters permanent permanently permitted phase
    phone pip pin please point policy poor port possible ppr problem procedure process
    protocol quality queue quota reached read receive received receiver recipient recipients
    refused reject rejected remote rejection reply request requested reset resources response
    retrain retry ring rnr rr rtn rtp send sender sending sent server service session short
    signal size space spam speed start starting state station status stopped storage
    successful suspended system tcf telephone temporarily temporary terminated terminator the
    time timed timeout to tone too transfer transient transmission transmit tries try trying
    type unable unavailable undefined unexpected unknown unrecognized unspecified until up use
    user v valid voice wait waiting was while with within write wrong
"""
_TRADE = frozenset(_TRADE_WORDS.split())


def check_shred_reason(text: str) -> str:
    """Return why a document is shredded; raises `InvalidRequestError`, which does not repeat it."""
    if not is_kept_reason(text):
        raise InvalidRequestError(
            f"the reason is the number of a case, or one of {', '.join(SHRED_REASONS)}: it stands "
            "in the certificate for ever, so it is no sentence"
        )
    return text


def is_kept_reason(text: str) -> bool:
    """Whether a reason may stand in a certificate: no words of a person's."""
    return text in SHRED_REASONS or text.startswith(RETENTION) or is_reference(text)


def trade_words(text: str) -> str:
    """Return what a gateway or server said; words that are not of the trade become `...`."""
    shown = "".join(
        word if not word[0].isalpha() or word.lower() in _TRADE or _OURS.fullmatch(word) else HIDDEN
        for word in _WORD.findall(text)
    )
    return re.sub(r"\.{3}(?:[\s\W]*\.{3})+", HIDDEN, shown)
