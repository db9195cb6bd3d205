"""
A second implementation of docs/formats.md, written from that text and from nothing else.

It imports no line of the vault. Given a copy of a custodian's directory, of a bucket, and what is
sealed in rows, it opens what a living tree opens, and says why it does not.
"""

import base64
import hashlib
import hmac
import json
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.cobblestone import Cobblestone256Decryptor
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt


def opened(key: bytes, sealed: bytes, context: str) -> bytes:
    """Open what is sealed like a wrap."""
    assert sealed[:1] == b"\x01"
    return AESGCM(key).decrypt(sealed[1:13], sealed[13:], sealed[:1] + context.encode("ascii"))


def derived(key: bytes, purpose: str) -> bytes:
    """Derive a key for one purpose."""
    info = f"portvault/derive/v1/{purpose}".encode("ascii")
    return HKDFExpand(SHA256(), 32, info).derive(key)


def uuid_text(data: bytes) -> str:
    text = data.hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def generations(directory: Path, region: str, passphrase: str | None) -> dict[int, bytes]:
    """Return the living generations that a file custodian holds."""
    told = json.loads((directory / "custodian.json").read_bytes())
    assert told["v"] == 1
    key = None
    if "n" in told:
        assert passphrase is not None
        salt = bytes.fromhex(told["id"])
        scrypt = Scrypt(salt=salt, length=32, n=told["n"], r=told["r"], p=told["p"])
        key = scrypt.derive(passphrase.encode())
        check = opened(key, bytes.fromhex(told["check"]), "portvault/file-custodian/v1/check")
        assert check == bytes(32)
    mark = directory / f"{region}.destroyed"
    numbers = [int(word) for word in mark.read_text("ascii").split()] if mark.exists() else [0]
    highest, living = numbers[0], numbers[1:]
    found = {}
    for path in directory.glob(f"{region}-*.key"):
        number, data = int(path.stem.partition("-")[2]), path.read_bytes()
        if number <= highest and number not in living:
            continue
        if key is not None:
            assert len(data) == 61
            data = opened(key, data, f"portvault/file-custodian/v1/{region}/{number}")
        assert len(data) == 32
        found[number] = data
    return found


@dataclass
class Mirror:
    """What the newest chain of segments says."""

    head: dict[str, Any] = field(default_factory=dict)
    nodes: dict[int, tuple[Any, ...]] = field(default_factory=dict)
    scopes: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    keys: dict[str, tuple[str, int, bytes]] = field(default_factory=dict)


def frames(data: bytes) -> list[tuple[bytes, bytes]]:
    found, at = [], 0
    while at < len(data):
        letter, length = struct.unpack_from(">cI", data, at)
        found.append((letter, data[at + 5 : at + 5 + length]))
        at += 5 + length
    return found


def mirror(bucket: Path) -> Mirror:
    """Read the chain that ends in the newest object, oldest segment first."""
    chain, name = list[bytes](), max(path.name for path in (bucket / "keys").iterdir())
    digest: str | None = None
    while name:
        data = (bucket / "keys" / name).read_bytes()
        assert digest is None or hashlib.sha256(data).hexdigest() == digest
        chain.append(data)
        head = json.loads(frames(data)[0][1])
        previous, digest = head["previous"], head["previous_digest"]
        name = previous.removeprefix("keys/") if previous else ""
    made = Mirror()
    for data in reversed(chain):
        for letter, body in frames(data):
            if letter == b"H":
                made.head = json.loads(body)
            elif letter == b"N":
                node, level, epoch, parent, slot, used = struct.unpack_from(">QBQQBQ", body)
                made.nodes[node] = (level, epoch, parent, slot, used, body[34:])
            elif letter == b"S":
                scope, epoch, node, slot = struct.unpack(">16sQQB", body)
                made.scopes[uuid_text(scope)] = (epoch, node, slot)
            elif letter == b"K":
                identity, scope, epoch = struct.unpack_from(">16s16sQ", body)
                made.keys[uuid_text(identity)] = (uuid_text(scope), epoch, body[40:])
            elif letter == b"X":
                identity, _ = struct.unpack(">16sQ", body)
                made.keys.pop(uuid_text(identity), None)
    return made


