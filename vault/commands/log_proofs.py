"""`portvault log verify`, `key` and `rotate-key`: what proves the log, and who signs it."""

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from keys.notes.signing import SigningKeys
from vault.actions.keys import revoke_key, rotate_key
from vault.actions.log_publish import sequence_log
from vault.actions.log_records import verify_region
from vault.actions.people import forget_name
from vault.audit.auditor import STATUS, Audit, AuditError
from vault.commands.http import call, check, session
from vault.commands.operator import opened, operator, regions_of
from vault.commands.output import facts, show, time_text
from vault.config.settings import load_config
from vault.context import SIGNER_NAME, Vault
from vault.domain.access import Principal, Role
from vault.domain.checkpoint import origin
from vault.domain.verify import Verdict
from vault.errors import InvalidRequestError, NotFoundError, VaultError


class LogOffendedError(VaultError):
    """The log does not hold; keep the database and the checkpoints as they are."""

    def __init__(self, exit_status: int) -> None:
        super().__init__()
        self.exit_status = exit_status


async def verify(args: argparse.Namespace) -> None:
    """Check the log of the database, of a running vault or of a file; raises when it fails."""
    held = [_read(path) for path in args.held]
    if args.file is not None:
        verdicts = [_audit_file(args, held)]
    elif args.server is not None:
        verdicts = [await _audit_server(args, held)]
    else:
        verdicts = await _verify_database(args, held)
    shown = {verdict.pop("region"): verdict for verdict in verdicts}
    text = "\n\n".join(_text(region, verdict) for region, verdict in shown.items())
    text += f"\n\n{_conclusion(shown)}"
    show(shown, text, as_json=args.json)
    failed = {name for name in STATUS for verdict in shown.values() if verdict[name] is False}
    if failed:
        raise LogOffendedError(sum(STATUS[name] for name in failed))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequestError(f"{path} cannot be read: {error}") from None


def _text(region: str, verdict: dict[str, Any]) -> str:
    anchored = verdict["anchored_size"]
    first = verdict["first_offending"]
    return facts(
        {
            "region": region,
            "records": verdict["size"],
            **{name: verdict[name] for name in ("intact", "complete", "consistent")},
            "in_flight": verdict["in_flight"],
            "waiting": _waiting(verdict),
            "anchored": "no witness" if anchored is None else f"up to {anchored} records",
            "first_offending": ", ".join(f"{name} at {at}" for name, at in first.items()) or None,
            "findings": "; ".join(verdict["findings"]) or None,
        }
    )


def _waiting(verdict: dict[str, Any]) -> str:
    since = verdict["waiting_since"]
    return f"{verdict['waiting']} records, since {time_text(since)}" if since else "nothing"


def _conclusion(shown: dict[str, dict[str, Any]]) -> str:
    """Return all verdicts in one line."""
    failed = {
        region: " and ".join(f"not {name}" for name in STATUS if verdict[name] is False)
        for region, verdict in shown.items()
        if any(verdict[name] is False for name in STATUS)
    }
    if not failed:
        return f"The log holds: {', '.join(shown)}."
    return "THE LOG DOES NOT HOLD: " + "; ".join(
        f"{name} is {what}" for name, what in failed.items()
    )


async def _verify_database(args: argparse.Namespace, held: Sequence[str]) -> list[dict[str, Any]]:
    config = load_config()
    reader = operator(config, Role.COMPLIANCE)
    verdicts = list[dict[str, Any]]()
    async with opened(config) as vault:
        for region in regions_of(config, args.region):
            mine = [note for note in held if note.startswith(f"{origin(region)}\n")]
            found = asdict(await _verified(vault, reader, region, mine))
            size = found["anchored"]
            anchored = None if size is None else size > 0
            verdicts.append(
                {"region": region, **found, "anchored": anchored, "anchored_size": size}
            )
    return verdicts


