"""What is said of a statement that many callers share: declared beside its SQL, see `Committer`."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from vault.sql.connection import Connection

Item = TypeVar("Item")
Result = TypeVar("Result")
Item_contra = TypeVar("Item_contra", contravariant=True)
Result_co = TypeVar("Result_co", covariant=True)
#: Commits the items; None for one that was left out, because a lock would have to be waited for.
Commit = Callable[[Connection, Sequence[Item]], Awaitable[Sequence[Result | None]]]
#: Commits one item, however long its locks take.
CommitAlone = Callable[[Connection, Item], Awaitable[Result]]


@dataclass(frozen=True, slots=True, eq=False)
class Shared(Generic[Item_contra, Result_co]):
    """
    A statement that commits what many callers bring.

    `together` is one transaction and never waits for a row that somebody has locked; `alone` does.
    With `intents` it makes access records durable before something is done, and may take only as
    long as the recorder.
    """

    #: Names its connection: `portvault-NAME` in `pg_stat_activity`.
    name: str
    together: Commit[Item_contra, Result_co]
    alone: CommitAlone[Item_contra, Result_co]
    intents: bool = False
