"""The sniffer on a real libmagic: what it names, what it survives, and what is said without it."""

import asyncio
import os
import random
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from vault.adapters.sandbox import UNKNOWN, MagicSniffer, SandboxedChildren
from vault.domain.documents import HEAD_BYTES
from vault.errors import ContentRefusedError, UnavailableError

SAMPLES = Path(__file__).parents[1] / "samples"
ROOT = Path(__file__).parents[2]

# Asks in a process of its own, since a loaded libmagic stays; LIBRARIES says which may be loaded.
ASK = """
import ctypes, ctypes.util, os
libraries = os.environ["LIBRARIES"]
load = ctypes.CDLL.__init__
def only(self, name, *rest, **options):
    if "magic" in str(name) and (libraries == "none" or "pylibmagic" not in str(name)):
        raise OSError("cannot open shared object file")
    load(self, name, *rest, **options)
if libraries != "all":
    ctypes.CDLL.__init__ = only
    ctypes.util.find_library = lambda name: None
from vault.sandbox import libmagic
try:
    print(libmagic.load()(b"GIF89a" + bytes(64)))
except libmagic.LibmagicError as error:
    print(error.args[0].decode())
"""

# What the service's own process has loaded after libmagic was asked.
LOADED = """
import asyncio, sys
from pathlib import Path
from vault import app
from vault.adapters.sandbox import SandboxedChildren
from vault.adapters.sandbox import MagicSniffer
async def ask():
    sandbox = SandboxedChildren(processes=1, timeout_seconds=20.0, memory_bytes=1 << 30)
    print(await MagicSniffer(sandbox).sniff(b"GIF89a" + bytes(64)))
    await sandbox.close()
asyncio.run(ask())
print({"magic", "pylibmagic", "pikepdf"} & set(sys.modules) or "nothing")
print("libmagic" in Path("/proc/self/maps").read_text())
"""


@pytest.fixture
async def sandbox() -> AsyncIterator[SandboxedChildren]:
    """Give a sandbox of two children."""
    made = SandboxedChildren(processes=2, timeout_seconds=20.0, memory_bytes=1 << 30)
    yield made
    await made.close()


@pytest.fixture
def sniffer(sandbox: SandboxedChildren) -> MagicSniffer:
    """Open a sniffer on this machine's libmagic."""
    return MagicSniffer(sandbox)


def run(code: str, **variables: str) -> list[str]:
    """Return what a process of its own says."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, **variables},
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        timeout=60,
    )
    return done.stdout.splitlines()


async def test_libmagic_names_what_no_signature_does(sniffer: MagicSniffer) -> None:
    """Types that the vault refuses get their name, so that the refusal can say it."""
    await sniffer.check()
    assert await sniffer.sniff(b"GIF89a" + bytes(64)) == "image/gif"
    assert await sniffer.sniff(b"<!DOCTYPE html><html><body>") == "text/html"
    assert await sniffer.sniff(b"just words") == "text/plain"


async def test_hostile_heads_never_raise(sniffer: MagicSniffer) -> None:
    """Nothing, zeros, cut samples and random bytes of any length all get an answer."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    heads = [b"", b"\x00", bytes(HEAD_BYTES), b"\xff" * HEAD_BYTES, bytes(10 * HEAD_BYTES)]
    heads += [chance.randbytes(chance.randrange(HEAD_BYTES + 1)) for _ in range(60)]
    for sample in SAMPLES.iterdir():
        whole = sample.read_bytes()[:HEAD_BYTES]
        heads += [whole[1:], whole[:5], whole[::-1]]
    answers = await asyncio.gather(*(sniffer.sniff(head) for head in heads))
    assert all("/" in answer for answer in answers)


async def test_many_at_once_do_not_mix(sniffer: MagicSniffer) -> None:
    """Each caller gets the answer to its own bytes."""
    heads = {b"GIF89a" + bytes(64): "image/gif", b"<!DOCTYPE html><html>": "text/html"}
    asked = list(heads) * 50
    answers = await asyncio.gather(*(sniffer.sniff(head) for head in asked))
    assert answers == [heads[head] for head in asked]


def test_the_bundled_libmagic_serves_where_the_system_has_none() -> None:
    """On a machine without libmagic, the one of pylibmagic is used."""
    assert run(ASK, LIBRARIES="bundled") == ["image/gif"]


def test_a_libmagic_that_cannot_be_used_is_reported(tmp_path: Path) -> None:
    """Without a library, or with a database that is none, the child says which, and goes on."""
    assert run(ASK, LIBRARIES="none") == ["library"]
    assert run(ASK, LIBRARIES="all", MAGIC=str(tmp_path / "missing.mgc")) == ["database"]


@pytest.mark.parametrize(
    "said, hint",
    [("library", "install libmagic1"), ("database", "database"), ("\x1b[1m", "within its limits")],
)
async def test_without_libmagic_signatures_still_work(
    sniffer: MagicSniffer, monkeypatch: pytest.MonkeyPatch, said: str, hint: str
) -> None:
    """Documents are still recognised, `check` says what to install, and repeats nothing odd."""

    async def refused(head: bytes, *, sender: str) -> str:
        raise ContentRefusedError(said)

    monkeypatch.setattr(sniffer._sandbox, "sniff", refused)
    with pytest.raises(UnavailableError, match=hint):
        await sniffer.check()
    assert await sniffer.sniff(b"GIF89a") == UNKNOWN
    assert await sniffer.sniff(b"%PDF-1.7") == "application/pdf"


async def test_a_child_that_lies_names_no_type(
    sniffer: MagicSniffer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is no media type goes into no answer, whoever took the child over."""

    async def lying(head: bytes, *, sender: str) -> str:
        return "text/html<script>"

    monkeypatch.setattr(sniffer._sandbox, "sniff", lying)
    assert await sniffer.sniff(b"GIF89a") == UNKNOWN


def test_the_process_that_holds_keys_reads_no_hostile_bytes_by_a_library() -> None:
    """After libmagic named a type, neither it nor another reader is loaded beside the keys."""
    assert run(LOADED) == ["image/gif", "nothing", "False"]


async def test_what_the_table_knows_asks_no_child(sandbox: SandboxedChildren) -> None:
    """Scans and faxes that their signature names cost no round trip: no child is started."""
    sniffer = MagicSniffer(sandbox)
    for sample in SAMPLES.iterdir():
        await sniffer.sniff(sample.read_bytes()[:HEAD_BYTES])
    assert sandbox._idle == [None, None]
