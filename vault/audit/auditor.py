"""
The auditor: checks an export of the access log with nothing but the public key.

Written from docs/formats.md alone; it imports the standard library and `cryptography`, and runs as
this one file, `python auditor.py EXPORT --key VKEY`. Four verdicts, each with the first index that
offends: *intact* (every record hashes into the signed tree), *complete* (no gap; every intent has
an outcome or is in flight; no record waits beyond `--waiting-max` seconds), *consistent*
(checkpoints held from before are prefixes), *anchored* (up to which size a witness cosigned; null
without one). Exit status 0, or the sum of 8, 16, 32, 64 for each that fails; 1: no file, 2: usage.
"""

import argparse
import base64
import hashlib
import json
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

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
ANNOUNCED, ENDED = "portvault-log-key/v1", "portvault-log-key/v2"
REVOKED = "portvault-log-key-revoked/v1"


class AuditError(Exception):
    """This is no export of a log, or no checkpoint of the key."""


def _hash(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def _unbase64(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


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


Logs = dict[str, int]


class _KeyNote(NamedTuple):
    """A note about keys: its title, its one or two keys, and what it says of each log."""

    note: str
    title: str
    keys: list[str]
    logs: Logs
    marks: set[tuple[str, int, bytes]]


class Trust:
    """
    The key you trust, those that it hands over to, and those before it, each up to its bound.

    The bound of a key is up to which size of each log it counts, from the handover that ended it;
    None for one that nothing has ended.
    """

    def __init__(self, vkey: str, notes: Iterable[str]) -> None:
        self._notes = [parts for note in notes if (parts := _key_note(note))]
        own = vkey.strip()
        self._keys = {own: Key(own, _LOG_KEY)}
        self._bounds: dict[str, Logs | None] = {own: None}
        #: What each log was at the handovers: (origin, size, root).
        self.marks: set[tuple[str, int, bytes]] = set()
        #: Whether your key itself says that it was stolen: its handovers lead nowhere.
        self.revoked = self._is_stolen(own)
        self._follow(own)
        self._look_back(own)
        self._revoke()

    def verified(self, note: str) -> tuple[str, bool] | None:
        """
        Return the text of a note that one of the keys signed, and whether that key counts for it.

        A key that was ended counts for a checkpoint within its bound, and for nothing else.
        """
        found = None
        for vkey, key in self._keys.items():
            if (text := key.signed(note)) is None:
                continue
            bound = self._bounds[vkey]
            if bound is None or _is_within(text, bound):
                return text, True
            found = text, False
        return found

    def signed_now(self, note: str) -> str | None:
        """Return the text of a note by a key that nothing has ended, or of a handover's log."""
        for vkey, key in self._keys.items():
            text = key.signed(note)
            if text is not None and (self._bounds[vkey] is None or self._is_mark(text)):
                return text
        return None

    def _is_mark(self, text: str) -> bool:
        return any(text == f"{name}\n{size}\n{_base64(root)}\n" for name, size, root in self.marks)

    def _pairs(self, old: str | None = None, new: str | None = None) -> list[_KeyNote]:
        """Return announcements and handovers of, or to, a key that both of its keys signed."""
        return [
            item
            for item in self._notes
            if item.title != REVOKED
            and (old is None or item.keys[0] == old)
            and (new is None or item.keys[1] == new)
            and all(Key(key, _LOG_KEY).signed(item.note) for key in item.keys)
        ]

    def _is_stolen(self, vkey: str) -> bool:
        return any(
            item.title == REVOKED and item.keys == [vkey] and Key(vkey, _LOG_KEY).signed(item.note)
            for item in self._notes
        )

    def _follow(self, current: str) -> None:
        """Add the keys after one; where two claim to follow it, neither is believed."""
        while not self._is_stolen(current):
            given = [item for item in self._pairs(old=current) if item.keys[1] not in self._keys]
            if len({item.keys[1] for item in given}) != 1:
                return
            for item in given:
                if item.title == ENDED:
                    self._end(current, item.logs)
                    self.marks |= item.marks
            current = given[0].keys[1]
            self._keys[current], self._bounds[current] = Key(current, _LOG_KEY), None

    def _look_back(self, vkey: str) -> None:
        """Add the keys before one; each counts no further than the one after it."""
        waiting = [vkey]
        for current in waiting:
            for item in self._pairs(new=current):
                old = item.keys[0]
                if old not in self._keys:
                    self._keys[old] = Key(old, _LOG_KEY)
                    waiting.append(old)
                    ends = [i for i in self._pairs(old, current) if i.title == ENDED]
                    # An announcement alone says of no log that the key signed it.
                    self._bounds[old] = self._bounds[current]
                    self._end(old, {} if not ends else ends[0].logs)
                    for end in ends:
                        self._end(old, end.logs)
                        self.marks |= end.marks

    def _revoke(self) -> None:
        for item in self._notes:
            if item.title == REVOKED and item.keys[0] in self._keys:
                (key,) = item.keys
                above = [one for one, bound in self._bounds.items() if bound is None and one != key]
                if any(self._keys[one].signed(item.note) for one in (key, *above)):
                    self._end(key, item.logs)

    def _end(self, vkey: str, logs: Logs) -> None:
        """Let a key count no further than this in each log."""
        bound = self._bounds[vkey]
        least = (
            logs
            if bound is None
            else {name: min(bound[name], logs[name]) for name in bound.keys() & logs.keys()}
        )
        self._bounds[vkey] = least


def _is_within(text: str, bound: Logs) -> bool:
    origin, size, *_ = text.split("\n")
    name = origin.partition("#")[0]
    return name in bound and size.isascii() and size.isdigit() and int(size) <= bound[name]


def _key_note(note: str) -> _KeyNote | None:
    """Take a note about keys apart, and verify nothing; None where it is none."""
    title, *lines = note.partition("\n\n")[0].split("\n")
    number = {ANNOUNCED: 2, ENDED: 2, REVOKED: 1}.get(title)
    if number is None or len(lines) < number or (title == ANNOUNCED and len(lines) > number):
        return None
    try:
        for key in lines[:number]:
            Key(key, _LOG_KEY)
        parts = [line.split(" ") for line in lines[number:]]
        marks = {(origin, int(size), _unbase64(root)) for origin, size, root in parts}
    except (ValueError, AuditError):
        return None
    logs = dict[str, int]()
    for origin, size, _ in marks:
        logs[origin] = min(size, logs.get(origin, size))
    return _KeyNote(note, title, lines[:number], logs, marks)


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
        self._trust = Trust(self._vkey, head["handovers"])
        if self._trust.revoked:
            raise AuditError("this key was stolen and says so: get the new key by another way")
        self._origin, self._at, self._last = head["export"], head["first"], head["last"]
        self._size, self._root = self._verified(head["checkpoint"])
        self._tree = Tree(self._at, [_unbase64(item) for item in head["left"]])
        self._right = [_unbase64(item) for item in head["right"]]
        self._minimum = self._verified(head["minimum"], "#minimum")[0] if head["minimum"] else 0
        for note in self._notes:
            size, root = self._verified(note, ever=True)
            self._held.setdefault(size, []).append(root)
        for origin, size, root in self._trust.marks:
            if origin == self._origin:
                self._held.setdefault(size, []).append(root)
        self._head, self._whole, self._good = head, self._at == 0, self._at
        self._meet()

    def _verified(self, note: str, suffix: str = "", *, ever: bool = False) -> tuple[int, bytes]:
        """Return size and root of a checkpoint; of what is only held against the log, `ever`."""
        found = self._trust.verified(note)
        if found is None:
            raise AuditError("a checkpoint is not signed by this key, nor by one it handed over to")
        text, counts = found
        if not (counts or ever):
            raise AuditError("a checkpoint is signed by a key that had ceased to sign before it")
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
        size, root = self._verified(note, ever=True)
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
            "anchored": "anchored" not in self._first if self._witnesses else None,
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
    sys.exit(sum(value for name, value in STATUS.items() if verdict[name] is False))


if __name__ == "__main__":
    main()
