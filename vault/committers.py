"""Wires what commits for many: each statement that is worth sharing, on a connection of its own."""

from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import TypeVar
from uuid import UUID

from keys.keyring import Keyring
from vault.adapters.committer import Commit, CommitAlone, GroupCommitter
from vault.config import Config
from vault.domain.faxes import Fax
from vault.sql.connection import Pool
from vault.sql.documents import Found, find_many, find_with_key
from vault.sql.fax_intake import NewFax, Taken, take_many, take_one
from vault.sql.faxes import (
    Ending,
    Looked,
    Opened,
    Opening,
    end_many,
    end_one,
    look_at_many,
    look_at_one,
    open_many,
    open_one,
)
from vault.sql.intake import (
    Announced,
    Announcement,
    Keeping,
    Kept,
    announce_many,
    announce_one,
    keep_many,
    keep_one,
)
from vault.sql.session import SERVICE_ROLE

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Committers:
    """The seven: two for uploads, one for reads, four for faxes."""

    announcer: GroupCommitter[Announcement, Announced]
    keeper: GroupCommitter[Keeping, Kept]
    finder: GroupCommitter[UUID, Found]
    fax_finder: GroupCommitter[UUID, Looked]
    fax_opener: GroupCommitter[Opening, Opened]
    fax_taker: GroupCommitter[NewFax, Taken]
    fax_ender: GroupCommitter[Ending, Fax | None]


async def open_committers(
    stack: AsyncExitStack, config: Config, dsn: str, pool: Pool, keyring: Keyring
) -> Committers:
    """Open all of them until the stack is left."""

    async def opened(
        name: str,
        together: Commit[Item, Result],
        alone: CommitAlone[Item, Result],
        timeout_seconds: float = config.database_timeout_seconds,
    ) -> GroupCommitter[Item, Result]:
        return await stack.enter_async_context(
            GroupCommitter(
                name,
                dsn,
                pool,
                together=together,
                alone=alone,
                role=SERVICE_ROLE,
                timeout_seconds=timeout_seconds,
            )
        )

    return Committers(
        announcer=await opened(
            "announcer", announce_many, announce_one, config.record_timeout_seconds
        ),
        keeper=await opened("keeper", keep_many, keep_one),
        finder=await opened("finder", find_many, find_with_key),
        fax_finder=await opened("fax-finder", look_at_many, look_at_one),
        fax_opener=await opened("fax-opener", open_many, open_one, config.record_timeout_seconds),
        fax_taker=await opened("fax-taker", take_many, take_one),
        fax_ender=await opened("fax-ender", partial(end_many, keyring), partial(end_one, keyring)),
    )
