"""The sniffer on a real libmagic: what it names, what it survives, and what is said without it."""

import asyncio
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from vault.adapters.sniffer import UNKNOWN, MagicSniffer
from vault.domain.media import HEAD_BYTES

SAMPLES = Path(__file__).parents[1] / "samples"
ROOT = Path(__file__).parents[2]

# Asks in a process of its own, since a loaded libmagic stays; LIBRARIES says which may be loaded.
ASK = """
import asyncio, ctypes, ctypes.util, os
libraries = os.environ["LIBRARIES"]
load = ctypes.CDLL.__init__
def only(self, name, *rest, **options):
    if "magic" in str(name) and (libraries == "none" or "pylibmagic" not in str(name)):
        raise OSError("cannot open shared object file")
    load(self, name, *rest, **options)
if libraries != "all":
    ctypes.CDLL.__init__ = only
    ctypes.util.find_library = lambda name: None
from vault.adapters.sniffer import MagicSniffer
from vault.errors import UnavailableError
async def ask():
    sniffer = MagicSniffer()
    try:
        await sniffer.check()
        print("usable")
    except UnavailableError as error:
        print(error)
    print(await sniffer.sniff(b"GIF89a" + bytes(64)), await sniffer.sniff(b"%PDF-1.7"))
    sniffer.close()
asyncio.run(ask())
"""


@pytest.fixture
def sniffer():
    """Open a sniffer on this machine's libmagic."""
    opened = MagicSniffer()
    yield opened
    opened.close()


def ask(libraries: str, **variables: str) -> list[str]:
    """Return what a process that may load only these libraries says."""
    environment = {**os.environ, "LIBRARIES": libraries, **variables}
    done = subprocess.run(
        [sys.executable, "-c", ASK],
        check=True,
        capture_output=True,
        text=True,
        env=environment,
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
    heads += [chance.randbytes(chance.randrange(HEAD_BYTES + 1)) for _ in range(300)]
    for sample in SAMPLES.iterdir():
        whole = sample.read_bytes()[:HEAD_BYTES]
        heads += [whole[1:], whole[:5], whole[::-1]]
    answers = await asyncio.gather(*(sniffer.sniff(head) for head in heads))
    assert all("/" in answer for answer in answers)


async def test_many_at_once_do_not_mix(sniffer: MagicSniffer) -> None:
    """Threads share no handle: each caller gets the answer to its own bytes."""
    heads = {b"GIF89a" + bytes(64): "image/gif", b"<!DOCTYPE html><html>": "text/html"}
    asked = list(heads) * 200
    answers = await asyncio.gather(*(sniffer.sniff(head) for head in asked))
    assert answers == [heads[head] for head in asked]


def test_the_bundled_libmagic_serves_where_the_system_has_none() -> None:
    """On a machine without libmagic, the one of pylibmagic is used."""
    assert ask("bundled") == ["usable", "image/gif application/pdf"]


def test_without_any_libmagic_signatures_still_work() -> None:
    """Documents are still recognised, and `check` says what to install."""
    says, answers = ask("none")
    assert "install libmagic1" in says
    assert answers == f"{UNKNOWN} application/pdf"


def test_a_libmagic_without_its_database_is_reported(tmp_path: Path) -> None:
    """A database that cannot be used is an error that says what to do, not a crash."""
    says, answers = ask("all", MAGIC=str(tmp_path / "missing.mgc"))
    assert "database" in says
    assert answers == f"{UNKNOWN} application/pdf"
