"""HylaFAX hands faxes over through its own scripts, whatever callers say and whoever is away."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.command_line import token_of
from tests.fixtures_process import VaultProcess
from tests.fixtures_spool import FaxServer, HylaFax

CALLED = "+442079460123"
HOSTILE = (
    "$(touch pwned)",
    "`touch pwned`; touch pwned",
    "'; touch pwned; '",
    "--region=hk",
    "-h",
    "+44 20 7946 0999\r\nBcc: x@example.com",
    "\x1b[2J\u202e",
    "A" * 5000,
)


@pytest.fixture
async def vault(tmp_path: Path) -> AsyncIterator[VaultProcess]:
    """Serve a vault."""
    made = VaultProcess(tmp_path / "home", fax_retry_seconds="1")
    await made.start()
    yield made
    if made.process is not None and made.process.poll() is None:
        await made.stop()


async def test_the_hook_hands_over_and_only_then_removes(
    vault: VaultProcess, hylafax: HylaFax, fax: bytes
) -> None:
    """Taken, repeated, refused, hostile, away and drained: HylaFAX's file goes when it is safe."""
    token = await token_of(vault, "fax-gateway")
    secret = token["PORTVAULT_TOKEN"]

    path = hylafax.receive(fax)
    status, said = await hylafax.faxrcvd(vault, secret, path, "020 7946 0999", "Alice", CALLED)
    assert status == 0, said
    assert not path.exists()
    (taken,) = await vault.json("fax", "list", **token)
    assert (taken["state"], taken["to_masked"]) == ("received", "+442079460***")
    assert taken["from_masked"] is None, "a national number is no E.164, and is not kept"
    assert taken["facts"]["commid"] == "000000007"

    # A crash between the vault's answer and the removal: HylaFAX runs the hook again.
    path = hylafax.receive(fax, "fax00002.tif")
    command = (
        "fax",
        "received",
        "--to",
        CALLED,
        str(path),
        "ttyS0",
        "8",
        "",
        "+442079460999",
    )
    first, again = [await vault.json(*command, **token) for _ in range(2)]
    assert first["id"] == again["id"]
    assert first["from_masked"] == "+442079460***"

    for number, hostile in enumerate(HOSTILE):
        path = hylafax.receive(fax, f"fax1{number:04}.tif")
        status, said = await hylafax.faxrcvd(
            vault, secret, path, hostile, hostile, CALLED, commid=f"9{number}"
        )
        assert status == 0, said
        assert not path.exists(), hostile
    assert not list(hylafax.spool.rglob("pwned"))
    listed = await vault.json("fax", "list", **token)
    assert len(listed) == 2 + len(HOSTILE)
    assert all(one["from_masked"] in (None, "+442079460***") for one in listed)

    broken = hylafax.receive(fax[:20_000], "fax20001.tif")
    await hylafax.faxrcvd(vault, secret, broken, "", "", CALLED)
    assert broken.exists(), "what the vault refuses stays with HylaFAX"
    assert not list(hylafax.spool.glob("recvq/*.portvault"))

    await vault.stop()
    waiting = hylafax.receive(fax, "fax30001.tif")
    await hylafax.faxrcvd(vault, secret, waiting, "private", "", CALLED, commid="31")
    assert waiting.exists()
    (note,) = hylafax.spool.glob("recvq/*.portvault")
    assert note.stat().st_mode & 0o777 == 0o600
    status, _, _ = await vault.run("fax", "drain", str(hylafax.spool / "recvq"), **token)
    assert status == 5
    assert waiting.exists()
    await vault.start()
    done = await vault.json("fax", "drain", str(hylafax.spool / "recvq"), **token)
    assert len(done["taken"]) == 1
    assert not waiting.exists()
    assert not list(hylafax.spool.glob("recvq/*.portvault"))
    shown = await vault.json("fax", "show", done["taken"][0], **token)
    assert (shown["from_masked"], shown["facts"]["commid"]) == (None, "31")


async def test_what_is_not_taken_for_now_waits_for_the_drain(
    vault: VaultProcess, hylafax: HylaFax, fax: bytes
) -> None:
    """A token that is no good, or no gateway's, leaves a note too, and a good one drains it."""
    wrong = ["pv_wrong", (await token_of(vault, "porting"))["PORTVAULT_TOKEN"]]
    for number, secret in enumerate(wrong):
        path = hylafax.receive(fax, f"fax4000{number}.tif")
        await hylafax.faxrcvd(vault, secret, path, "", "", CALLED, commid=f"4{number}")
        assert path.exists()
    assert len(list(hylafax.spool.glob("recvq/*.portvault"))) == len(wrong)
    token = await token_of(vault, "fax-gateway")
    done = await vault.json("fax", "drain", str(hylafax.spool / "recvq"), **token)
    assert len(done["taken"]) == len(wrong)


@pytest.mark.parametrize("status", [409, 422, 429, 500, 503])
async def test_what_the_far_end_answers_decides_whether_it_is_tried_again(
    vault: VaultProcess, hylafax: HylaFax, fax: bytes, status: int
) -> None:
    """A conflict, a limit or a fault leaves a note and the fax; a refusal the fax alone."""
    token = await token_of(vault, "fax-gateway")

    async def answer(_: web.Request) -> web.Response:
        problem = "application/problem+json"
        return web.json_response({"detail": "not now"}, status=status, content_type=problem)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    async with TestServer(app) as far:
        path = hylafax.receive(fax, "fax50001.tif")
        command = ("fax", "received", "--to", CALLED, "--", str(path), "ttyS0", "5", "")
        there = {"PORTVAULT_SERVER": f"http://127.0.0.1:{far.port}"}
        exit_status, _, says = await vault.run(*command, **token, **there)
    assert (exit_status != 0, "not now" in says) == (True, True)
    assert path.exists()
    notes = list(hylafax.spool.glob("recvq/*.portvault"))
    assert len(notes) == (0 if status == 422 else 1)
    if notes:
        done = await vault.json("fax", "drain", str(hylafax.spool / "recvq"), **token)
        assert len(done["taken"]) == 1
        assert not path.exists()


