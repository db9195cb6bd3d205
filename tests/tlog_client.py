"""
A client of tiled logs, written from the specifications alone; it shares no line with the vault.

C2SP signed-note, tlog-checkpoint, tlog-cosignature, tlog-tiles and tlog-proof; RFC 6962 section 2.1
for the tree, RFC 9162 sections 2.1.3.2 and 2.1.4.2 for checking proofs. Whatever is not as written
there is an AssertionError.
"""

import base64
import hashlib
import struct
from collections.abc import Awaitable, Callable

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

Fetch = Callable[[str], Awaitable[bytes]]
ED25519, COSIGNATURE = 1, 4


def sha256(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def mth(hashes: list[bytes]) -> bytes:
    """Return the Merkle tree hash over leaf hashes, by its definition."""
    if not hashes:
        return sha256()
    if len(hashes) == 1:
        return hashes[0]
    k = 1
    while k * 2 < len(hashes):
        k *= 2
    return sha256(b"\x01", mth(hashes[:k]), mth(hashes[k:]))


def _signatures(note: str) -> tuple[str, list[tuple[str, bytes]]]:
    text, found, rest = note.rpartition("\n\n")
    assert found
    assert rest.endswith("\n")
    signatures = []
    for line in rest[:-1].split("\n"):
        dash, name, encoded = line.split(" ")
        assert dash == "\u2014"
        signatures.append((name, base64.b64decode(encoded, validate=True)))
    return text + "\n", signatures


def _vkey(vkey: str) -> tuple[str, bytes, int, Ed25519PublicKey]:
    name, key_id, encoded = vkey.split("+", 2)
    raw = base64.b64decode(encoded, validate=True)
    assert sha256(name.encode(), b"\n", raw)[:4].hex() == key_id
    return name, bytes.fromhex(key_id), raw[0], Ed25519PublicKey.from_public_bytes(raw[1:])


def open_note(note: str, vkey: str) -> str:
    """Return the text of a signed note; signatures of unknown keys are ignored."""
    name, key_id, kind, key = _vkey(vkey)
    assert kind == ED25519
    text, signatures = _signatures(note)
    (mine,) = [raw for who, raw in signatures if who == name and raw[:4] == key_id]
    key.verify(mine[4:], text.encode())
    return text


def open_cosignature(note: str, vkey: str) -> int:
    """Return when a witness cosigned a checkpoint."""
    name, key_id, kind, key = _vkey(vkey)
    assert kind == COSIGNATURE
    text, signatures = _signatures(note)
    (mine,) = [raw for who, raw in signatures if who == name and raw[:4] == key_id]
    (time,) = struct.unpack(">Q", mine[4:12])
    assert time < 2**63
    key.verify(mine[12:], f"cosignature/v1\ntime {time}\n{text}".encode())
    return int(time)


def open_checkpoint(note: str, vkey: str, origin: str) -> tuple[int, bytes]:
    """Return size and root of a checkpoint of this log."""
    lines = open_note(note, vkey).split("\n")
    assert lines.pop() == ""
    assert all(lines)
    assert lines[0] == origin
    assert lines[1] == str(int(lines[1]))
    root = base64.b64decode(lines[2], validate=True)
    assert len(root) == 32
    return int(lines[1]), root


def path_of(level: str, index: int, width: int) -> str:
    """Return where a tile stands."""
    elements = [f"{index % 1000:03d}"]
    while index >= 1000:
        index //= 1000
        elements.insert(0, f"x{index % 1000:03d}")
    return f"tile/{level}/" + "/".join(elements) + (f".p/{width}" if width < 256 else "")


def check_inclusion(index: int, size: int, leaf: bytes, proof: list[bytes], root: bytes) -> None:
    """RFC 9162, 2.1.3.2."""
    assert index < size
    fn, sn, r = index, size - 1, leaf
    for p in proof:
        assert sn != 0
        if fn & 1 or fn == sn:
            r = sha256(b"\x01", p, r)
            if not fn & 1:
                while not fn & 1 and fn != 0:
                    fn, sn = fn >> 1, sn >> 1
        else:
            r = sha256(b"\x01", r, p)
        fn, sn = fn >> 1, sn >> 1
    assert sn == 0
    assert r == root


def check_consistency(
    first: int, second: int, first_hash: bytes, second_hash: bytes, proof: list[bytes]
) -> None:
    """RFC 9162, 2.1.4.2."""
    if first == second:
        assert not proof
        assert first_hash == second_hash
        return
    assert proof
    path = [first_hash, *proof] if first & (first - 1) == 0 else list(proof)
    fn, sn = first - 1, second - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    fr = sr = path[0]
    for c in path[1:]:
        assert sn != 0
        if fn & 1 or fn == sn:
            fr, sr = sha256(b"\x01", c, fr), sha256(b"\x01", c, sr)
            if not fn & 1:
                while not fn & 1 and fn != 0:
                    fn, sn = fn >> 1, sn >> 1
        else:
            sr = sha256(b"\x01", sr, c)
        fn, sn = fn >> 1, sn >> 1
    assert fr == first_hash
    assert sr == second_hash
    assert sn == 0


def check_proof(text: str, leaf: bytes, vkey: str, origin: str) -> int:
    """Return the index of a leaf that a tlog-proof proves to be in the log."""
    head, found, note = text.partition("\n\n")
    lines = head.split("\n")
    assert found
    assert lines.pop(0) == "c2sp.org/tlog-proof@v1"
    if lines[0].startswith("extra "):
        lines.pop(0)
    word, number = lines.pop(0).split(" ")
    assert word == "index"
    assert number == str(int(number))
    size, root = open_checkpoint(note, vkey, origin)
    proof = [base64.b64decode(line, validate=True) for line in lines]
    check_inclusion(int(number), size, leaf, proof, root)
    return int(number)


async def read_log(fetch: Fetch, vkey: str, origin: str) -> list[bytes]:
    """Fetch a whole log, check every tile of every level, and return its entries."""
    size, root = open_checkpoint((await fetch("checkpoint")).decode(), vkey, origin)
    entries = list[bytes]()
    for index in range(-(-size // 256)):
        width = min(256, size - index * 256)
        data, at, before = await fetch(path_of("entries", index, width)), 0, len(entries)
        while at < len(data):
            (length,) = struct.unpack_from(">H", data, at)
            entries.append(data[at + 2 : at + 2 + length])
            assert len(entries[-1]) == length
            at += 2 + length
        assert len(entries) - before == width
    hashes, level, count = [sha256(b"\x00", entry) for entry in entries], 0, size
    assert mth(hashes) == root
    while count:
        for index in range(-(-count // 256)):
            tile = hashes[index * 256 : index * 256 + 256]
            assert await fetch(path_of(str(level), index, len(tile))) == b"".join(tile)
        hashes = [mth(hashes[at : at + 256]) for at in range(0, len(hashes) - 255, 256)]
        level, count = level + 1, count >> 8
        assert len(hashes) == count
    return entries
