"""A client that a generator made of the OpenAPI document does the main job against a vault."""

import asyncio
import importlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import UUID

import pytest

from tests.fixtures_server import NUMBERS, SAMPLES, Api
from vault.web.routes import openapi

PACKAGE = "portvault_client"
#: The generator takes a file as octets, or with the type that its configuration gives.
UNKNOWN = {"application/pdf", "image/jpeg", "image/png", "image/tiff", "image/heic"}
#: Bandwidth's webhook.
UNKNOWN |= {"application/xml"}


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Generate the client, with its imports at hand, and give its directory."""
    place = tmp_path_factory.mktemp("client")
    (place / "openapi.json").write_text(json.dumps(openapi()))
    settings = {
        "package_name_override": PACKAGE,
        "content_type_overrides": {"application/jsonl": "text/plain"},
        "post_hooks": [],
    }
    (place / "settings.json").write_text(json.dumps(settings))
    program = str(Path(sys.executable).with_name("openapi-python-client"))
    command = [program, "generate", "--path", "openapi.json", "--config", "settings.json"]
    command += ["--meta", "none", "--output-path", PACKAGE]
    done = subprocess.run(
        command, cwd=place, check=True, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    (place / "said").write_text(done.stdout + done.stderr)
    sys.path.insert(0, str(place))
    try:
        yield place
    finally:
        sys.path.remove(str(place))


def part(name: str) -> ModuleType:
    return importlib.import_module(f"{PACKAGE}.{name}")


class Client:
    """The generated functions, called as a role."""

    def __init__(self, api: Api, role: str) -> None:
        self._url, self._token = api.url, api.tokens[role]

    async def __call__(self, call: str, *words: Any, **options: Any) -> Any:
        """Call `area.operation` and return what it answers, parsed."""
        return await asyncio.to_thread(self._call, call, *words, **options)

    def _call(self, call: str, *words: Any, **options: Any) -> Any:
        made = part("client").AuthenticatedClient
        with made(base_url=self._url, token=self._token) as client:
            return part(f"api.{call}").sync_detailed(*words, client=client, **options).parsed


def test_the_generator_takes_the_whole_description(generated: Path) -> None:
    """It leaves nothing out but the media types that it does not know."""
    said = (generated / "said").read_text()
    warnings = re.findall(r"WARNING parsing [^\n]*\n+([^\n]+)", said)
    assert warnings
    assert {text.rpartition(" ")[2] for text in warnings} <= UNKNOWN, said
    made = {path.stem for path in (generated / PACKAGE / "api").glob("*/*.py")} - {"__init__"}
    wanted = {one["operationId"] for path in openapi()["paths"].values() for one in path.values()}
    assert wanted - made == {"bandwidth_hook"}


async def test_a_generated_client_does_the_main_job(generated: Path, api: Api) -> None:
    """Order, upload, the way to its end, reading for a purpose, shred: all with words and types."""
    del generated
    models, desk = part("models"), Client(api, "porting")
    order = await desk(
        "orders.create_order",
        body=models.NewOrder(region=models.Region.UK, customer="acme", numbers=NUMBERS),
    )
    assert order.status is models.OrderStatus.DRAFT
    assert isinstance(order.id, UUID)

    scan = (SAMPLES / "passport-uto.jpg").read_bytes()
    document = await desk(
        "documents.ingest_document",
        order.id,
        kind=models.Kind.PASSPORT,
        content_disposition='attachment; filename="scan.jpg"',
        body=part("types").File(payload=BytesIO(scan)),
    )
    assert (document.kind, document.media_type) == (models.Kind.PASSPORT, "image/jpeg")
    assert document.retention.state in models.RetentionState

    change = models.OrderChange(status=models.OrderStatus.IN_PROCESS)
    assert (await desk("orders.change_order", order.id, body=change)).documents[0].id == document.id

    purpose = models.Purpose.VERIFY_IDENTITY
    content = await desk("documents.read_content", document.id, access_purpose=purpose)
    assert content.payload.read() == scan

    await desk(
        "retention.shred_document", document.id, body=models.ShredRequest(reason="withdrawn")
    )
    gone = await desk("documents.read_content", document.id, access_purpose=purpose)
    assert models.ProblemType(gone.type_) is models.ProblemType.URNPORTVAULTPROBLEMSHREDDED
    assert gone.document == document.id

    auditor = Client(api, "compliance")
    page = await auditor("log.list_access_records", region=models.Region.UK, document=document.id)
    reads = [one for one in page.data if one.action == models.Action.DOCUMENT_READ]
    assert {one.phase for one in reads} == {models.Phase.INTENT, models.Phase.OUTCOME}
    assert {one.purpose for one in reads if one.phase == models.Phase.INTENT} == {purpose.value}


async def test_a_generated_client_passes_a_fax_through(generated: Path, api: Api) -> None:
    """Submit, fetch, deliver; what a desk may not do is a problem with its type."""
    del generated
    models, gateway = part("models"), Client(api, "fax-gateway")
    pages = (SAMPLES / "fax-1p-g4.tif").read_bytes()
    way = {"direction": models.FaxDirection.INBOUND, "to": NUMBERS[0], "from_": "+442079460999"}
    submit = "faxes.submit_fax"
    fax = await gateway(submit, **way, body=part("types").File(payload=BytesIO(pages)))
    assert (fax.pages, fax.state, fax.region) == (1, models.FaxState.RECEIVED, models.Region.UK)
    opened = await gateway("faxes.read_fax", fax.id)
    assert opened.payload.read() == pages
    done = await gateway("faxes.deliver_fax", fax.id, body=models.FaxDelivered())
    assert done.state is models.FaxState.DELIVERED

    body = part("types").File(payload=BytesIO(pages))
    refused = await Client(api, "porting")(submit, **way, body=body)
    assert (refused.type_, refused.status) == ("urn:portvault:problem:forbidden", 403)
