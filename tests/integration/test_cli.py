"""`portvault` as the README uses it, on a served vault: what it prints, and how it exits."""

import asyncio
import json
import signal
from pathlib import Path

import pytest

from tests.command_line import (
    LETTER,
    NUMBER,
    SCAN,
    UNKNOWN,
    answering,
    get,
    one_line,
    scan_of,
    token_of,
)
from tests.fixtures_process import VaultProcess


async def test_the_readmes_walk(vault_process: VaultProcess, tmp_path: Path) -> None:
    """Open an order, put a scan, read it, shred it, seal, certify, and verify the log; in JSON."""
    run, vault = vault_process.json, vault_process
    made = await run("token", "create", "--role", "porting", "--region", "uk")
    token = {"PORTVAULT_TOKEN": made["token"]}
    order, document = await scan_of(vault, token)
    target = tmp_path / "scan.jpg"
    read = get(document, target)
    assert await run(*read, **token) == {"file": str(target), "size_bytes": SCAN.stat().st_size}
    assert target.read_bytes() == SCAN.read_bytes()
    assert target.stat().st_mode & 0o777 == 0o600
    assert (await run("show", document, **token))["filename"] == SCAN.name
    assert [o["id"] for o in await run("order", "list", **token)] == [order]
    await run("shred", document, "--reason", "test", **token)
    status, _, says = await vault.run(*read, **token)
    assert (status, says) == (3, "portvault: The document was shredded.\n")
    (sealed,) = await run("keys", "seal", "--force")
    assert sealed["new_generation"] > sealed["old_generation"]
    assert (await run("keys", "status"))[0]["generation"] >= sealed["new_generation"]
    assert (await run("order", "move", order, "submitted", **token))["status"] == "submitted"
    status, _, says = await vault.run("order", "move", order, "draft", **token)
    assert (status, says.count("\n"), "submitted" in says) == (1, 1, True)
    assert (await run("order", "complete", order, **token))["status"] == "ported"
    assert (await run("order", "show", order, **token))["documents"][0]["id"] == document
    assert (await run("log", "verify"))["uk"]["intact"]
    assert {row["verdict"] for row in await run("doctor")} <= {"ok", "warn"}
    assert await run("migrate") == {"applied": []}
    assert (await run("config"))["regions"] == ["uk"]
    records = await run(
        "log", "tail", "--document", document, **await token_of(vault, "compliance")
    )
    assert {"document.ingest", "document.read", "document.shred"} <= {r["action"] for r in records}
    async with asyncio.timeout(30):
        while (await vault.run("certificate", document, **token))[0]:
            await asyncio.sleep(0.1)
    assert document in (await run("certificate", document, **token))["note"]
    assert (await run("token", "revoke", made["id"]))["revoked"]
    revoked = {row["id"]: row["revoked_at"] for row in await run("token", "list")}
    assert revoked[made["id"]]


async def test_text_is_for_scripts_and_people(vault_process: VaultProcess) -> None:
    """Without `--json`, what makes a thing prints its token or id alone, and shows are readable."""
    vault = vault_process
    make = ("token", "create", "--role", "porting", "--region", "uk")
    status, out, says = await vault.run(*make)
    assert (status, out.count("\n"), says) == (0, 1, "")
    token = {"PORTVAULT_TOKEN": out.strip()}
    create = ("order", "create", "--region", "uk", "--customer", "acme", *NUMBER)
    _, out, _ = await vault.run(*create, "--reference", "R-1", **token)
    order = out.strip()
    put = ("put", str(LETTER), "--order", order, "--kind", "loa", "--digest")
    _, out, says = await vault.run(*put, **token)
    document = out.strip()
    assert (len(document), says) == (36, "")
    _, out, _ = await vault.run("order", "show", order, **token)
    for word in ("+442079460***", "R-1", document, "loa"):
        assert word in out
    status, out, _ = await vault.run(
        "get", document, "--purpose", "submit-to-carrier", "--json", **token
    )
    assert (status, out) == (1, "")
    process = await vault.command("get", document, "--purpose", "submit-to-carrier", **token)
    content, _ = await process.communicate()
    assert content == LETTER.read_bytes()
    for command in (("keys", "status"), ("token", "list"), ("log", "verify"), ("doctor",)):
        status, out, says = await vault.run(*command)
        assert (status, says, out.strip() != "") == (0, "", True)


