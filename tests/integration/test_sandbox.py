"""The sandboxed child: what it may not, and that a child that hangs or dies costs no fax."""

import asyncio
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fixtures_telefax import tiff
from vault.adapters.sandbox import SandboxedChildren
from vault.domain.documents import PDF, TIFF
from vault.errors import ContentRefusedError, UnavailableError
from vault.sandbox import frames

TRY = """
import ctypes, socket, sys
from vault.sandbox import child, confine
child.limit(1 << 30)
for name, attempt in (
    ("read", lambda: open("/etc/passwd").read()),
    ("write", lambda: open("/tmp/sandbox-wrote-this", "w").write("x")),
    ("connect", lambda: socket.create_connection(("127.0.0.1", int(sys.argv[1])), 2)),
):
    try:
        attempt()
        print(name)
    except OSError:
        pass
print("landlock" if confine.leave_outside(ctypes.CDLL(None)) else "no landlock")
"""

READER = """
import os, socket, sys
from vault.sandbox import child
if os.getuid() == 0 and sys.argv[1] != "0":
    os.setgroups([])
    os.setgid(int(sys.argv[1]))
    os.setuid(int(sys.argv[1]))
child.limit(1 << 30)
above = os.getpid()
done = os.fork()
if done:
    os.waitpid(done, 0)
    sys.exit()
child.limit_reader(5)
for name, attempt in (
    ("file", lambda: os.open("/dev/null", os.O_RDONLY)),
    ("tcp", lambda: socket.socket()),
    ("udp", lambda: socket.socket(type=socket.SOCK_DGRAM)),
    ("unix", lambda: socket.socket(socket.AF_UNIX)),
    ("pipe", os.pipe),
    ("signal", lambda: os.kill(above, 0)),
    ("fork", lambda: os.fork() or os._exit(0)),
):
    try:
        attempt()
        print(name, flush=True)
    except OSError:
        pass
"""
LIAR = """
import sys
from vault.sandbox import frames
_, _, size = frames.parse_question_head(sys.stdin.buffer.read(frames.QUESTION_BYTES))
sys.stdin.buffer.read(size)
sys.stdout.buffer.write(frames.answer(frames.DONE, bytes.fromhex(sys.argv[1])))
sys.stdout.buffer.flush()
sys.stdin.buffer.read()
"""
WAITING = """
import os, signal
from vault.sandbox import child
child.limit(1 << 30)
if os.fork() == 0:
    child.limit_reader(5)
    print(os.getpid(), flush=True)
signal.pause()
"""
VAULT = """
import os, signal
from vault.sandbox import child
if os.fork() == 0:
    child.limit(1 << 30)
    print(os.getpid(), flush=True)
signal.pause()
"""
CROWDED = """
import os, resource, sys
from vault.sandbox import child
if os.getuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
sys.argv[1:] = [str(1 << 30), "5"]
child.main()
"""
TWICE = """
import sys
from vault.sandbox import child, frames
once = frames.answer(frames.DONE, frames.facts(1, None))
child.answer = lambda *question: once + once
sys.argv[1:] = [str(1 << 30), "5"]
child.main()
"""
NOBODY = 65534
SIGNALS_SINCE = 6


@pytest.fixture
async def sandbox() -> AsyncIterator[SandboxedChildren]:
    """Give a sandbox of one child, which has some seconds for an answer, its own start included."""
    made = SandboxedChildren(processes=1, timeout_seconds=6.0, memory_bytes=1 << 30)
    yield made
    await made.close()


def child_of(sandbox: SandboxedChildren) -> int:
    child = sandbox._idle[-1]
    assert child is not None
    return child.pid


def children_of_this_process() -> list[int]:
    """Return the sandboxed children that this process has now."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            above = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            if above == os.getpid() and b"vault.sandbox.child" in (path / "cmdline").read_bytes():
                found.append(int(path.name))
    return found


def landlock_version() -> int:
    version: int = ctypes.CDLL(None).syscall(444, None, ctypes.c_size_t(0), 1)
    return version


def is_running(pid: int) -> bool:
    """Whether a process is there, and no mere entry that nobody has asked for yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def test_a_child_has_limits_and_nothing_to_give_away(sandbox: SandboxedChildren) -> None:
    """No environment, no core, no file that it could write, and so much memory."""
    await sandbox.check(tiff({}), TIFF, pages_max=1)
    place = Path(f"/proc/{child_of(sandbox)}")
    assert (place / "environ").read_bytes() == b""
    limits = (place / "limits").read_text()
    for name, value in (
        ("Max core file size", "0"),
        ("Max file size", "0"),
        ("Max open files", "32"),
        ("Max address space", str(1 << 30)),
    ):
        (line,) = [line for line in limits.splitlines() if line.startswith(name)]
        assert line.removeprefix(name).split()[:2] == [value, value]