async def test_a_link_in_the_queue_is_not_followed(
    vault: VaultProcess, hylafax: HylaFax, tmp_path: Path, fax: bytes
) -> None:
    """Whoever may write into the queue cannot have another file sent."""
    token = await token_of(vault, "fax-gateway")
    other = tmp_path / "other.tif"
    other.write_bytes(fax)
    link = hylafax.spool / "recvq" / "fax00001.tif"
    link.symlink_to(other)
    command = ("fax", "received", "--to", CALLED, "--", str(link), "ttyS0", "1", "")
    status, _, _ = await vault.run(*command, **token)
    assert status == 1
    assert await vault.json("fax", "list", **token) == []


async def outgoing(vault: VaultProcess, token: dict[str, str], fax: bytes) -> str:
    """Have a fax wait to be sent, and return its id."""
    headers = {"Authorization": f"Bearer {token['PORTVAULT_TOKEN']}"}
    query = {"direction": "outbound", "to": CALLED}
    async with (
        aiohttp.ClientSession(vault.url, headers=headers) as http,
        http.post("/v1/faxes", params=query, data=fax) as response,
    ):
        assert response.status == 201
        identity: str = (await response.json())["id"]
        return identity


async def test_a_fax_that_cannot_be_fetched_holds_up_no_other(
    vault: VaultProcess, tmp_path: Path, fax: bytes
) -> None:
    """The oldest has lost its object: it is named, and those behind it are sent."""
    token = await token_of(vault, "fax-gateway")
    lost, sound = [await outgoing(vault, token, fax) for _ in range(2)]
    (stored,) = (tmp_path / "home").rglob(f"documents/{lost}")
    stored.unlink()
    status, _, says = await vault.run("fax", "outbound", "--sendfax", "true", **token)
    assert (status, lost in says, sound in says) == (1, True, False)
    assert (await vault.json("fax", "show", sound, **token))["state"] == "delivered"


async def test_outbound_faxes_go_into_hylafaxs_queue(
    vault: VaultProcess, fax_server: FaxServer, fax: bytes
) -> None:
    """The real sendfax queues each once, with its number and id; one it refuses waits here."""
    token = await token_of(vault, "fax-gateway")
    identity = await outgoing(vault, token, fax)
    status, _, says = await vault.run("fax", "outbound", "--sendfax", "false", **token)
    assert (status, "are tried again" in says) == (1, True)
    waiting = await vault.json("fax", "show", identity, **token)
    assert (waiting["state"], waiting["attempts"]) == ("queued", 1)
    await asyncio.sleep(1.1)
    server = {"FAXSERVER": "localhost", "FAXSERVICE": str(fax_server.port)}
    sent = await vault.json("fax", "outbound", **token, **server)
    assert sent == {"sent": [identity], "failed": []}
    (job,) = fax_server.jobs()
    assert (job["external"], job["jobtag"]) == (CALLED, identity)
    (document,) = (fax_server.spool / "docq").glob("doc*")
    assert document.read_bytes() == fax
    receipt = await vault.json("fax", "show", identity, **token)
    assert (receipt["state"], receipt["custody"] != "stored") == ("delivered", True)
    assert receipt["result"].startswith("request id is")
    assert await vault.json("fax", "outbound", **token, **server) == {"sent": [], "failed": []}


async def test_two_runs_at_once_hand_each_fax_over_once(
    vault: VaultProcess, fax_server: FaxServer, fax: bytes
) -> None:
    """However many runs overlap, a fax is one job; the others leave it alone and end well."""
    token = await token_of(vault, "fax-gateway")
    faxes = [await outgoing(vault, token, fax) for _ in range(3)]
    server = {"FAXSERVER": "localhost", "FAXSERVICE": str(fax_server.port)}
    runs = await asyncio.gather(
        *(vault.json("fax", "outbound", **token, **server) for _ in range(3))
    )
    assert sorted(fax for run in runs for fax in run["sent"]) == sorted(faxes)
    assert [run["failed"] for run in runs] == [[], [], []]
    assert sorted(job["jobtag"] for job in fax_server.jobs()) == sorted(faxes)


async def test_a_fax_that_has_ended_is_not_kept_by_the_hook_for_ever(
    vault: VaultProcess, hylafax: HylaFax, fax: bytes
) -> None:
    """The hook that runs again after its fax was delivered gets the receipt, and no note stays."""
    token = await token_of(vault, "fax-gateway")
    path = hylafax.receive(fax, "fax60001.tif")
    command = ("fax", "received", "--to", CALLED, str(path), "ttyS0", "61", "")
    first = await vault.json(*command, **token)
    async with aiohttp.ClientSession() as http:
        secret = {"Authorization": f"Bearer {token['PORTVAULT_TOKEN']}"}
        target = f"{vault.url}/v1/faxes/{first['id']}/actions/deliver"
        async with http.post(target, headers=secret) as answer:
            assert answer.status == 200
    again = await vault.json(*command, **token)
    assert (again["id"], again["state"]) == (first["id"], "delivered")
    assert not list(hylafax.spool.glob("recvq/*.portvault"))
