"""The doctor's look at a region's store: it is the region's own, and knows no more than it may."""

from contextlib import suppress
from functools import partial
from pathlib import Path

from keys.damage import PassedOver
from keys.errors import CustodianConfigurationError, CustodianUnavailableError, RolledBackError
from keys.mirror import Mirror
from keys.notes.signing import SigningKeys
from vault.actions.bucket import CHECKPOINT, MINIMUM, newest_note, require_identity, stored_identity
from vault.actions.log_publish import less_than_bucket
from vault.adapters.objects import open_store
from vault.app import open_region_custodian
from vault.commands.doctor_known import Known
from vault.config import Config
from vault.context import SIGNER_NAME, STORE_IDENTITY, ObjectStore
from vault.domain.checkpoint import open_checkpoint, open_minimum


async def check_store(
    config: Config, region: str, known: Known, *, new: bool = False
) -> tuple[str, str]:
    """Look whether a region's store is its own, and knows no more than the database."""
    address = config.objects_uri(region)
    # A directory is its first start's to make: what is not known as the store is not written to.
    first = new or (region in known.mirrors and region not in known.stores)
    directory = address.partition(":")[2] if address.startswith("dir:") else None
    if first and directory is not None and not Path(directory).expanduser().exists():
        return "warn", f"{address} is not there yet; `portvault serve` makes it"
    store = open_store(
        address,
        access_key=config.s3_access_key,
        secret_key=config.s3_secret_key,
        region=config.s3_region,
        timeout_seconds=config.store_timeout_seconds,
    )
    try:
        if region in known.stores:
            await require_identity(store, region, known.stores[region])
        elif directory is not None and await stored_identity(store) is None:
            return "warn", (
                f"{address} carries no {STORE_IDENTITY}, and the database does not say that it "
                "should: `portvault serve` begins it, if that is the right directory, mounted"
            )
        await store.check()
        junk, noted = await _junk(config, region, known, store)
    except RolledBackError:
        return "fail", less_than_bucket(region)
    finally:
        await store.close()
    if noted is not None and noted > known.sizes.get(region, noted):
        return "fail", less_than_bucket(region)
    if noted is None and known.published.get(region):
        return "fail", (
            f"{address} holds no checkpoint of the log that this vault signed, though the log was "
            "published there. If it is the right bucket, and the signing key the right one, "
            f"`portvault repair --region {region}` writes it anew from the database; if the "
            f"bucket is another one, mend PORTVAULT_OBJECTS"
        )
    if junk:
        return "warn", (
            f"{address}: {len(junk)} objects claim to be the vault's and do not verify; they are "
            f"passed over, find out who put them there, then remove them: {', '.join(junk)}"
        )
    return "ok", address


async def _junk(
    config: Config, region: str, known: Known, store: ObjectStore
) -> tuple[list[str], int | None]:
    """
    Return names of objects in the bucket that the vault passes over, and the checkpoint's size.

    Raises `RolledBackError` where the bucket knows a later segment of the mirror.
    """
    passed_over, sizes = PassedOver(), dict[str, int]()
    if config.signing_key_path.exists():
        signer = SigningKeys(config.signing_key_path, SIGNER_NAME)
        for kind, opened in ((CHECKPOINT, open_checkpoint), (MINIMUM, open_minimum)):
            verify = partial(opened, opener=signer, region=region)
            found = await newest_note(store, region, kind, verify, passed_over, required=False)
            sizes |= {kind: found[0].size} if found else {}
    if region in known.mirrors:
        # A custodian that cannot be used is a finding of its own.
        with suppress(CustodianConfigurationError, CustodianUnavailableError):
            await _pass_over_segments(config, region, known.mirrors[region], store, passed_over)
    return passed_over.names(region), sizes.get(CHECKPOINT)


async def _pass_over_segments(
    config: Config, region: str, mirrored: int, store: ObjectStore, passed_over: PassedOver
) -> None:
    """Look for segments of the mirror that are later than any that was written."""
    custodian = open_region_custodian(config, region)
    try:
        await Mirror(store, custodian, region, passed_over).require_none_later(mirrored)
    finally:
        await custodian.close()