async def test_a_child_reaches_no_file_and_no_peer() -> None:
    """Where the kernel can forbid it, nothing is read and nothing connected; nothing is written."""
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", TRY, str(port)],
        capture_output=True,
        text=True,
        check=False,
    )
    server.close()
    said = done.stdout.split("\n")
    assert (
        not Path("/tmp/sandbox-wrote-this").exists()
        or not Path("/tmp/sandbox-wrote-this").read_bytes()
    )
    if "landlock" in said:
        assert "read" not in said
        assert "write" not in said
        assert not Path("/tmp/sandbox-wrote-this").exists()
    for given_up in ("--net", "--user --net"):
        if subprocess.run(["unshare", *given_up.split(), "true"], check=False).returncode == 0:
            assert "connect" not in said


@pytest.mark.parametrize("account", [0, NOBODY])
def test_what_reads_a_pdf_can_open_nothing(account: int) -> None:
    """No file, connection or pipe, whoever runs it; no process, unless root does."""
    done = subprocess.run(
        [sys.executable, "-c", READER, str(account)], capture_output=True, text=True, check=True
    )
    allowed = {"fork"} if account == os.getuid() == 0 else set()
    if landlock_version() < SIGNALS_SINCE:
        allowed.add("signal")
    assert set(done.stdout.split()) == allowed


@pytest.mark.parametrize("above", [VAULT, WAITING], ids=["the vault", "its child"])
async def test_nothing_outlives_the_process_above_it(above: str) -> None:
    """A vault that is killed leaves no child, and a child leaves none that it forked for a PDF."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", above, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    below = int(await process.stdout.readline())
    assert is_running(below)
    process.kill()
    async with asyncio.timeout(30):
        await process.wait()
        while is_running(below):
            await asyncio.sleep(0.02)


async def test_a_child_has_no_capability(sandbox: SandboxedChildren) -> None:
    """Whoever started it, the child may nothing that a plain account may not, and gets no more."""
    await sandbox.check(tiff({}), TIFF, pages_max=1)
    lines = Path(f"/proc/{child_of(sandbox)}/status").read_text().splitlines()
    status = dict(line.split(":\t", 1) for line in lines)
    for name in ("CapInh", "CapPrm", "CapEff"):
        assert int(status[name], 16) == 0
    assert status["NoNewPrivs"] == "1"


async def test_a_child_has_its_three_pipes_and_nothing_else(sandbox: SandboxedChildren) -> None:
    """Nothing that this process has open is open in a child, nor a second end of its pipes."""
    with Path(__file__).open() as inherited:
        os.set_inheritable(inherited.fileno(), True)
        await sandbox.check(tiff({}), TIFF, pages_max=1)
        assert {path.name for path in Path(f"/proc/{child_of(sandbox)}/fd").iterdir()} == set("012")


def test_what_reads_a_pdf_cannot_answer_for_the_next_fax(authorisation: bytes) -> None:
    """One that was taken over and answers twice is a refusal, and nothing comes after it."""
    question = frames.question_head(frames.CHECK_PDF, 1, len(authorisation)) + authorisation
    done = subprocess.run(
        [sys.executable, "-c", TWICE], input=question, capture_output=True, check=True
    )
    letter, size = frames.parse_answer_head(done.stdout[: frames.ANSWER_BYTES])
    assert (letter, len(done.stdout)) == (frames.REFUSED, frames.ANSWER_BYTES + size)


def test_only_one_whole_answer_is_passed_on() -> None:
    """Nothing, a part of one, and more than one are none."""
    whole = frames.answer(frames.DONE, frames.facts(1, None))
    assert frames.is_whole(whole)
    for found in (b"", whole[:3], whole[:-1], whole + whole, frames.answer(frames.AWAY, b"")):
        assert not frames.is_whole(found)


async def test_a_child_that_hangs_or_dies_is_replaced(sandbox: SandboxedChildren) -> None:
    """A fax that finds a child stopped or dead is looked into by the next one."""
    for number in (signal.SIGKILL, signal.SIGSTOP):
        await sandbox.check(tiff({}), TIFF, pages_max=1)
        before = child_of(sandbox)
        subprocess.run(["kill", f"-{number.value}", str(before)], check=True)
        assert (await sandbox.check(tiff({}, {}), TIFF, pages_max=2)).pages == 2
        assert child_of(sandbox) != before


@pytest.mark.parametrize(
    "answer", [b"", b'{"pages": 1}', frames.facts(0, None), frames.facts(2, 9), b"\xff" * 9]
)
async def test_a_child_that_lies_is_not_believed(sandbox: SandboxedChildren, answer: bytes) -> None:
    """Whoever took a child over may say what it likes: it is a refusal, and goes no further."""
    sandbox._idle.pop()
    liar = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", LIAR, answer.hex()),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    sandbox._idle.append(liar)
    with pytest.raises(ContentRefusedError):
        await sandbox.check(tiff({}), TIFF, pages_max=1)


async def test_so_many_children_and_no_more() -> None:
    """Two children look into nine faxes at once, and each fax gets its own answer."""
    sandbox = SandboxedChildren(processes=2, timeout_seconds=20.0, memory_bytes=1 << 30)
    faxes = [tiff(*[{}] * pages) for pages in range(1, 10)]
    checked = await asyncio.gather(
        *(sandbox.check(fax, TIFF, pages_max=len(faxes)) for fax in faxes)
    )
    assert [found.pages for found in checked] == list(range(1, 10))
    assert len(children_of_this_process()) == 2
    await sandbox.close()
    assert not children_of_this_process()


async def test_who_is_cancelled_twice_gives_the_place_back() -> None:
    """A second cancellation, while the child is being ended, costs no place in the sandbox."""
    sandbox = SandboxedChildren(processes=1, timeout_seconds=3.0, memory_bytes=1 << 30)
    await sandbox.check(tiff({}), TIFF, pages_max=1)
    subprocess.run(["kill", f"-{signal.SIGSTOP.value}", str(child_of(sandbox))], check=True)
    asking = asyncio.create_task(sandbox.check(tiff({}), TIFF, pages_max=1))
    await asyncio.sleep(0.05)
    for _ in range(2):
        asking.cancel()
        await asyncio.sleep(0)
    await asyncio.wait([asking])
    assert asking.cancelled()
    assert (sandbox._places.free, len(sandbox._idle)) == (1, 1)
    assert (await sandbox.check(tiff({}), TIFF, pages_max=1)).pages == 1
    await sandbox.close()


async def test_who_stops_waiting_leaves_no_answer_to_the_next(sandbox: SandboxedChildren) -> None:
    """A question that was cancelled is not answered to somebody else."""
    await sandbox.check(tiff({}), TIFF, pages_max=1)
    subprocess.run(["kill", "-STOP", str(child_of(sandbox))], check=True)
    task = asyncio.create_task(sandbox.check(tiff({}), TIFF, pages_max=1))
    await asyncio.sleep(0.2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await sandbox.check(tiff({}, {}, {}), TIFF, pages_max=9)).pages == 3


async def test_what_the_machine_does_to_a_child_is_not_said_of_the_fax(
    sandbox: SandboxedChildren, authorisation: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fax whose children are killed from outside each time may come again, and is taken then."""
    start = sandbox._start

    async def start_killed() -> asyncio.subprocess.Process:
        child = await start()
        child.kill()
        return child

    monkeypatch.setattr(sandbox, "_start", start_killed)
    for content, media_type in ((tiff({}), TIFF), (authorisation, PDF)):
        with pytest.raises(UnavailableError):
            await sandbox.check(content, media_type, pages_max=1)
    monkeypatch.undo()
    assert (await sandbox.check(authorisation, PDF, pages_max=1)).pages == 1


