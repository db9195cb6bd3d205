"""What met a key that is being re-keyed is tried again, so often and no more."""

import pytest

from keys.errors import KeyDestroyedError, StaleScopeError
from vault.actions.retry import ATTEMPTS, retried
from vault.errors import ConflictError, KeysBusyError


@pytest.mark.parametrize("stale", [0, 1, ATTEMPTS - 1])
async def test_a_step_is_called_again_while_its_rows_are_stale(stale: int) -> None:
    """The first call that meets no stale row gives the result."""
    called = list[str]()

    @retried
    async def step(word: str) -> str:
        called.append(word)
        if len(called) <= stale:
            raise StaleScopeError
        return word.upper()

    assert await step("word") == "WORD"
    assert called == ["word"] * (stale + 1)


async def test_keys_that_never_rest_are_a_conflict() -> None:
    """After the last attempt it is said what goes on, as a conflict; nothing is tried for ever."""
    called = list[int]()

    @retried
    async def step() -> None:
        called.append(1)
        raise StaleScopeError

    with pytest.raises(KeysBusyError, match="are being sealed; try again") as caught:
        await step()
    assert isinstance(caught.value, ConflictError)
    assert len(called) == ATTEMPTS


async def test_another_error_is_not_tried_again() -> None:
    """A key that is destroyed stays so."""
    called = list[int]()

    @retried
    async def step() -> None:
        called.append(1)
        raise KeyDestroyedError

    with pytest.raises(KeyDestroyedError):
        await step()
    assert len(called) == 1