async def _verified(vault: Vault, reader: Principal, region: str, held: Sequence[str]) -> Verdict:
    await sequence_log(vault, region)
    try:
        return await verify_region(vault, reader, region, held=held)
    except NotFoundError:
        # Of a region that nobody has used yet, that look is the first record.
        await sequence_log(vault, region)
        return await verify_region(vault, reader, region, held=held)


def _audit_file(args: argparse.Namespace, held: Sequence[str]) -> dict[str, Any]:
    if not args.key:
        raise InvalidRequestError("name the log's public key with --key; `portvault log key`")
    audit = _audit(args.key, held, args)
    try:
        with args.file.open("rb") as lines:
            for line in lines:
                audit.take(line)
    except OSError as error:
        raise InvalidRequestError(f"{args.file} cannot be read: {error.strerror}") from None
    except AuditError as error:
        raise VaultError(str(error)) from None
    return _verdict(audit)


async def _audit_server(args: argparse.Namespace, held: Sequence[str]) -> dict[str, Any]:
    if args.region is None:
        raise InvalidRequestError("say which region's log: --region")
    async with session(args.server) as http:
        keys = await call(http, "GET", f"/v1/log/{args.region}/keys")
        audit = _audit(args.key or keys["key"], held, args)
        query = {"region": args.region}
        async with http.get("/v1/access-records/export", params=query) as response:
            await check(response)
            async for line in response.content:
                try:
                    audit.take(line)
                except AuditError as error:
                    raise VaultError(str(error)) from None
    return _verdict(audit)


def _audit(key: str, held: Sequence[str], args: argparse.Namespace) -> Audit:
    if Path(key).is_file():
        key = _read(Path(key))
    try:
        return Audit(key, held, args.witness, waiting_seconds_max=args.waiting_max)
    except AuditError as error:
        raise InvalidRequestError(str(error)) from None


def _verdict(audit: Audit) -> dict[str, Any]:
    try:
        found = audit.verdict()
    except AuditError as error:
        raise VaultError(str(error)) from None
    return {"region": found["origin"].rpartition("/")[2], **found}


async def key(args: argparse.Namespace) -> None:
    """Print the public key that signs the log, and how earlier ones named it."""
    keys = SigningKeys(load_config().signing_key_path, SIGNER_NAME)
    shown = {"key": keys.vkey, "next": keys.following, "handovers": list(keys.handovers)}
    text = keys.vkey
    if keys.following:
        text += f"\n{keys.following} takes over: portvault log rotate-key --finish"
    show(shown, text, as_json=args.json)


async def forget(args: argparse.Namespace) -> None:
    """Forget what a principal was called."""
    config = load_config()
    async with opened(config) as vault:
        number = await forget_name(vault, operator(config), args.principal)
    shown = {"principal": args.principal, "names": number}
    text = f"{number} of its names are forgotten; backups have them as long as they are kept"
    show(shown, text, as_json=args.json)


async def rotate(args: argparse.Namespace) -> None:
    """Begin to replace the key that signs the log, or let the new one sign alone."""
    config = load_config()
    async with opened(config) as vault:
        if args.revoke:
            await revoke_key(vault, operator(config), args.revoke)
            show({"revoked": args.revoke}, f"{args.revoke} was revoked", as_json=args.json)
            return
        vkey = await rotate_key(vault, operator(config), finish=args.finish, stolen=args.stolen)
    alone = args.finish or args.stolen
    text = f"{vkey} signs beside the old one. Give it to auditors and witnesses, who also learn "
    text += "of it by themselves; then, as soon as they have, portvault log rotate-key --finish"
    if alone:
        text = f"{vkey} signs alone; the old private key is gone"
    if args.stolen:
        text += ". Copy the key's directory to every machine now, and give the new key, by a way "
        text += "that you trust, to auditors and witnesses: they follow the old one no more"
    show({"key": vkey, "finished": alone}, text, as_json=args.json)
