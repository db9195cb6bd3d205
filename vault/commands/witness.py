"""
A witness of a log: somebody else, who remembers the newest checkpoint and cosigns what follows it.

What it remembers is durable before a cosignature leaves, so that it never says two things. A log
that is shorter than it was, or another one, is an alarm: what was seen is kept as evidence, and no
checkpoint of that log is cosigned any more until a person has removed it.
"""

import argparse
import asyncio
import base64
import json
import socket
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import aiohttp

from keys.errors import IntegrityError
from keys.ground.secret_files import write_private
from keys.notes.note import Cosigner
from keys.notes.signing import Trust, own_key, trust
from vault.commands.http import call, check, session
from vault.commands.output import show, tell
from vault.domain.checkpoint import Checkpoint, decode, open_checkpoint
from vault.domain.merkle import check_consistency
from vault.errors import ConfigurationError, InvalidRequestError, UnavailableError, VaultError

ALARM = 6


class AlarmError(VaultError):
    """The log is not the one that was seen before."""

    exit_status = ALARM


class StandsStillError(UnavailableError):
    """The log does not grow, though each look of the witness is recorded in it."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What is remembered of a log: the key that is trusted, and the newest checkpoint."""

    key: str
    note: str | None
    #: When the newest checkpoint was first seen again (Unix time): that look is not yet under it.
    same_since: int | None = None
    #: Keys that handed over, step by step, to the one that is trusted now.
    earlier: Sequence[str] = ()
    #: Whether that key was revoked: it is trusted no more.
    revoked: bool = False


