"""
The auditor of certificates: checks one with nothing but the public key, offline.

Written from docs/formats.md alone, it imports the standard library and `cryptography`, and runs as
this one file: `python certificate_auditor.py FILE --key VKEY`. Exit status 0 when it holds, 1 when
it does not, and then the reason is one line.
"""

import argparse
import base64
import hashlib
import json
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

FORMAT = "portvault-certificate/v1"
ORDER_FORMAT = "portvault-order-certificate/v1"
#: In the order in which they must have happened.
TIMES = ("received_at", "stored_at", "beyond_use_since", "irrecoverable_since", "issued_at")
ORDER_TIMES = ("created_at", "irrecoverable_since", "issued_at")
STREAM_HEADER_BYTES = 56


class CertificateError(Exception):
    """This is no certificate of the key."""


def signed_text(note: str, vkey: str) -> str:
    """Return the text of a C2SP signed note that the key (NAME+HASH+BASE64) signed."""
    try:
        name, digest, encoded = vkey.strip().split("+", 2)
        raw = base64.b64decode(encoded, validate=True)
        key = Ed25519PublicKey.from_public_bytes(raw[1:])
    except ValueError:
        raise CertificateError("the key is not NAME+HASH+BASE64") from None
    key_id = hashlib.sha256(name.encode() + b"\n" + raw).digest()[:4]
    if raw[0] != 1 or key_id.hex() != digest:
        raise CertificateError("the key is not an Ed25519 key of this form")
    text, found, rest = note.rpartition("\n\n")
    for line in rest.splitlines() if found else ():
        try:
            dash, signer, signature = line.split(" ")
            sealed = base64.b64decode(signature, validate=True)
            if (dash, signer, sealed[:4]) == ("\u2014", name, key_id):
                key.verify(sealed[4:], f"{text}\n".encode())
                return f"{text}\n"
        except (ValueError, InvalidSignature):
            continue
    raise CertificateError("the key did not sign this")


def verify(note: str, vkey: str) -> dict[str, Any]:
    """Return the fields of a certificate; raises `CertificateError` saying what does not hold."""
    title, _, body = signed_text(note, vkey).partition("\n")
    if title not in (FORMAT, ORDER_FORMAT):
        raise CertificateError("what is signed is no certificate of destruction")
    try:
        fields: dict[str, Any] = json.loads(body)
        names = TIMES if title == FORMAT else ORDER_TIMES
        times = [datetime.fromisoformat(fields[name]) for name in names]
        if title == FORMAT:
            _check_document(fields, vkey)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CertificateError(f"a field is missing or malformed: {error}") from None
    if times != sorted(times):
        raise CertificateError(f"its times contradict each other: {', '.join(names)}")
    return fields


def _check_document(fields: dict[str, Any], vkey: str) -> None:
    if len(base64.b64decode(fields["stream_header"], validate=True)) != STREAM_HEADER_BYTES:
        raise CertificateError("its stream header has the wrong length")
    origin, size, *_ = signed_text(fields["log_checkpoint"], vkey).split("\n")
    if origin != f"portvault/{fields['region']}":
        raise CertificateError("its checkpoint is of another log")
    if not fields["log_indices"] or max(fields["log_indices"]) >= int(size):
        raise CertificateError("its checkpoint does not cover its records")


def main() -> None:
    """Check a file and exit."""
    parser = argparse.ArgumentParser(prog="certificate_auditor", description=__doc__)
    parser.add_argument("file", type=Path, metavar="FILE", help="the signed note")
    parser.add_argument("--key", required=True, metavar="VKEY", help="the public key you trust")
    args = parser.parse_args()
    try:
        fields = verify(args.file.read_text(encoding="utf-8"), args.key)
    except (CertificateError, OSError, UnicodeDecodeError) as error:
        sys.stderr.write(f"{args.file}: {error}\n")
        sys.exit(1)
    sys.stdout.write(f"{json.dumps(fields, indent=2, sort_keys=True)}\n")


if __name__ == "__main__":
    main()
