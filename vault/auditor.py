"""
The auditor: checks an export of the access log with nothing but the public key.

Written from docs/formats.md alone: it shares no line with the vault, imports the standard library
and `cryptography`, and runs as this one file, `python auditor.py EXPORT --key VKEY`. Four verdicts,
each with the first index that offends: *intact* (every record hashes into the signed tree),
*complete* (no gap; every intent has an outcome or is in flight; no record waits for longer than
`--waiting-max` seconds to be published), *consistent* (checkpoints held
from before are prefixes), *anchored* (up to which size a witness cosigned). Exit status 0 when all
hold, else the sum of 8, 16, 32 and 64 for each that does not; 1: no export, 2: wrong usage.
"""

import argparse
import base64
import hashlib
import json
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

STATUS = {"intact": 8, "complete": 16, "consistent": 32, "anchored": 64}
#: An intent that has no outcome after so long is not in flight any more.
IN_FLIGHT_MAX = timedelta(days=1)
#: A record that is in no published log after so long could be taken away unseen.
WAITING_SECONDS_MAX = 60.0
#: The first had no records that wait.
FORMATS = (1, 2)
_LOG_KEY, _WITNESS_KEY = 1, 4


class AuditError(Exception):
    """This is no export of a log, or no checkpoint of the key."""