class Witness:
    """One witness, in a directory of its own."""

    def __init__(self, directory: Path, name: str | None = None) -> None:
        self._directory = directory
        key = own_key(directory / "witness.key")
        self._cosigner = Cosigner(_own_name(directory / "name", name), key)

    @property
    def vkey(self) -> str:
        """Return the public key, which the vault's operator is to know as a witness's."""
        return self._cosigner.vkey

    def trust(self, region: str, key: str) -> None:
        """Trust a log by its public key, from the first time on; another one is refused."""
        seen = self._seen(region)
        if seen is None:
            self._remember(region, Seen(key.strip(), None))
        elif seen.revoked:
            self._remember(region, Seen(key.strip(), seen.note))
        elif key.strip() not in (seen.key, *seen.earlier):
            raise ConfigurationError(
                f"this witness trusts another key of {region} since it first saw the log; if the "
                f"key was replaced it learns of that by itself, else look into {self._directory}"
            )

    def trusts(self, region: str) -> bool:
        """Whether the log was ever seen, or its key was given."""
        return self._seen(region) is not None

    def size(self, region: str) -> int:
        """Return how many records the newest checkpoint has that was seen; 0 for none."""
        seen = self._seen(region)
        if seen is None or seen.note is None:
            return 0
        # It was verified before it was kept.
        return int(seen.note.split("\n")[1])

    def require_signed(self, region: str, note: str, handovers: Sequence[str]) -> Checkpoint:
        """
        Return what a checkpoint states; raises `AlarmError` unless a key that is trusted signed it.

        Whoever looks asks this first: a log's owner may refuse every proof of what is shown.
        """
        return self._open(region, self._known(region), note, handovers)[1]

    def see(
        self,
        region: str,
        note: str,
        handovers: Sequence[str],
        proof: Sequence[bytes],
        now: int,
        *,
        still_seconds_max: float = float("inf"),
    ) -> str | None:
        """
        Return the cosignature of a checkpoint that follows what was seen; None when it is the same.

        `proof` shows that the log of `size` is a prefix. Raises `AlarmError` for whatever else the
        log's owner can show, and for a log of which there is an alarm already; `StandsStillError`
        for one that stays the same for longer than `still_seconds_max` while it is looked at.
        """
        seen = self._known(region)
        known, newest = self._open(region, seen, note, handovers)
        if seen.note is not None:
            # It was verified before it was kept.
            before = decode(seen.note.rpartition("\n\n")[0] + "\n")
            if what := _wrong(before, newest, proof):
                raise self._alarm(region, seen, note, what)
            if before == newest:
                self._stay(region, seen, now, still_seconds_max)
                return None
        text = note.rpartition("\n\n")[0] + "\n"
        self._remember(region, _followed(seen, known, note))
        return self._cosigner.cosign(text, now)

    def _known(self, region: str) -> Seen:
        seen = self._seen(region)
        if seen is None:
            raise ConfigurationError(f"the key of {region}'s log is not known yet")
        return seen

    def _open(
        self, region: str, seen: Seen, note: str, handovers: Sequence[str]
    ) -> tuple[Trust, Checkpoint]:
        self._require_no_alarm(region)
        known = trust(seen.key, handovers)
        if known.revoked:
            # The new one comes by another way: `--key` is taken once more.
            self._remember(region, replace(seen, revoked=True))
            raise self._alarm(region, seen, note, "has a new key, since the old one was stolen")
        try:
            return known, open_checkpoint(note, known, region)
        except IntegrityError:
            raise self._alarm(region, seen, note, "is not signed by the key it had") from None

    def _stay(self, region: str, seen: Seen, now: int, seconds_max: float) -> None:
        """Remember that the log is as it was; raises `StandsStillError` once that is too long."""
        if seen.same_since is None:
            self._remember(region, replace(seen, same_since=now))
        elif now - seen.same_since > seconds_max:
            raise StandsStillError(
                f"the log of {region} stands still for {now - seen.same_since} seconds though "
                "looking at it is recorded in it: its newest records are not published, and could "
                "be taken away unseen; ask whoever runs the vault whether its worker runs"
            )

    def _alarm(self, region: str, seen: Seen, note: str, what: str) -> AlarmError:
        path = self._directory / f"ALARM-{region}-{time.time_ns()}"
        evidence = f"the log {what}\n\nseen before:\n{seen.note}\nshown now:\n{note}"
        write_private(path, evidence.encode(), replace=False)
        return AlarmError(f"ALARM: the log of {region} {what}; both checkpoints are in {path}")

    def _require_no_alarm(self, region: str) -> None:
        for path in self._directory.glob(f"ALARM-{region}-*"):
            raise AlarmError(
                f"ALARM: the log of {region} is not cosigned since {path} was written; remove it "
                "only when you know what happened"
            )

    def _path(self, region: str) -> Path:
        return self._directory / f"{region}.json"

    def _seen(self, region: str) -> Seen | None:
        try:
            return Seen(**json.loads(self._path(region).read_bytes()))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError):
            raise ConfigurationError(f"{self._path(region)} is damaged; bring it back") from None

    def _remember(self, region: str, seen: Seen) -> None:
        data = json.dumps(asdict(seen)).encode()
        write_private(self._path(region), data, replace=True)


def _own_name(path: Path, wanted: str | None) -> str:
    """Return the name this witness has since its first start: its key is known under it."""
    if not path.exists():
        made = wanted or f"witness.{socket.gethostname()}"
        write_private(path, made.encode(), replace=False)
    name = path.read_text(encoding="utf-8")
    if wanted not in (None, name):
        raise ConfigurationError(f"this witness is called {name} since it was made: {path}")
    return name


def _followed(seen: Seen, known: Trust, note: str) -> Seen:
    """Return what is remembered after a look: the last key of a finished handover, too."""
    ended = [key for key, bound in known.keys.items() if bound is not None]
    if seen.key not in ended:
        return Seen(seen.key, note, earlier=seen.earlier)
    current = next(key for key, bound in known.keys.items() if bound is None)
    return Seen(current, note, earlier=(*seen.earlier, *ended))


def _wrong(before: Checkpoint, newest: Checkpoint, proof: Sequence[bytes]) -> str | None:
    """Return what is wrong with a checkpoint after another; None when nothing is."""
    if newest.size < before.size:
        return f"became shorter: {newest.size} records after {before.size}"
    if newest.size == before.size:
        same = newest.root == before.root
        return None if same else f"has two histories of {newest.size} records"
    if before.size and not check_consistency(
        before.size, before.root, newest.size, newest.root, proof
    ):
        return f"of {before.size} records is no prefix of the one of {newest.size}"
    return None


# ---- `portvault log witness`: run by another party, who needs nothing of the vault but a token.


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
