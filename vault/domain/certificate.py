"""
Certificate of destruction: what was destroyed, when, how and on whose word.

It identifies the object by its stream header (salt and key commitment) and size, never by a digest
of the content. After NIST SP 800-88's fields where they apply to keys. The text is signed as a
C2SP signed note; verifying needs the public key only.
"""

import json
from base64 import b64encode
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from vault.domain.documents import Document

FORMAT = "portvault-certificate/v1"
NOT_COVERED = (
    "plaintext that was read while the document lived; the access log lists who read it",
    "memory of processes before the seal",
    "copies of the custodian's own storage, where the custodian keeps any",
)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What stands in the certificate beside the document's own row."""

    custodian: str
    destroy_level: int
    destroy_promise: str
    citation: str
    log_indices: tuple[int, ...]


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
        "trigger": {"reason": document.shred_reason, "principal": document.shredded_by},
        "retention_citation": evidence.citation,
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
        "not_covered": list(NOT_COVERED),
        "issued_at": _time(issued_at),
    }
    return f"{FORMAT}\n{json.dumps(fields, sort_keys=True)}\n"


def parse_certificate(text: str) -> dict[str, Any]:
    """Return the fields of a certificate's text, signed or not; verifies nothing."""
    lines = text.split("\n")
    if lines[0] != FORMAT:
        raise ValueError("not a certificate of destruction")
    fields: dict[str, Any] = json.loads(lines[1])
    return fields


def _time(at: datetime | None) -> str | None:
    return at.isoformat().replace("+00:00", "Z") if at else None