def _hash(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def _unbase64(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


class Key:
    """A public key: NAME+HASH+BASE64, of the log (type 1) or of a witness (type 4)."""

    def __init__(self, vkey: str, kind: int) -> None:
        try:
            name, digest, encoded = vkey.strip().split("+", 2)
            raw = _unbase64(encoded)
            self._key = Ed25519PublicKey.from_public_bytes(raw[1:])
        except ValueError:
            raise AuditError(f"{vkey} is no key: NAME+HASH+BASE64") from None
        self._id = _hash(name.encode(), b"\n", raw)[:4]
        if raw[0] != kind or self._id.hex() != digest:
            raise AuditError(f"{vkey} is no key of this kind")
        self._name, self._kind = name, kind

    def signed(self, note: str) -> str | None:
        """Return the note's text if this key signed, or cosigned, it."""
        text, _, rest = note.rpartition("\n\n")
        for line in rest.splitlines():
            try:
                dash, name, encoded = line.split(" ")
                raw, said = _unbase64(encoded), f"{text}\n"
                if (dash, name, raw[:4]) != ("\u2014", self._name, self._id):
                    continue
                if self._kind == _WITNESS_KEY:
                    time = int.from_bytes(raw[4:12], "big")
                    raw, said = raw[8:], f"cosignature/v1\ntime {time}\n{said}"
                self._key.verify(raw[4:], said.encode())
                return f"{text}\n"
            except (ValueError, InvalidSignature):
                continue
        return None


def trusted_keys(vkey: str, handovers: Iterable[str]) -> list[Key]:
    """Return the key you trust, and those it handed over to or took over from, step by step."""
    known, waiting = {vkey.strip(): Key(vkey, _LOG_KEY)}, list(handovers)
    for note in waiting * len(waiting):
        lines = note.partition("\n\n")[0].split("\n")
        if len(lines) != 3 or lines[0] != "portvault-log-key/v1":
            continue
        old, new = lines[1:]
        if (old in known) != (new in known):
            both = Key(old, _LOG_KEY), Key(new, _LOG_KEY)
            if all(key.signed(note) for key in both):
                known |= dict(zip((old, new), both, strict=True))
    return list(known.values())


class Tree:
    """The roots of the full subtrees of a log's first records, largest first."""

    def __init__(self, size: int, hashes: Sequence[bytes]) -> None:
        self.size, self.hashes = size, list(hashes)
        if len(self.hashes) != size.bit_count():
            raise AuditError("the proof of what is before the export has the wrong length")

    def add(self, item: bytes, height: int = 0) -> None:
        """Add the root of a full subtree of 2**height records; of one record by default."""
        rest = self.size >> height
        self.size += 1 << height
        while rest & 1:
            item = _hash(b"\x01", self.hashes.pop(), item)
            rest >>= 1
        self.hashes.append(item)

    def close(self, size: int, hashes: Sequence[bytes]) -> None:
        """Add what is behind the export: the largest full subtrees, from left to right."""
        for item in hashes:
            height = (size - self.size).bit_length() - 1
            if height < 0:
                return
            lowest = (self.size & -self.size).bit_length() - 1
            self.add(item, min(height, lowest) if self.size else height)

    def root(self) -> bytes:
        """Return the root over all."""
        root = self.hashes[-1] if self.hashes else _hash()
        for left in self.hashes[-2::-1]:
            root = _hash(b"\x01", left, root)
        return root


class Audit:
    """Takes an export line by line, in memory that does not grow with it."""

    def __init__(
        self,
        key: str,
        held: Sequence[str] = (),
        witnesses: Sequence[str] = (),
        *,
        waiting_seconds_max: float = WAITING_SECONDS_MAX,
    ) -> None:
        self._vkey, self._notes, self._head = key, list(held), dict[str, Any]()
        Key(key, _LOG_KEY)
        self._witnesses = [Key(witness, _WITNESS_KEY) for witness in witnesses]
        self._first, self._findings = dict[str, int](), list[str]()
        self._held, self._open = dict[int, list[bytes]](), dict[str, tuple[int, datetime]]()
        self._interrupted, self._newest = set[str](), datetime.min.replace(tzinfo=UTC)
        self._gap, self._good, self._anchored = False, 0, 0
        self._waiting, self._oldest = 0, datetime.max.replace(tzinfo=UTC)
        self._waiting_max = timedelta(seconds=waiting_seconds_max)

    def take(self, line: bytes) -> None:
        """Take the next line; raises `AuditError` when it is none of an export."""
        try:
            if not self._head:
                self._begin(json.loads(line))
            elif not self._gap and line.startswith(b'{"index":'):
                self._record(line)
            elif line.startswith(b'{"waiting":'):
                self._wait(json.loads(line)["record"])
            elif not self._gap:
                self._checkpoint(json.loads(line)["checkpoint"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise AuditError("this is no export of a log, or it is cut") from error

    def _begin(self, head: dict[str, Any]) -> None:
        if head["v"] not in FORMATS:
            raise AuditError("this export has a format that is not known here")
        self._keys = trusted_keys(self._vkey, head["handovers"])
        self._origin, self._at, self._last = head["export"], head["first"], head["last"]
        self._size, self._root = self._verified(head["checkpoint"])
        self._tree = Tree(self._at, [_unbase64(item) for item in head["left"]])
        self._right = [_unbase64(item) for item in head["right"]]
        self._minimum = self._verified(head["minimum"], "#minimum")[0] if head["minimum"] else 0
        for size, root in map(self._verified, self._notes):
            self._held.setdefault(size, []).append(root)
        self._head, self._whole, self._good = head, self._at == 0, self._at
        self._meet()

    def _verified(self, note: str, suffix: str = "") -> tuple[int, bytes]:
        text = next((text for key in self._keys if (text := key.signed(note))), None)
        if text is None:
            raise AuditError("a checkpoint is not signed by this key, nor by one it handed over to")
        origin, size, root = text.split("\n")[:3]
        if origin != self._origin + suffix:
            raise AuditError(f"a checkpoint is of {origin}, and the export of {self._origin}")
        return int(size), _unbase64(root)

    def _record(self, line: bytes) -> None:
        start, found, data = line.rstrip(b"\n").partition(b',"record":')
        about, record = json.loads(start + b"}" if found else start), data[:-1]
        index, leaf = about["index"], _unbase64(about["leaf"])
        if index != self._at:
            self._missing(self._at, f"record {self._at} is missing or not in its place")
            return
        self._at += 1
        self._tree.add(leaf)
        self._whole = self._whole and bool(found)
        if not found and index >= self._minimum:
            self._missing(index, f"record {index} is gone", gap=False)
        if found and _hash(b"\x00", record) != leaf:
            self._offend("intact", index, f"record {index} is not what was recorded")
        try:
            if found:
                self._pair(index, json.loads(record))
        except (ValueError, KeyError, TypeError, AttributeError):
            self._offend("complete", index, f"record {index} is no record")
        self._meet()

    def _pair(self, index: int, record: dict[str, Any]) -> None:
        """Note what begins and what ends; where records were left out, an end may stand alone."""
        at, intent = datetime.fromisoformat(record["at"]), record.get("intent")
        self._newest = max(self._newest, at)
        if record["phase"] == "intent":
            if record.get("decision") == "allow":
                self._open[record["id"]] = index, at
            return
        ends, interrupted = record["phase"] == "outcome", record.get("result") == "interrupted"
        if intent in self._open:
            if ends:
                del self._open[intent]
            if ends and interrupted:
                self._interrupted.add(intent)
        elif intent in self._interrupted:
            self._interrupted -= {intent} if ends else set()
        elif self._whole and not (ends and interrupted):
            self._offend("complete", index, f"what stands at {index} has no intent before it")

    def _wait(self, record: dict[str, Any]) -> None:
        """Note a record that is in no published log yet: nothing proves it."""
        self._waiting += 1
        self._oldest = min(self._oldest, datetime.fromisoformat(record["at"]))

    def _count_waiting(self) -> None:
        shown, said = self._waiting, self._head.get("waiting", 0)
        if shown != said:
            what = f"{said} records wait to be published, and {shown} of them are shown"
            self._offend("complete", self._size, what)
        if shown and datetime.fromisoformat(self._head["made_at"]) - self._oldest > (
            self._waiting_max
        ):
            what = f"{said} records wait to be published, the oldest since {self._oldest}"
            self._offend("complete", self._size, what)

    def _meet(self) -> None:
        if any(root != self._tree.root() for root in self._held.pop(self._at, ())):
            self._offend("consistent", self._at, f"the log of {self._at} records was another one")

    def _checkpoint(self, note: str) -> None:
        size, root = self._verified(note)
        if size == self._at and root == self._tree.root():
            self._good = size
            if any(witness.signed(note) for witness in self._witnesses):
                self._anchored = size
        elif size != self._at:
            self._missing(self._at, f"what stands from {self._at} to {size - 1} is missing")
        else:
            self._changed(size)

    def verdict(self) -> dict[str, Any]:
        """Return what holds of what was taken."""
        if not self._head:
            raise AuditError("there is nothing in this export")
        if self._at < self._last:
            self._missing(self._at, f"records {self._at} to {self._last - 1} are missing")
        if not self._gap:
            self._tree.close(self._size, self._right)
            self._at = self._size
            if (self._tree.size, self._tree.root()) == (self._size, self._root):
                self._meet()
                self._checkpoint(self._head["checkpoint"])
            else:
                self._changed(self._last)
        for size in self._held:
            self._offend("consistent", size, f"the log of {size} records is not shown")
        for index, at in self._open.values():
            if self._newest - at > IN_FLIGHT_MAX:
                self._offend("complete", index, f"the intent at {index} has no outcome")
        self._count_waiting()
        if self._witnesses and not self._anchored:
            self._offend("anchored", 0, "no witness that you trust has cosigned this log")
        return {
            "origin": self._origin,
            "first": self._head["first"],
            "last": self._last,
            "size": self._size,
            **{name: name not in self._first for name in STATUS},
            "anchored_size": self._anchored if self._witnesses else None,
            "in_flight": len(self._open),
            "waiting": self._head.get("waiting", 0),
            "waiting_since": self._oldest.isoformat() if self._waiting else None,
            "first_offending": self._first,
            "findings": self._findings,
        }

    def _missing(self, index: int, finding: str, *, gap: bool = True) -> None:
        self._gap = gap
        self._offend("complete", index, finding)
        self._offend("intact", index, finding)

    def _changed(self, last: int) -> None:
        what = f"records {self._good} to {last - 1} do not hash to the root that was signed"
        self._offend("intact", self._good, what)

    def _offend(self, verdict: str, index: int, finding: str) -> None:
        self._first[verdict] = min(index, self._first.get(verdict, index))
        if finding not in self._findings:
            self._findings.append(finding)


def main() -> None:
    """Audit a file, or what comes in; exit with what was found."""
    parser = argparse.ArgumentParser(description="Check an export of Portvault's access log.")
    parser.add_argument("export", type=Path, help="the file (JSON Lines); - for standard input")
    parser.add_argument("--key", required=True, help="the log's public key, or a file with it")
    parser.add_argument(
        "--held", type=Path, action="append", default=[], help="a checkpoint's file"
    )
    parser.add_argument("--witness", action="append", default=[], help="a witness's public key")
    parser.add_argument(
        "--waiting-max",
        type=float,
        default=WAITING_SECONDS_MAX,
        metavar="SECONDS",
        help="how long a record may wait to be published (60)",
    )
    args = parser.parse_args()
    try:
        key = Path(args.key).read_text() if Path(args.key).is_file() else args.key
        audit = Audit(
            key,
            [path.read_text() for path in args.held],
            args.witness,
            waiting_seconds_max=args.waiting_max,
        )
        with sys.stdin.buffer if str(args.export) == "-" else args.export.open("rb") as lines:
            for line in lines:
                audit.take(line)
        verdict = audit.verdict()
    except (AuditError, OSError, ValueError) as error:
        sys.exit(f"audit: {error}")
    print(json.dumps(verdict, indent=2))
    sys.exit(sum(value for name, value in STATUS.items() if not verdict[name]))


if __name__ == "__main__":
    main()
