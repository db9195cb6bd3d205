"""`portvault` as the README uses it, on a served vault: what it prints, and how it exits."""

from pathlib import Path

from tests.fixtures_process import VaultProcess

SCAN = Path(__file__).parents[1] / "samples" / "passport-uto.jpg"


async def test_the_readmes_walk(vault_process: VaultProcess, tmp_path: Path) -> None:
    """Open an order, put a scan, read it, shred it, seal, and verify the log."""
    run, vault = vault_process.json, vault_process
    made = await run("token", "create", "--role", "porting", "--region", "uk")
    token = {"PORTVAULT_TOKEN": made["token"]}
    number = ("--number", "+442079460123")
    order = await run("order", "create", "--region", "uk", "--customer", "a", *number, **token)
    put = ("put", str(SCAN), "--order", order["id"], "--kind", "passport", "--digest")
    document = await run(*put, **token)
    target = tmp_path / "scan.jpg"
    get = ("get", document["id"], "--purpose", "verify-identity", "-o", str(target))
    await run(*get, **token)
    assert target.read_bytes() == SCAN.read_bytes()
    assert target.stat().st_mode & 0o777 == 0o600
    await run("shred", document["id"], "--reason", "test", **token)
    status, _, says = await vault.run(*get, **token)
    assert (status, says) == (3, "portvault: The document was shredded.\n")
    (sealed,) = await run("keys", "seal")
    assert sealed["new_generation"] > sealed["old_generation"]
    assert (await run("order", "complete", order["id"], **token))["status"] == "ported"
    assert (await run("log", "verify"))["uk"]["intact"]
    assert {row["verdict"] for row in await run("doctor")} <= {"ok", "warn"}


async def test_errors_are_one_line_with_their_status(vault_process: VaultProcess) -> None:
    """A wrong token, a wrong setting and a server that is away each have their exit status."""
    run = vault_process.run
    cases: tuple[tuple[int, tuple[str, ...], dict[str, str]], ...] = (
        (4, ("order", "list"), {"PORTVAULT_TOKEN": "pv_wrong"}),
        (1, ("order", "list"), {}),
        (5, ("order", "list"), {"PORTVAULT_TOKEN": "pv_x", "PORTVAULT_SERVER": "http://[::1]:1"}),
        (1, ("config",), {"PORTVAULT_PROT": "1"}),
        (2, ("order",), {}),
    )
    for expected, arguments, variables in cases:
        status, out, says = await run(*arguments, **variables)
        assert (status, out) == (expected, "")
        assert expected == 2 or (says.startswith("portvault: ") and says.count("\n") == 1)