class Tree:
    """The keys of one region that lie open."""

    def __init__(self, region: str, told: Mirror, roots: dict[int, bytes]) -> None:
        self.region, self._told = region, told
        number = told.head["generation"]
        wrapped = base64.b64decode(told.head["root_wrap"], validate=True)
        self._root = opened(roots[number], wrapped, f"portvault/root-key/v1/{region}/{number}")

    def authentic(self, bucket: Path) -> bool:
        """Whether the newest segment's tag holds."""
        data = (bucket / "keys" / max(p.name for p in (bucket / "keys").iterdir())).read_bytes()
        letter, tag = frames(data)[-1]
        digest = hashlib.sha256(data[: -len(tag) - 5]).digest()
        made = hmac.digest(derived(self._root, "mirror"), digest, "sha256")
        return letter == b"E" and hmac.compare_digest(made, tag)

    def _node_key(self, node: int) -> bytes:
        _, _, parent, slot, _, _ = self._told.nodes[node]
        if node == self._told.head["root"]:
            assert (parent, slot) == (0, 255)
            return self._root
        return self._in_slot(parent, slot)

    def _in_slot(self, node: int, slot: int) -> bytes:
        _, epoch, _, _, used, page = self._told.nodes[node]
        assert used & (1 << slot), "the slot is taken"
        assert used < 1 << 60
        context = f"portvault/page/v1/{self.region}/{node}/{epoch}"
        whole = opened(self._node_key(node), page, context)
        assert len(whole) == 60 * 32
        for number in range(60):
            assert any(whole[32 * number : 32 * number + 32]) == bool(used & (1 << number))
        return whole[32 * slot : 32 * slot + 32]

    def data_key(self, identity: str) -> bytes:
        """Return a data key; raises `KeyError` for one that left the tree."""
        scope, epoch, wrapped = self._told.keys[identity]
        current, node, slot = self._told.scopes[scope]
        assert current == epoch
        context = f"portvault/data-key/v1/{self.region}/{scope}/{epoch}/{identity}"
        return opened(self._in_slot(node, slot), wrapped, context)

    def content(self, bucket: Path, identity: str) -> bytes:
        """Return what a document's or fax's object holds."""
        sealed = (bucket / "documents" / identity).read_bytes()
        context = f"portvault/document/v1/{self.region}/{identity}".encode("ascii")
        decryptor = Cobblestone256Decryptor(derived(self.data_key(identity), "content"), context)
        plain = decryptor.update(sealed) + decryptor.finalize()
        assert len(sealed) == 56 + len(plain) + 16 * (len(plain) // 16384 + 1)
        return plain

    def metadata(self, identity: str, sealed: bytes, what: str = "document-metadata") -> Any:
        """Return the sealed JSON of a document, a fax or an order."""
        key = derived(self.data_key(identity), "metadata")
        return json.loads(opened(key, sealed, f"portvault/{what}/v1/{self.region}/{identity}"))

    def fingerprint(self, identity: str, asked: list[Any], content: bytes = b"") -> bytes:
        """Return what tells a repeated request from another one under the same key."""
        key, said = (
            derived(self.data_key(identity), "idempotency"),
            json.dumps(asked, sort_keys=True).encode(),
        )
        return hmac.digest(key, len(said).to_bytes(8) + said + content, "sha256")

    def number_mac(self, index_key: str, number: str) -> bytes:
        """Return what stands in the index for a number."""
        key = derived(self.data_key(index_key), "number-index")
        return hmac.digest(key, number.encode("ascii"), "sha256")

    def reference_mac(self, index_key: str, reference: str) -> bytes:
        """Return what stands in the index for a customer's own reference."""
        key = derived(self.data_key(index_key), "reference-index")
        return hmac.digest(key, reference.encode(), "sha256")


def store_id(bucket: Path) -> str:
    """Return which store a bucket is."""
    told = json.loads((bucket / "store.json").read_bytes())
    assert told["v"] == 1
    assert len(bytes.fromhex(told["id"])) == 16
    return str(told["id"])


def vkey_of(directory: Path) -> str:
    """Return the public half of the key that signs the log, as NAME+HASH+BASE64."""
    key = serialization.load_pem_private_key((directory / "signing.key").read_bytes(), None)
    assert isinstance(key, Ed25519PrivateKey)
    raw = b"\x01" + key.public_key().public_bytes_raw()
    name = hashlib.sha256(b"portvault\n" + raw).digest()[:4].hex()
    return f"portvault+{name}+{base64.b64encode(raw).decode()}"


def text_of(note: str, vkey: str) -> str:
    """Return the text of a signed note, whose signature by this key holds."""
    name, identity, public = vkey.split("+", 2)
    body, _, signatures = note.rpartition("\n\n")
    text = body + "\n"
    for line in signatures.splitlines():
        dash, signer, blob = line.split(" ")
        assert dash == "\N{EM DASH}"
        data = base64.b64decode(blob, validate=True)
        if (signer, data[:4].hex()) == (name, identity):
            key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public)[1:])
            key.verify(data[4:], text.encode())
            return text
    raise AssertionError("no signature by the key")


