"""
The auditor of certificates: checks one with nothing but the public key, offline.

Written from docs/formats.md alone. It needs the standard library, `cryptography`, and `auditor.py`
beside it, and runs as `python certificate_auditor.py FILE --key VKEY`. FILE is the signed note, or
the whole answer of the vault, which has the anchor too: the record that names the certificate,
and the proof that it is under a checkpoint of the log. The key may be any that signed before or
after the certificate's: the answer has the hand-overs. Exit status 0 when all that is there holds,
1 when it does not, and then the reason is one line.
"""

import argparse
import base64
import hashlib
import json
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or __package__:
    from vault.audit.auditor import AuditError, Trust
else:
    from auditor import AuditError, Trust

FORMAT = "portvault-certificate/v1"
ORDER_FORMAT = "portvault-order-certificate/v1"
PROOF_FORMAT = "c2sp.org/tlog-proof@v1"
#: In the order in which they must have happened.
TIMES = ("received_at", "stored_at", "beyond_use_since", "irrecoverable_since", "issued_at")
ORDER_TIMES = ("created_at", "irrecoverable_since", "issued_at")
STREAM_HEADER_BYTES = 56


class CertificateError(Exception):
    """This is no certificate of the key."""


def signed_text(note: str, trust: Trust) -> str:
    """Return the text of a C2SP signed note that one of the keys signed, ended or not."""
    found = trust.verified(note)
    if found is None:
        raise CertificateError("the key did not sign this, nor one that it handed over to")
    return found[0]


def audit(data: str, vkey: str) -> dict[str, Any]:
    """
    Check a note, or an answer of the vault with its anchor; returns the certificate's fields.

    `anchored_size` is added: of how many records the log was that the certificate is proved to be
    in, or None when there is no anchor.
    """
    if not data.startswith("{"):
        return {**verify(data, vkey), "anchored_size": None}
    try:
        answer: dict[str, Any] = json.loads(data)
        note, anchor = answer["note"], answer.get("anchor")
        handovers = answer.get("handovers", [])
        fields = verify(note, vkey, handovers, anchored=bool(anchor))
        size = _check_anchor(fields, note, anchor, _trust(vkey, handovers)) if anchor else None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CertificateError(f"this is no answer of the vault: {error}") from None
    return {**fields, "anchored_size": size}


def _trust(vkey: str, handovers: Sequence[str] = ()) -> Trust:
    try:
        trust = Trust(vkey, handovers)
    except AuditError as error:
        raise CertificateError(str(error)) from None
    if trust.revoked:
        raise CertificateError(
            "this key was stolen and says so itself: get the new key another way"
        )
    return trust


def _check_anchor(fields: dict[str, Any], note: str, anchor: dict[str, str], trust: Trust) -> int:
    """Return the size of the checkpoint under which the record that names the note is proved."""
    data = anchor["record"].encode()
    record = json.loads(data)
    digest = hashlib.sha256(note.encode()).hexdigest()
    if (record["action"], record["reference"]) != ("certificate.issue", digest):
        raise CertificateError("the record of its anchor names another certificate")
    head, _, checkpoint = anchor["proof"].partition("\n\n")
    title, index, *hashes = head.split("\n")
    if title != PROOF_FORMAT or not index.startswith("index "):
        raise CertificateError("its anchor has no proof of inclusion")
    signed_text(checkpoint, trust)
    current = trust.signed_now(checkpoint)
    if current is None:
        raise CertificateError("its anchor is signed by a key that had ceased to sign: ask again")
    origin, size, root, *_ = current.split("\n")
    if origin != f"portvault/{fields['region']}":
        raise CertificateError("its anchor is of another log")
    proof = [base64.b64decode(item, validate=True) for item in hashes]
    leaf = hashlib.sha256(b"\x00" + data).digest()
    at = int(index.removeprefix("index "))
    if proved_root(at, int(size), leaf, proof) != base64.b64decode(root, validate=True):
        raise CertificateError("its anchor is not in the log whose checkpoint was signed")
    return int(size)


def proved_root(index: int, size: int, leaf: bytes, proof: Sequence[bytes]) -> bytes | None:
    """Return the root that an inclusion proof leads to (RFC 9162, 2.1.3.2); None: wrong length."""
    if not 0 <= index < size:
        return None
    left, last, root = index, size - 1, leaf
    for item in proof:
        if last == 0:
            return None
        if left & 1 or left == last:
            root = hashlib.sha256(b"\x01" + item + root).digest()
            while not left & 1 and left:
                left, last = left >> 1, last >> 1
        else:
            root = hashlib.sha256(b"\x01" + root + item).digest()
        left, last = left >> 1, last >> 1
    return root if last == 0 else None


def verify(
    note: str, vkey: str, handovers: Sequence[str] = (), *, anchored: bool = False
) -> dict[str, Any]:
    """
    Return the fields of a certificate; raises `CertificateError` saying what does not hold.

    What a key signed that was ended since counts only where it is `anchored`: the log had it.
    """
    trust = _trust(vkey, handovers)
    title, _, body = signed_text(note, trust).partition("\n")
    if not anchored and trust.signed_now(note) is None:
        raise CertificateError(
            "a key signed this that has ceased to sign: only the vault's whole answer, with the "
            "anchor, says that it was signed before"
        )
    if title not in (FORMAT, ORDER_FORMAT):
        raise CertificateError("what is signed is no certificate of destruction")
    try:
        fields: dict[str, Any] = json.loads(body)
        names = TIMES if title == FORMAT else ORDER_TIMES
        times = [datetime.fromisoformat(fields[name]) for name in names]
        if title == FORMAT:
            _check_document(fields, trust)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CertificateError(f"a field is missing or malformed: {error}") from None
    if times != sorted(times):
        raise CertificateError(f"its times contradict each other: {', '.join(names)}")
    return fields


def _check_document(fields: dict[str, Any], trust: Trust) -> None:
    header = base64.b64decode(fields["stream_header"], validate=True)
    # A restore may know of a document by the log alone, which has no header; then it says so.
    not_known = not header and "stream_header" in fields.get("not_known", ())
    if len(header) != STREAM_HEADER_BYTES and not not_known:
        raise CertificateError("its stream header has the wrong length")
    origin, size, *_ = signed_text(fields["log_checkpoint"], trust).split("\n")
    if origin != f"portvault/{fields['region']}":
        raise CertificateError("its checkpoint is of another log")
    if not fields["log_indices"] or max(fields["log_indices"]) >= int(size):
        raise CertificateError("its checkpoint does not cover its records")


def main() -> None:
    """Check a file and exit."""
    parser = argparse.ArgumentParser(prog="certificate_auditor", description=__doc__)
    parser.add_argument(
        "file", type=Path, metavar="FILE", help="the signed note, or the vault's answer"
    )
    parser.add_argument("--key", required=True, metavar="VKEY", help="the public key you trust")
    args = parser.parse_args()
    try:
        fields = audit(args.file.read_text(encoding="utf-8"), args.key)
    except (CertificateError, OSError, UnicodeDecodeError) as error:
        sys.stderr.write(f"{args.file}: {error}\n")
        sys.exit(1)
    sys.stdout.write(f"{json.dumps(fields, indent=2, sort_keys=True)}\n")


if __name__ == "__main__":
    main()