async def test_errors_are_one_line_with_their_status(
    vault_process: VaultProcess, tmp_path: Path
) -> None:
    """Whatever is wrong is one line on standard error, and each kind has its exit status."""
    vault = vault_process
    token = await token_of(vault, "porting")
    other = await token_of(vault, "compliance")
    order, document = await scan_of(vault, token)
    ended, _ = await scan_of(vault, token)
    await vault.json("order", "complete", ended, **token)
    target, wrong = tmp_path / "scan.jpg", {"PORTVAULT_TOKEN": "pv_wrong"}
    program = tmp_path / "scan.exe"
    program.write_bytes(b"MZ\x90\x00" + bytes(5_000_000))
    liar = tmp_path / "letter.jpg"
    liar.write_bytes(LETTER.read_bytes())
    database = {"PORTVAULT_DATABASE": "postgresql://x@127.0.0.1:1/x"}
    absent = {"PORTVAULT_SERVER": "http://[::1]:1"}
    put = ("--order", order, "--kind", "passport")
    cases: tuple[tuple[int, str, tuple[str, ...], dict[str, str]], ...] = (
        (4, "unknown, expired", ("order", "list"), wrong),
        (4, "unknown, expired", ("order", "list"), {"PORTVAULT_TOKEN": "no-token-at-all"}),
        (4, "", get(document, target), other),
        (3, "", ("show", UNKNOWN), token),
        (1, "once it was shredded and sealed", ("certificate", document), token),
        (3, "", ("certificate", UNKNOWN), token),
        (3, "token", ("token", "revoke", UNKNOWN), {}),
        (1, "token create", ("order", "list"), {}),
        (1, "token file", ("order", "list"), {"PORTVAULT_TOKEN_FILE": str(tmp_path / "none")}),
        (1, "copy it again", ("order", "list"), {"PORTVAULT_TOKEN": "pv_a\npv_b"}),
        (5, "portvault serve", ("order", "list"), token | absent),
        (1, "https://vault.example", ("order", "list"), token | {"PORTVAULT_SERVER": "host:1/x"}),
        (1, "spelling", ("config",), {"PORTVAULT_PROT": "1"}),
        (5, "PORTVAULT_DATABASE", ("token", "list"), database),
        (5, "PORTVAULT_DATABASE", ("migrate",), database),
        (5, "PORTVAULT_DATABASE", ("serve",), database),
        (
            4,
            "",
            ("get", document, "--purpose", "disclose-to-authority", "--reference", "C-7"),
            token,
        ),
        (1, "No such file", ("put", str(tmp_path / "none.jpg"), *put), token),
        (1, "not a file", ("put", str(tmp_path), *put), token),
        (1, "application/pdf", ("put", str(program), *put), token),
        (1, ".jpg says otherwise", ("put", str(liar), *put), token),
        (1, "cannot become", ("order", "cancel", ended), token),
    )
    for expected, word, arguments, variables in cases:
        status, out, says = await vault.run(*arguments, **variables)
        assert (status, out) == (expected, ""), (arguments, says)
        assert one_line(says), (arguments, says)
        assert word in says, (arguments, says)
    assert list(tmp_path.glob("*.partial")) == []
    assert not target.exists()


async def test_an_order_that_was_cancelled_reopens_for_nobody(vault_process: VaultProcess) -> None:
    """Cancelling twice is no error; a ported order is not reversed in order to cancel it."""
    vault = vault_process
    token = await token_of(vault, "porting")
    order, _ = await scan_of(vault, token)
    for _ in range(2):
        assert (await vault.json("order", "cancel", order, **token))["status"] == "cancelled"
    ported, _ = await scan_of(vault, token)
    await vault.json("order", "complete", ported, **token)
    status, _, says = await vault.run("order", "cancel", ported, **token)
    assert (status, one_line(says)) == (1, True)
    assert (await vault.json("order", "show", ported, **token))["status"] == "ported"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nhi",
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 502 Bad\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nhi",
        b"HTTP/1.1 404 No\r\nContent-Type: application/problem+json\r\nContent-Length: 2\r\n\r\n[]",
        b"nonsense\r\n\r\n",
        b"",
    ],
)
async def test_what_is_no_vault_is_told_apart(vault_process: VaultProcess, answer: bytes) -> None:
    """Another server, a redirect or noise behind the address is one line, and 5."""
    async with answering(answer) as variables:
        status, out, says = await vault_process.run("order", "list", **variables)
    assert (status, out, one_line(says)) == (5, "", True)


async def test_the_log_is_followed_in_lines(vault_process: VaultProcess) -> None:
    """`log tail --follow --json` prints each new record once, a line each, and none of its own."""
    vault = vault_process
    token = await token_of(vault, "porting")
    _, document = await scan_of(vault, token)
    follow = ("log", "tail", "--follow", "--interval", "0.2", "--limit", "5", "--json")
    process = await vault.command(*follow, **await token_of(vault, "compliance"))
    assert process.stdout is not None
    records = []
    async with asyncio.timeout(30):
        records.append(json.loads(await process.stdout.readline()))
        for reason in ("first", "second"):
            await vault.run("show", document, **token)
            while [r["action"] for r in records].count("document.describe") < (
                2 if reason == "first" else 4
            ):
                records.append(json.loads(await process.stdout.readline()))
    process.send_signal(signal.SIGINT)
    _, says = await process.communicate()
    assert (process.returncode, says) == (130, b"")
    assert len({record["id"] for record in records}) == len(records)
    assert "log.read" not in {record["action"] for record in records}