def leaf(record: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + record).digest()


def tree_root(leaves: list[bytes]) -> bytes:
    """Return the root of RFC 6962 over leaves."""
    if len(leaves) == 1:
        return leaves[0]
    split = 1 << ((len(leaves) - 1).bit_length() - 1)
    both = tree_root(leaves[:split]) + tree_root(leaves[split:])
    return hashlib.sha256(b"\x01" + both).digest()


FIELDS = {
    *("v", "id", "region", "at", "phase", "principal", "role", "action", "intent", "document"),
    *("order", "kind", "purpose", "reference", "region_to", "basis", "decision", "reason"),
    *("result", "size_bytes"),
}


class Log:
    """What a bucket shows of a region's log, under its largest checkpoint."""

    def __init__(self, bucket: Path, region: str, vkey: str) -> None:
        self._tiles, self._vkey = bucket / "log" / "tile", vkey
        newest = max((bucket / "log").glob("checkpoint-*"))
        origin, size, root = text_of(newest.read_text(), vkey).splitlines()[:3]
        assert origin == f"portvault/{region}"
        assert newest.name == f"checkpoint-{int(size):020}"
        self.size = int(size)
        self.records = [entry for tile in self._each("entries") for entry in _entries(tile)]
        self.leaves = [leaf(record) for record in self.records]
        assert b"".join(self._each("0")) == b"".join(self.leaves)
        assert tree_root(self.leaves) == base64.b64decode(root, validate=True)

    def _each(self, kind: str) -> Iterator[bytes]:
        for number, first in enumerate(range(0, self.size, 256)):
            width = min(256, self.size - first)
            path = self._tiles / kind / f"{number:03}"
            yield (path if width == 256 else Path(f"{path}.p") / str(width)).read_bytes()

    def read(self) -> list[dict[str, Any]]:
        """Return the records, each as it must be written."""
        found = []
        for data in self.records:
            record = json.loads(data)
            written = json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
            assert written.encode() == data
            assert record["v"] == 1
            assert set(record) <= FIELDS
            assert None not in record.values()
            found.append(record)
        return found

    def place(self, receipt: str) -> int:
        """Return which record a receipt is of."""
        match = re.fullmatch(r'region="([a-z]+)", record="([0-9a-f-]+)", leaf=:(.+):', receipt)
        assert match is not None
        place = self.leaves.index(base64.b64decode(match[3], validate=True))
        record = json.loads(self.records[place])
        assert (record["region"], record["id"], record["phase"]) == (match[1], match[2], "intent")
        return place

    def certified(self, note: str) -> dict[str, Any]:
        """Return what a certificate says; its records and its issue are in the log."""
        version, body = text_of(note, self._vkey).splitlines()
        told: dict[str, Any] = json.loads(body)
        assert version == "portvault-certificate/v1"
        assert list(told) == sorted(told)
        order = ("received_at", "stored_at", "beyond_use_since", "irrecoverable_since", "issued_at")
        assert [told[name] for name in order] == sorted(told[name] for name in order)
        _, size, root = text_of(told["log_checkpoint"], self._vkey).splitlines()[:3]
        assert tree_root(self.leaves[: int(size)]) == base64.b64decode(root)
        records = self.read()
        own = [n for n, record in enumerate(records) if record.get("document") == told["document"]]
        assert told["log_indices"] == [place for place in own if place < int(size)]
        digest = hashlib.sha256(note.encode()).hexdigest()
        assert ("certificate.issue", "intent", digest) in {
            (record["action"], record["phase"], record.get("reference")) for record in records
        }
        return told


def _entries(bundle: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(bundle):
        length = int.from_bytes(bundle[at : at + 2])
        yield bundle[at + 2 : at + 2 + length]
        at += 2 + length
