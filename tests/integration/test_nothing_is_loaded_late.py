"""Once it serves, a server opens and imports nothing on its loop, and starts no thread."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import aiohttp
import aiosmtplib
from aiosmtpd.smtp import SMTP

from tests.fixtures_oidc import Browser, Place, free_port
from tests.fixtures_process import VaultProcess, plant_database
from tests.fixtures_server import SAMPLES

#: Runs `portvault serve` and writes down what is opened, imported or started on its loop, and when.
WATCHED = """
import asyncio, os, sys, threading, time
out = os.open(sys.argv.pop(1), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
main = threading.get_ident()
def watch(event, args):
    if event not in ("open", "import", "_thread.start_new_thread") or threading.get_ident() != main:
        return
    if asyncio._get_running_loop() is None:
        return
    frame, places = sys._getframe(1), []
    while frame is not None and len(places) < 30:
        if not any(name in frame.f_code.co_filename for name in ("importlib", "/threading.py")):
            places.append(f"{frame.f_code.co_filename}:{frame.f_lineno}")
        frame = frame.f_back
    what = "thread" if "thread" in event else str(args[0]).replace(" ", "_")
    os.write(out, f"{time.monotonic()} {event} {what} {' < '.join(places)}\\n".encode())
sys.addaudithook(watch)
from vault.cli import main as run
run(["serve"])
"""
ALLOWED = (
    # The store in a directory opens an object where its pages are at hand, and keeps no lock
    # meanwhile: without a descriptor that is 503, and nothing of it stays.
    "/vault/adapters/directory.py:",
    # A custodian that hangs leaves its thread behind; without a thread that is 503, too.
    "/keys/custodians/calls.py:",
)
REGIONS = ("uk", "us", "nz", "au", "sg")
ADDRESS = "+442079460123@fax.test"
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
            if float(at) > since and not any(place in what.split(" ", 3)[2] for place in ALLOWED)
        ]


class Job:
    """Calls of a vault, each as a role or as nobody."""

    def __init__(self, vault: Watched, session: aiohttp.ClientSession) -> None:
        self._vault, self._session = vault, session
        self.tokens: dict[str, str] = {}

    async def sign_up(self, *regions: str) -> None:
        """Make a token for each role."""
        words = [word for name in regions for word in ("--region", name)]
        for role in ("porting", "fax-gateway", "compliance", "dpo", "admin"):
            create = ("token", "create", "--role", role, "--person", role, *words)
            self.tokens[role] = (await self._vault.json(*create))["token"]

    async def call(
        self, method: str, path: str, role: str | None = None, **options: Any
    ) -> tuple[int, bytes]:
        """Call, and return the status and the body."""
        headers = {"Content-Type": "application/json", **options.pop("headers", {})}
        if role:
            headers["Authorization"] = f"Bearer {self.tokens[role]}"
        async with self._session.request(
            method, self._vault.url + path, headers=headers, **options
        ) as response:
            return response.status, await response.read()

    async def made(self, path: str, role: str, status: int = 201, **fields: Any) -> Any:
        """Post JSON, and return what it made."""
        got, raw = await self.call("POST", path, role, data=json.dumps(fields))
        assert got == status, raw
        return json.loads(raw)

    async def put(self, order: str, scan: bytes) -> str:
        """Upload a passport, and return its id."""
        path = f"/v1/orders/{order}/documents?kind=passport"
        status, raw = await self.call(
            "POST", path, "porting", data=scan, headers={"Content-Type": "image/jpeg"}
        )
        assert status == 201, raw
        return str(json.loads(raw)["id"])


async def documents_pass(job: Job, scan: bytes) -> None:
    """Orders of many countries, documents in and out, several at once, corrected and shredded."""
    purpose = {"Access-Purpose": "verify-identity"}
    orders = [
        (await job.made("/v1/orders", "porting", region=region, customer="acme", numbers=[number]))
        for region, number in zip(REGIONS, COUNTRIES, strict=True)
    ]
    documents = [await job.put(order["id"], scan) for order in orders]
    documents += await asyncio.gather(*(job.put(orders[0]["id"], scan) for _ in range(12)))
    for number in ("+33123456789", "+81312345678", "+4930123456", "+5511912345678", "nonsense"):
        fields = {"region": "uk", "customer": "acme", "numbers": [number]}
        await job.call("POST", "/v1/orders", "porting", data=json.dumps(fields))
        await job.call("POST", f"/v1/faxes?direction=outbound&to=%2B{number[1:]}", "fax-gateway")
    for document in documents:
        path = f"/v1/documents/{document}"
        assert await job.call("GET", f"{path}/content", "porting", headers=purpose) == (200, scan)
        await job.call("GET", f"{path}/retention", "porting")
    path = f"/v1/orders/{orders[0]['id']}"
    await job.call("GET", f"{path}/numbers", "porting", headers=purpose)
    await job.made(f"{path}/actions/correct", "porting", 200, customer_reference="R-2")
    await job.made(f"{path}/actions/link", "porting", 200, carrier="telnyx", reference="K1")
    await job.made("/v1/orders/search", "porting", 200, region="uk", number=COUNTRIES[0])
    await job.made(f"/v1/documents/{documents[1]}/actions/correct", "porting", 200, kind="loa")
    for act in ("restrict", "unrestrict"):
        await job.made(
            f"/v1/documents/{documents[2]}/actions/{act}", "dpo", 200, reason="contested"
        )
    await job.made(
        "/v1/holds", "dpo", region="uk", reason="litigation", authority="court", orders=[],
        documents=[], customers=["acme"],
    )  # fmt: skip
    shred = f"/v1/documents/{documents[3]}/actions/shred"
    await job.made(shred, "porting", 200, reason="withdrawn")
    # The worker's turn: what was shredded is sealed and purged, and its certificate made.
    where = f"/v1/documents/{documents[3]}/certificate"
    async with asyncio.timeout(30):
        while (await job.call("GET", where, "porting"))[0] != 200:
            await asyncio.sleep(0.2)
    page = {"Accept": "text/html"}
    assert (await job.call("GET", where, "porting", headers=page))[0] == 200


async def faxes_pass(job: Job, mail_port: int, came: list[bytes]) -> None:
    """A fax by the gateway, one by mail, and both to a mailbox."""
    pages = (SAMPLES / "fax-1p-g4.tif").read_bytes()
    status, raw = await job.call(
        "POST",
        "/v1/faxes?direction=outbound&to=%2B442079460123",
        "fax-gateway",
        data=pages,
        headers={"Content-Type": "image/tiff"},
    )
    assert status == 201, raw
    fax = json.loads(raw)["id"]
    assert (await job.call("GET", f"/v1/faxes/{fax}/content", "fax-gateway"))[0] == 200
    await job.call("POST", f"/v1/faxes/{fax}/actions/deliver", "fax-gateway", data="{}")
    for direction in ("inbound", "nonsense"):
        await job.call(
            "POST",
            f"/v1/faxes?direction={direction}&to=%2B442079460199",
            "fax-gateway",
            data=pages,
            headers={"Content-Type": "image/tiff"},
        )
    letter = EmailMessage()
    letter["From"], letter["To"], letter["Message-ID"] = "a@acme.test", ADDRESS, "<1@acme.test>"
    letter.set_content("Please fax.")
    letter.add_attachment(
        (SAMPLES / "loa.pdf").read_bytes(), "application", "pdf", filename="a.pdf"
    )
    for _ in range(2):
        await aiosmtplib.send(letter, hostname="127.0.0.1", port=mail_port)
    async with asyncio.timeout(20):
        while not came:
            await asyncio.sleep(0.05)


async def log_is_read(job: Job) -> None:
    """The log searched, exported and proven."""
    log = "/v1/log/uk"
    for query in ("action=document.read", "principal=porting", "transfers=true", "from=2020-01-01"):
        await job.call("GET", f"/v1/access-records?region=uk&{query}", "compliance")
    for form in ("jsonl", "csv"):
        path = f"/v1/access-records/export?region=uk&format={form}"
        assert (await job.call("GET", path, "compliance"))[0] == 200
    for path in ("checkpoint", "keys", "inclusion?index=1", "consistency?from=1", "tile/0/000"):
        await job.call("GET", f"{log}/{path}", "compliance")


async def nonsense_is_sent(job: Job) -> None:
    """Every page as everybody, and what cannot be read."""
    for path in ("/console", "/console/sign-in", "/console/callback", "/metrics", "/healthz",
                 "/readyz", "/openapi.json", "/nothing", "/v1/log/uk/checkpoint",
                 "/v1/access-records?region=uk", "/v1/retention/policy", "/v1/holds",
                 "/v1/approvals", "/v1/signals", "/v1/orders"):  # fmt: skip
        for role in (None, *job.tokens):
            await job.call("GET", path, role)
    for body in ("{", "[" * 30_000, "\ud800".encode("utf-8", "surrogatepass")):
        await job.call("POST", "/v1/orders", "porting", data=body)
    for carrier in ("telnyx", "twilio", "bandwidth"):
        await job.call("POST", f"/v1/hooks/{carrier}", data="{}")


class Mailbox:
    """The next hop of faxes, which keeps what comes."""

    def __init__(self) -> None:
        self.came: list[bytes] = []

    async def handle_DATA(self, server: object, session: object, envelope: Any) -> str:  # noqa: N802 - the library's name
        """Take a mail."""
        self.came.append(envelope.content)
        return "250 taken"


async def test_nothing_is_opened_imported_or_started(
    tmp_path: Path, passport: bytes, identity_provider: Place
) -> None:
    """Documents, faxes by wire and by mail, the log, a sign-in, a seal, nonsense: all there is."""
    mailbox, mail_port = Mailbox(), free_port()
    hop = await asyncio.get_running_loop().create_server(lambda: SMTP(mailbox), "127.0.0.1", 0)
    hop_port = hop.sockets[0].getsockname()[1]
    vault = Watched(
        tmp_path / "home",
        regions=",".join(REGIONS),
        seal_interval_seconds="1",
        public_url=identity_provider.url,
        port=str(identity_provider.vault_port),
        oidc_issuer=identity_provider.issuer,
        oidc_client_id="portvault",
        oidc_client_secret="a-secret-of-the-tests",
        oidc_roles="desk=porting",
        oidc_regions="uk=uk",
        fax_listen=f"127.0.0.1:{mail_port}",
        fax_listen_domains="fax.test",
        fax_listen_peers="127.0.0.1/32",
    )
    vault.url = vault.environment["PORTVAULT_SERVER"] = identity_provider.url
    await plant_database(vault.home)
    (vault.home / "faxes.toml").write_text(
        '[[routes]]\nnumber = "+442079460199"\naddress = "inbox@acme.test"\n'
        f'[[domains]]\ndomain = "acme.test"\nhost = "127.0.0.1:{hop_port}"\ntls = "opportunistic"\n'
    )
    try:
        async with hop, aiohttp.ClientSession() as session:
            await vault.start()
            assert vault.seen(0.0), "the watch sees what is loaded before it serves"
            job = Job(vault, session)
            await job.sign_up(*REGIONS)
            since = time.monotonic()
            await documents_pass(job, passport)
            await faxes_pass(job, mail_port, mailbox.came)
            await log_is_read(job)
            await nonsense_is_sent(job)
            async with signed_in(identity_provider):
                pass
    finally:
        await vault.stop()
    found = vault.seen(since)
    assert found == [], "\n".join(sorted(set(found)))


@asynccontextmanager
async def signed_in(place: Place) -> AsyncIterator[None]:
    """Sign in, and out at the end."""
    browser = Browser(place)
    try:
        shown = await browser.sign_in("desk+uk")
        assert "You are signed in" in shown.text
        yield
        await browser.fill_in(shown)
    finally:
        await browser.session.close()
