"""
A real identity provider (npm `oidc-provider`), and a vault whose people sign in there.

`browser` is somebody with cookies: it follows the provider's own pages and fills in its forms.
"""

import re
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import aiohttp
import pytest
from yarl import URL

from vault.app import open_vault
from vault.config.settings import Config
from vault.context import Vault
from vault.web import listening

ROOT = Path(__file__).parents[1]
PROVIDER = ROOT / "tests" / "oidc" / "provider.mjs"
_FORM = re.compile(r'<form[^>]*action="([^"]+)"[^>]*>(.*?)</form>', re.DOTALL)
_FIELD = re.compile(r'<input[^>]*type="hidden"[^>]*name="([^"]+)"[^>]*value="([^"]*)"')


@dataclass(frozen=True)
class Place:
    """Where the vault of these tests is, and where its people sign in."""

    vault_port: int
    issuer: str

    @property
    def url(self) -> str:
        """The vault's public address."""
        return f"http://127.0.0.1:{self.vault_port}"


def free_port() -> int:
    """Return a port that is free in this moment."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def identity_provider() -> Iterator[Place]:
    """Run the provider for the session; its one client is the vault of `place`."""
    install = "source scripts/setup.sh; set_up_npm tests/oidc"
    subprocess.run(["bash", "-c", install], cwd=ROOT, check=True, stdin=subprocess.DEVNULL)
    made = Place(free_port(), f"http://127.0.0.1:{(port := free_port())}")
    with PROVIDER.open("rb") as script:
        process = subprocess.Popen(
            ["node", "--input-type=module", "-", str(port), made.url],
            cwd=Path(sys.prefix) / "npm" / "oidc",
            stdin=script,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == b"ready":
            break
    assert process.poll() is None, "the identity provider did not start"
    yield made
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.fixture
async def signing_vault(config: Config, identity_provider: Place) -> AsyncIterator[Vault]:
    """Serve a vault whose people sign in at the provider."""
    changed = replace(
        config,
        public_url=identity_provider.url,
        oidc_issuer=identity_provider.issuer,
        oidc_client_id="portvault",
        oidc_client_secret="a-secret-of-the-tests",
        oidc_roles=("desk=porting", "audit=compliance", "privacy=dpo", "it=admin"),
        oidc_regions=("uk=uk", "sg=sg"),
        oidc_located=("london=uk",),
    )
    async with (
        open_vault(changed, dsn=config.database) as vault,
        served(vault, identity_provider.vault_port),
    ):
        yield vault


@asynccontextmanager
async def served(vault: Vault, port: int) -> AsyncIterator[None]:
    """Serve a vault on a port."""
    async with listening.serving(replace(vault.config, port=port), vault):
        yield


@dataclass
class Answer:
    """What a browser sees at last: where, with which status, and the page."""

    url: str
    status: int
    text: str
    headers: Any


class Browser:
    """Somebody with a cookie jar who follows redirects, one by one."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.session = aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True))
        self.stop_at: str | None = None

    async def go(self, path: str, **options: Any) -> Answer:
        """Open an address of the vault or another, and follow where it leads."""
        method, url = options.pop("method", "GET"), urljoin(self.place.url, path)
        for _ in range(12):
            async with self.session.request(
                method, url, allow_redirects=False, **options
            ) as response:
                if response.status not in {301, 302, 303}:
                    return Answer(url, response.status, await response.text(), response.headers)
                method, options = "GET", {}
                url = urljoin(url, response.headers["Location"])
            if self.stop_at and url.startswith(self.stop_at):
                return Answer(url, 0, "", {})
        raise AssertionError("redirected for ever")

    async def fill_in(self, answer: Answer, **fields: str) -> Answer:
        """Send the page's form with these fields."""
        found = _FORM.search(answer.text)
        assert found, answer.text
        hidden = {name: unescape(value) for name, value in _FIELD.findall(found[2])}
        action = urljoin(answer.url, unescape(found[1]))
        return await self.go(action, method="POST", data={**hidden, **fields})

    async def sign_in(self, groups: str) -> Answer:
        """Sign in at the provider as somebody of these groups (`desk+uk`)."""
        answer = await self.go("/console/sign-in")
        while answer.status == 200 and answer.url.startswith(self.place.issuer):
            answer = await self.fill_in(answer, login=groups, password="any")
        return answer

    def cookie(self, name: str = "portvault-session") -> str | None:
        """Return a cookie that the vault set."""
        found = self.session.cookie_jar.filter_cookies(URL(self.place.url)).get(name)
        return found.value if found else None


@pytest.fixture
async def browser(signing_vault: Vault, identity_provider: Place) -> AsyncIterator[Browser]:
    """Give a browser."""
    made = Browser(identity_provider)
    yield made
    await made.session.close()
