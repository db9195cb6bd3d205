"""
Trying again what met a key that a seal was just re-keying: the one such loop.

A row with a wrapped key is read, then its key is opened; where a seal went by between the two, the
row that was read is stale (`StaleScopeError`), and reading it again is all there is to do.
"""

from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from keys.errors import StaleScopeError
from vault.errors import KeysBusyError

#: One seal makes a row stale once; so many in a row are many seals, or one that never ends.
ATTEMPTS = 5

P = ParamSpec("P")
T = TypeVar("T")


def retried(
    step: Callable[P, Coroutine[Any, Any, T]],
) -> Callable[P, Coroutine[Any, Any, T]]:
    """
    Return the step, called again while it raises `StaleScopeError`, at most `ATTEMPTS` times.

    Each call has to read its rows itself. Raises `KeysBusyError` when all of them were stale.
    """

    @wraps(step)
    async def call(*args: P.args, **kwargs: P.kwargs) -> T:
        for _ in range(ATTEMPTS):
            try:
                return await step(*args, **kwargs)
            except StaleScopeError:
                continue
        raise KeysBusyError

    return call
