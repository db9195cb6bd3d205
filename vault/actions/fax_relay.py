"""
The relay: deliver inbound faxes by mail, to where the operator's routes say.

A fax is claimed for a time, read into memory, made a PDF and handed to the next hop; its 250 counts
as delivery. A crash between the 250 and its record leaves a claim that runs out: the fax is sent
again with the same Message-ID, so it is the recipient's mailbox that may see it twice, and never
nobody who sees it.
"""

import asyncio
import logging
from datetime import timedelta
from uuid import UUID

from keys.damage import DamagedError
from keys.errors import KeysError
from vault.actions.fax_ending import DAMAGED, deliver_fax, fail_fax
from vault.actions.fax_reading import OpenFax, open_fax
from vault.actions.seal import worker
from vault.context import Vault
from vault.domain.fax_mail import compose
from vault.domain.faxes import Channel, clean_facts
from vault.errors import (
    ConflictError,
    LeftBehindError,
    MailDeferredError,
    MailRefusedError,
    NotFoundError,
    ShreddedError,
    UnavailableError,
    VaultError,
)
from vault.sql import fax_intake as fax_intake_sql
from vault.sql.connection import connection

#: How often the fax is in memory while it is sent: itself, as PDF, in base64, and as a mail.
COPIES = 5
#: Whose turn it is in the sandbox when a fax is made ready to be sent.
RELAY = "relay"
log = logging.getLogger(__name__)

#: How often the record of a delivery is tried before the claim is left to run out.
RECORD_TRIES, RECORD_PAUSE_SECONDS = 5, 1.0


async def relay_faxes(vault: Vault, region: str) -> int:
    """Try what is due, some at once; returns how many."""
    if not vault.fax_routes:
        return 0
    now = vault.clock()
    async with connection(vault.pool) as conn:
        faxes = await fax_intake_sql.claim(
            conn,
            region,
            Channel.MAIL,
            now=now,
            until=now + timedelta(seconds=vault.config.fax_attempt_seconds_max),
            limit=vault.config.fax_relays_max,
        )
    async with asyncio.TaskGroup() as group:
        for fax in faxes:
            group.create_task(_relay(vault, fax))
    return len(faxes)


async def _relay(vault: Vault, identity: UUID) -> None:
    """Try one fax; whatever goes wrong with it keeps no other from being tried."""
    try:
        await _try(vault, identity)
    except Exception as error:  # noqa: BLE001 - the others are on their way meanwhile
        # Its claim runs out, and it is tried again. The error may quote what was being sent.
        log.error("fax %s could not be tried: %s", identity, type(error).__name__)


async def _try(vault: Vault, identity: UUID) -> None:
    """Send one fax, and record what became of it."""
    try:
        said = await _send(vault, identity)
    except (ShreddedError, LeftBehindError, NotFoundError):
        return
    except MailRefusedError as error:
        await _fail(vault, identity, str(error), final=True)
    except DamagedError:
        await _fail(vault, identity, DAMAGED, final=False)
    except (VaultError, KeysError) as error:
        log.info("fax %s is tried again: %s", identity, type(error).__name__)
        reason = str(error) if isinstance(error, MailDeferredError) else type(error).__name__
        await _fail(vault, identity, reason, final=False)
    else:
        await _deliver(vault, identity, said)


async def _send(vault: Vault, identity: UUID) -> str:
    # Until the next hop has it, the fax is open: what ends meanwhile is not sent on.
    with vault.memory.share() as share:
        async with open_fax(vault, worker(vault), identity) as opened:
            share.grow(opened.fax.size_bytes * COPIES)
            data = b"".join([chunk async for chunk in opened.chunks])
            return await _mail(vault, opened, data)


async def _mail(vault: Vault, opened: OpenFax, data: bytes) -> str:
    fax, numbers = opened.fax, opened.numbers
    route = vault.fax_routes.find(numbers.callee)
    if route is None:
        raise MailDeferredError("its number has no route any more")
    # What is mailed was written here, page by page, whatever a sender put into it.
    data = await vault.sandbox.convert(
        data, fax.media_type, pages_max=vault.config.fax_pages_max, sender=RELAY
    )
    letter = compose(
        fax,
        numbers,
        data,
        sender=vault.config.fax_mail_from,
        recipient=route.address,
        now=vault.clock(),
    )
    return await vault.mailer.send(
        route, vault.fax_routes.domain(route.domain), str(fax.id), letter
    )


async def _deliver(vault: Vault, identity: UUID, said: str) -> None:
    # A crash here: see above.
    for _ in range(RECORD_TRIES):
        try:
            await deliver_fax(vault, worker(vault), identity, result=said)
            return
        except UnavailableError:
            await asyncio.sleep(RECORD_PAUSE_SECONDS)
        except (ConflictError, NotFoundError):
            # Its time was over while it was on its way.
            return


async def _fail(vault: Vault, identity: UUID, reason: str, *, final: bool) -> None:
    said = clean_facts({"message": reason}).get("message", "failed")
    try:
        await fail_fax(vault, worker(vault), identity, reason=said, final=final)
    except VaultError as error:
        # The claim runs out, and the fax is tried again.
        log.info("the failure of fax %s is not recorded: %s", identity, type(error).__name__)
