"""A server opens no file and imports no module on its loop once it serves, whatever it is asked."""

import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path

import aiohttp

from tests.fixtures_process import VaultProcess
from tests.fixtures_server import SAMPLES

#: Runs `portvault serve` and writes down what is opened or imported on its loop, when, and by whom.
WATCHED = """
import asyncio, os, sys, threading, time
out = os.open(sys.argv.pop(1), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
main = threading.get_ident()
def watch(event, args):
    if event not in ("open", "import") or threading.get_ident() != main:
        return
    if asyncio._get_running_loop() is None:
        return
    frame, places = sys._getframe(1), []
    while frame is not None and len(places) < 30:
        if "importlib" not in frame.f_code.co_filename:
            places.append(f"{frame.f_code.co_filename}:{frame.f_lineno}")
        frame = frame.f_back
    os.write(out, f"{time.monotonic()} {event} {args[0]} {' < '.join(places)}\\n".encode())
sys.addaudithook(watch)
from vault.cli import main as run
run(["serve"])
"""
#: The store in a directory opens an object where its pages are at hand, and keeps no lock
#: meanwhile: without a descriptor that is 503, and nothing of it stays.
ALLOWED = "/vault/adapters/directory.py:"
COUNTRIES = ("+442079460123", "+12025550123", "+6498870123", "+61291920123", "+6561234567")


class Watched(VaultProcess):
    """A server that is watched."""

    async def start(self) -> None:
        """Start it; `seen` says what it loaded."""
        self.seen_path = self.home.parent / "seen"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", WATCHED, str(self.seen_path)],
                env=self.environment,
                stdout=log,
                stderr=log,
            )
        await self.until_ready()

    def seen(self, since: float) -> list[str]:
        """Return what was loaded on the loop from a moment on."""
        lines = [line.partition(" ") for line in self.seen_path.read_text().splitlines()]
        return [
            what
            for at, _, what in lines
            if float(at) > since and ALLOWED not in what.split(" ", 3)[2]
        ]


async def test_nothing_is_opened_or_imported_on_the_loop(tmp_path: Path, passport: bytes) -> None:
    """Orders of many countries, documents, faxes, errors, the console, a seal, bad requests."""
    vault = Watched(tmp_path / "home", regions="uk,us,nz,au,sg", public_url="http://127.0.0.1")
    await vault.start()
    positive = vault.seen(0.0)
    assert positive, "the watch sees what is loaded before it serves"
    regions = [word for name in ("uk", "us", "nz", "au", "sg") for word in ("--region", name)]
    tokens = {
        role: (await vault.json("token", "create", "--role", role, "--person", role, *regions))[
            "token"
        ]
        for role in ("porting", "fax-gateway", "compliance", "dpo", "admin")
    }
    since = time.monotonic()
    async with aiohttp.ClientSession() as session:

        async def call(method: str, path: str, role: str | None = None, **options):
            headers = {"Content-Type": "application/json", **options.pop("headers", {})}
            if role:
                headers["Authorization"] = f"Bearer {tokens[role]}"
            async with session.request(
                method, vault.url + path, headers=headers, **options
            ) as response:
                raw = await response.read()
                return response.status, raw

        documents = []
        for region, number in zip(("uk", "us", "nz", "au", "sg"), COUNTRIES, strict=True):
            fields = {"region": region, "customer": "acme", "numbers": [number]}
            status, raw = await call("POST", "/v1/orders", "porting", data=json.dumps(fields))
            assert status == 201, raw
            order = json.loads(raw)["id"]
            path = f"/v1/orders/{order}/documents?kind=passport"
            image = {"Content-Type": "image/jpeg"}
            status, raw = await call("POST", path, "porting", data=passport, headers=image)
            assert status == 201, raw
            documents.append(json.loads(raw)["id"])
        for number in ("+33123456789", "+81312345678", "+4930123456", "+5511912345678", "nonsense"):
            fields = {"region": "uk", "customer": "acme", "numbers": [number]}
            await call("POST", "/v1/orders", "porting", data=json.dumps(fields))
            await call("POST", f"/v1/faxes?direction=outbound&to=%2B{number[1:]}", "fax-gateway")
        purpose = {"Access-Purpose": "verify-identity"}
        for document in documents:
            status, raw = await call(
                "GET", f"/v1/documents/{document}/content", "porting", headers=purpose
            )
            assert (status, raw == passport) == (200, True)
            await call("GET", f"/v1/documents/{document}/retention", "porting")
        status, raw = await call(
            "POST",
            "/v1/faxes?direction=inbound&to=%2B442079460123",
            "fax-gateway",
            data=(SAMPLES / "fax-1p-g4.tif").read_bytes(),
            headers={"Content-Type": "image/tiff"},
        )
        assert status == 201, raw
        fax = json.loads(raw)["id"]
        assert (await call("GET", f"/v1/faxes/{fax}/content", "fax-gateway"))[0] == 200
        await call("POST", f"/v1/faxes/{fax}/actions/deliver", "fax-gateway", data="{}")
        await call(
            "POST",
            f"/v1/documents/{documents[0]}/actions/shred",
            "porting",
            data=json.dumps({"reason": "sent by mistake"}),
        )
        for path in ("/console", "/console/sign-in", "/console/callback", "/metrics", "/healthz",
                     "/readyz", "/openapi.json", "/nothing", "/v1/log/uk/checkpoint",
                     "/v1/access-records?region=uk", "/v1/retention/policy", "/v1/holds",
                     "/v1/approvals", "/v1/signals"):  # fmt: skip
            for role in (None, *tokens):
                await call("GET", path, role)
        for body in ("{", "[" * 30_000, "\ud800".encode("utf-8", "surrogatepass")):
            await call("POST", "/v1/orders", "porting", data=body)
        # The worker's turn: what was shredded is sealed and purged, and its certificate made.
        await asyncio.sleep(3.0)
    found = vault.seen(since)
    await vault.stop()
    assert found == [], "\n".join(sorted(set(found)))
