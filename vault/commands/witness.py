"""`portvault log witness`: run by another party, who needs nothing of the vault but a token."""

import argparse
import asyncio
import base64
import time
from pathlib import Path

import aiohttp

from vault.client import call, check, session
from vault.commands.output import show, tell
from vault.errors import InvalidRequestError, UnavailableError
from vault.witness import Witness


async def witness(args: argparse.Namespace) -> None:
    """Look again and again, or `--once`; ends only with an alarm."""
    made = Witness(args.state, args.name)
    if args.print_key:
        show({"key": made.vkey}, made.vkey, as_json=args.json)
        return
    if not args.server or not args.region:
        raise InvalidRequestError("say whose log: --server URL --region REGION")
    if args.key:
        path = Path(args.key)
        for region in args.region:
            made.trust(region, path.read_text() if path.is_file() else args.key)
    while True:
        try:
            async with session(args.server) as http:
                for region in args.region:
                    await _look(http, made, region, args)
        except UnavailableError as error:
            if args.once:
                raise
            tell(f"portvault: {error}")
        if args.once:
            return
        await asyncio.sleep(args.interval)


async def _look(
    http: aiohttp.ClientSession, made: Witness, region: str, args: argparse.Namespace
) -> None:
    place = f"/v1/log/{region}"
    keys = await call(http, "GET", f"{place}/keys")
    if not made.trusts(region):
        tell(f"trusts {keys['key']} for {region} from now on")
        made.trust(region, keys["key"])
    async with http.get(f"{place}/checkpoint", allow_redirects=False) as response:
        await check(response)
        note = await response.text()
    old, new = made.size(region), made.require_signed(region, note, keys["handovers"]).size
    proof = []
    if 0 < old < new:
        answer = await call(http, "GET", f"{place}/consistency?from={old}&to={new}")
        proof = [base64.b64decode(item) for item in answer["proof"]]
    line = made.see(
        region,
        note,
        keys["handovers"],
        proof,
        int(time.time()),
        still_seconds_max=args.still_max,
    )
    if line is not None:
        sent = {"size": new, "cosignature": line}
        await call(http, "POST", f"{place}/cosignatures", json=sent)
    seen = {"region": region, "size": new, "cosigned": line is not None}
    state = "cosigned" if line else "seen already"
    show(seen, f"{region}  {new} records  {state}", as_json=args.json)
