"""The README is true: its commands, pasted as they stand, do what it says."""

import asyncio
import json
import re
import sys
from pathlib import Path

import aiohttp
import pytest

from tests.fixtures_process import VaultProcess

SEAL = "portvault keys seal > seal.txt"
ROOT = Path(__file__).parents[2]


def blocks(heading: str) -> list[str]:
    """Return the shell blocks of a section of the README."""
    section = (ROOT / "README.md").read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"```sh\n(.*?)```", section, re.DOTALL)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Give a place that looks like a checkout after `./scripts/run`, to leave files in."""
    place = tmp_path / "checkout"
    (place / ".venv").mkdir(parents=True)
    (place / "tests").symlink_to(ROOT / "tests")
    (place / ".venv/bin").symlink_to(Path(sys.executable).parent)
    return place


async def paste(vault: VaultProcess, checkout: Path, script: str) -> list[str]:
    """Paste lines into a shell in the checkout; each must succeed."""
    shell = await asyncio.create_subprocess_exec(
        *("bash", "-euo", "pipefail", "-c", script),
        cwd=checkout,
        env=vault.environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, says = await shell.communicate()
    assert shell.returncode == 0, says.decode()
    assert says == b""
    return [line for line in out.decode().splitlines() if line]


async def test_the_blocks_can_be_pasted(vault_process: VaultProcess, checkout: Path) -> None:
    """The commands, then curl: a scan goes in and comes out as it was, and is shredded."""
    commands, curl = blocks("Use")
    scan = ROOT / "tests/samples/passport-uto.jpg"
    await paste(vault_process, checkout, commands)
    assert (checkout / "scan.jpg").read_bytes() == scan.read_bytes()
    (checkout / "scan.jpg").unlink()
    curl = curl.replace("http://127.0.0.1:8700", vault_process.url)
    # A certificate comes with the next seal, a minute away, which is made now.
    *lines, certificate = curl.strip().rsplit("\n", 1)
    (token,) = [line for line in commands.splitlines() if "PORTVAULT_TOKEN=" in line]
    path = commands.splitlines()[0]
    shown = await paste(
        vault_process, checkout, "\n".join([path, token, *lines, SEAL, certificate])
    )
    assert (checkout / "scan.jpg").read_bytes() == scan.read_bytes()
    assert [json.loads(line)["custody"] for line in shown[:2]] == ["stored", "shredded"]
    assert "portvault" in json.loads(shown[2])["note"]


async def test_a_browser_at_the_printed_address_finds_the_console(
    vault_process: VaultProcess,
) -> None:
    """The bare address leads to a page that says how to sign in."""
    async with (
        aiohttp.ClientSession() as browser,
        browser.get(vault_process.url, headers={"Accept": "text/html"}) as page,
    ):
        assert (page.status, page.url.path, page.content_type) == (200, "/console", "text/html")


async def test_a_word_that_is_no_id_is_said_to_be_none(vault_process: VaultProcess) -> None:
    """Both the command and the API say what is wrong with `ORDER`, and not that it is not there."""
    status, _, says = await vault_process.run("order", "show", "ORDER")
    assert (status, "is not an id" in says) == (2, True)
    made = await vault_process.json("token", "create", "--role", "porting", "--region", "uk")
    headers = {"Authorization": f"Bearer {made['token']}"}
    async with (
        aiohttp.ClientSession(headers=headers) as client,
        client.get(f"{vault_process.url}/v1/orders/ORDER") as answer,
    ):
        assert answer.status == 404
        assert "has no id" in (await answer.json())["detail"]


def test_what_the_readme_leaves_in_the_checkout_is_ignored() -> None:
    """No scan that was read as the README says is committed by chance."""
    assert "/scan.jpg" in (ROOT / ".gitignore").read_text().splitlines()
