"""`portvault put` and `get`: nothing half stays behind, and a terminal sees progress alone."""

import asyncio
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.command_line import LETTER, UNKNOWN, answering, get, one_line, scan_of, token_of
from tests.fixtures_process import VaultProcess
from vault.commands.documents import request_key


async def test_an_altered_object_leaves_no_file(
    vault_process: VaultProcess, tmp_path: Path
) -> None:
    """When the stored bytes were tampered with at their end, `get` keeps nothing of the rest."""
    vault = vault_process
    token = await token_of(vault, "porting")
    _, document = await scan_of(vault, token)
    (stored,) = [path for path in (vault.home / "objects").rglob(document) if path.is_file()]
    raw = bytearray(stored.read_bytes())
    raw[-20] ^= 1
    stored.write_bytes(raw)
    target = tmp_path / "out" / "scan.jpg"
    target.parent.mkdir()
    status, out, says = await vault.run(*get(document, target), **token)
    assert (status, out) == (5, "")
    assert one_line(says)
    assert list(target.parent.iterdir()) == []


async def test_a_file_that_is_there_is_replaced_only_by_a_whole_one(
    vault_process: VaultProcess, tmp_path: Path
) -> None:
    """An answer that is cut leaves the earlier file; a `.partial` in the way is named."""
    target = tmp_path / "scan.jpg"
    target.write_bytes(b"earlier")
    cut = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + bytes(500)
    async with answering(cut) as variables:
        status, _, says = await vault_process.run(*get(UNKNOWN, target), **variables)
        assert (status, one_line(says)) == (5, True)
        assert [path.name for path in tmp_path.glob("scan*")] == ["scan.jpg"]
        part = tmp_path / "scan.jpg.partial"
        part.write_bytes(b"another's")
        status, _, says = await vault_process.run(*get(UNKNOWN, target), **variables)
        assert (status, "remove it" in says) == (1, True)
    assert (target.read_bytes(), part.read_bytes()) == (b"earlier", b"another's")


@pytest.mark.parametrize(
    "number, expected", [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
async def test_a_read_that_is_stopped_leaves_no_file(
    vault_process: VaultProcess, tmp_path: Path, number: int, expected: int
) -> None:
    """Ctrl-C, SIGTERM or the end of a terminal end `get`, and no half of a scan stays there."""
    half = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + bytes(500_000)
    async with answering(half, stay=True) as variables:
        process = await vault_process.command(*get(UNKNOWN, tmp_path / "scan.jpg"), **variables)
        part = tmp_path / "scan.jpg.partial"
        async with asyncio.timeout(30):
            while not part.exists() or not part.stat().st_size:
                await asyncio.sleep(0.02)
        process.send_signal(number)
        out, says = await process.communicate()
    assert (process.returncode, out, says) == (expected, b"", b"")
    assert list(tmp_path.glob("scan*")) == []


async def test_a_closed_pipe_is_quiet(vault_process: VaultProcess) -> None:
    """Whoever stops reading our output gets no complaint."""
    vault = vault_process
    token = await token_of(vault, "porting")
    _, document = await scan_of(vault, token)
    process = await vault.command("get", document, "--purpose", "verify-identity", **token)
    assert process.stdout is not None
    await process.stdout.read(10)
    process._transport.get_pipe_transport(1).close()  # type: ignore[attr-defined] # asyncio has no public way
    assert process.stderr is not None
    assert await process.stderr.read() == b""


def on_a_terminal(
    vault: VaultProcess, *arguments: str, **variables: str
) -> tuple[int, bytes, bytes]:
    """Run a command whose standard error is a terminal; return its status and both outputs."""
    outside, inside = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "vault.cli", *arguments],
        env={**vault.environment, **variables},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=inside,
    )
    os.close(inside)
    out, _ = process.communicate(timeout=60)
    says = b""
    # A terminal that nobody holds any more ends with an error instead of an end of file.
    while chunk := _read(outside):
        says += chunk
    os.close(outside)
    return process.returncode, out, says


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:
        return b""


async def test_progress_shows_on_a_terminal_alone(
    vault_process: VaultProcess, tmp_path: Path
) -> None:
    """`put` and `get` draw a bar that ends at 100 %, and keep standard output for the answer."""
    vault = vault_process
    token = await token_of(vault, "porting")
    order, _ = await scan_of(vault, token)
    put = ("put", str(LETTER), "--order", order, "--kind", "loa")
    status, out, says = await asyncio.to_thread(on_a_terminal, vault, *put, **token)
    document = out.decode().strip()
    assert (status, len(document)) == (0, 36)
    assert b"loa.pdf [##############################] 100 % of 131 KiB" in says
    assert b"accepted as application/pdf, 134884 bytes, kept " in says
    read = get(document, tmp_path / "letter.pdf")
    status, out, says = await asyncio.to_thread(on_a_terminal, vault, *read, **token)
    assert (status, b"100 %" in says) == (0, True)
    wrong = ("put", str(LETTER), "--order", UNKNOWN, "--kind", "loa")
    status, out, says = await asyncio.to_thread(on_a_terminal, vault, *wrong, **token)
    last = says.replace(b"\r\n", b"\n").splitlines()[-1]
    assert (status, out, last.startswith(b"portvault: ")) == (3, b"", True)