def test_a_child_that_can_fork_no_more_says_nothing_of_the_fax(authorisation: bytes) -> None:
    """Where the machine has no room for one more process a PDF may come again; a TIFF is read."""
    questions = [
        frames.question_head(letter, 1, len(content)) + content
        for letter, content in ((frames.CHECK_PDF, authorisation), (frames.CHECK_TIFF, tiff({})))
    ]
    done = subprocess.run(
        [sys.executable, "-c", CROWDED], input=b"".join(questions), capture_output=True, check=True
    )
    away = frames.answer(frames.AWAY, b"")
    assert done.stdout.startswith(away)
    found, _ = frames.parse_answer_head(done.stdout.removeprefix(away)[: frames.ANSWER_BYTES])
    assert found == frames.DONE


async def test_what_no_child_can_read_is_refused(authorisation: bytes) -> None:
    """A file that takes more memory than a child may have is refused, and the next one is read."""
    small = SandboxedChildren(processes=1, timeout_seconds=20.0, memory_bytes=400 * 1024 * 1024)
    try:
        with pytest.raises(ContentRefusedError):
            await small.check(b"II*\0" + bytes(450 * 1024 * 1024), TIFF, pages_max=1)
        assert (await small.check(authorisation, PDF, pages_max=1)).pages == 1
    finally:
        await small.close()


async def test_a_mail_that_takes_for_ever_costs_its_sender_alone() -> None:
    """Python's parser takes the square of a header's length; it is ended, and the next is read."""
    sandbox = SandboxedChildren(processes=1, timeout_seconds=4.0, memory_bytes=1 << 30)
    whole = b"Content-Type: application/pdf\n\n%PDF-1.4\n"
    try:
        await sandbox.read_mail(whole, attachments_max=1)
        hostile = b'Content-Type: text/plain; a="' + b";" * 2_000_000 + b"\n\nx"
        with pytest.raises(ContentRefusedError, match="within the limits"):
            await sandbox.read_mail(hostile, attachments_max=1)
        assert (await sandbox.read_mail(whole, attachments_max=1)).faxes == (b"%PDF-1.4\n",)
    finally:
        await sandbox.close()