async def test_of_many_files_each_has_its_result_and_one_that_fails_stops_none(
    vault_process: VaultProcess, tmp_path: Path
) -> None:
    """A line a file, with its id where it was taken; the status says that not all were."""
    vault, token = vault_process, await token_of(vault_process, "porting")
    order, _ = await scan_of(vault, token)
    text = tmp_path / "notes.txt"
    text.write_text("no letter")
    files = (str(LETTER), str(tmp_path / "none.pdf"), str(text), str(LETTER))
    status, out, says = await vault.run(
        "put", *files, "--order", order, "--kind", "loa", "--digest", **token
    )
    first, missing, refused, last = out.splitlines()
    assert (status, one_line(says)) == (1, True)
    assert "2 of 4 files were not accepted; of those alone" in says
    assert [line[:6] for line in (missing, refused)] == ["failed", "failed"]
    assert "No such file" in missing
    assert "notes.txt: " in refused
    for line, said in ((first, "accepted"), (last, "was there already")):
        assert f"loa.pdf: {said} as application/pdf" in line
        assert "digest checked, kept " in line
        shown = await vault.json("show", line[:36], **token)
        assert "digest" not in shown


async def test_a_run_that_is_started_again_makes_no_doubles(
    vault_process: VaultProcess, tmp_path: Path
) -> None:
    """The same file, name, order and kind are one document, whose content counts; until --again."""
    vault, token = vault_process, await token_of(vault_process, "porting")
    order, _ = await scan_of(vault, token)
    other = tmp_path / "other.pdf"
    put = ("put", str(LETTER), str(other), "--order", order, "--kind", "loa")

    async def ids(*more: str) -> list[str]:
        _, out, _ = await vault.run(*put, *more, **token)
        return [line[:36] for line in out.splitlines()]

    # As a run that was cut after the first of two files leaves it.
    first, _ = await ids()
    other.write_bytes(LETTER.read_bytes() + b"\n")
    _, out, _ = await vault.run(*put, **token)
    again = [line[:36] for line in out.splitlines()]
    said = ["was there already" in line for line in out.splitlines()]
    assert (again[0], said) == (first, [True, False])
    found = await vault.json(*put, **token)
    assert [item["document"]["id"] for item in found] == again
    assert [item["result"] for item in found] == ["was there already"] * 2
    shown = await vault.json("order", "show", order, **token)
    assert {item["id"] for item in shown["documents"] if item["kind"] == "loa"} == set(again)
    other.write_bytes(LETTER.read_bytes() + b"\n\n")
    corrected = await ids()
    assert (corrected[0], corrected[1] in again) == (first, False)
    assert not set(await ids("--again")) & {*again, *corrected}
    keys = {request_key("pv_a", put, "x", b"1") for put in ("a", "b")}
    keys |= {request_key("pv_b", "a", "x", b"1"), request_key("pv_a", "a", "y", b"1")}
    assert len(keys) == 4, "it says nothing without the token"


async def test_a_file_that_could_not_be_taken_is_sent_again_under_one_key(
    vault_process: VaultProcess,
) -> None:
    """Three times, whole each time, so that a vault which took it keeps it once."""
    sent = list[tuple[str, int]]()

    async def refuse(request: web.Request) -> web.Response:
        sent.append((request.headers["Idempotency-Key"], len(await request.read())))
        problem = {"detail": "records cannot be written", "title": "Not now", "status": 503}
        return web.json_response(problem, status=503, content_type="application/problem+json")

    app = web.Application()
    app.router.add_post("/{path:.*}", refuse)
    async with TestServer(app) as server:
        variables = {"PORTVAULT_SERVER": str(server.make_url("")), "PORTVAULT_TOKEN": "pv_x"}
        put = ("put", str(LETTER), "--order", UNKNOWN, "--kind", "loa")
        status, out, says = await vault_process.run(*put, **variables)
    assert (status, out, one_line(says)) == (5, "", True)
    assert len(sent) == 3
    assert len(set(sent)) == 1
    assert sent[0][1] == LETTER.stat().st_size


@pytest.mark.parametrize("output", [(), ("-o", "-")])
async def test_content_is_not_poured_into_a_terminal(
    vault_process: VaultProcess, output: tuple[str, ...]
) -> None:
    """Without a file, on a terminal, `get` refuses before it asks for anything."""
    outside, inside = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *(
            sys.executable,
            "-m",
            "vault.cli",
            "get",
            UNKNOWN,
            "--purpose",
            "verify-identity",
            *output,
        ),
        env={**vault_process.environment, "PORTVAULT_TOKEN": "pv_x"},
        stdout=inside,
        stderr=asyncio.subprocess.PIPE,
        stdin=asyncio.subprocess.DEVNULL,
    )
    os.close(inside)
    _, says = await process.communicate()
    assert await asyncio.to_thread(_read, outside) == b""
    os.close(outside)
    assert (process.returncode, b"-o FILE" in says) == (1, True)


async def test_files_that_all_wait_for_a_part_have_its_status(
    vault_process: VaultProcess, tmp_path: Path
) -> None:
    """Two files that the vault cannot take for now end with 5, as one does; a lost file with 1."""
    down = b'{"type": "urn:portvault:problem:unavailable", "detail": "away"}'
    answer = b"HTTP/1.1 503 No\r\nContent-Type: application/problem+json\r\n"
    answer += b"Connection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(down), down)
    async with answering(answer) as variables:
        put = ("put", "--order", UNKNOWN, "--kind", "passport")
        for files, expected in (
            ((LETTER,), 5),
            ((LETTER, LETTER), 5),
            ((LETTER, tmp_path / "none"), 1),
        ):
            status, _, _ = await vault_process.run(*put, *map(str, files), **variables)
            assert status == expected
