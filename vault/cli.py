"""
`portvault`: the one command. Parses, calls a command, and turns what goes wrong into one line.

The module of a command is imported when the command line names it; see `vault.commands.parser`.
"""

import argparse
import asyncio
import functools
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from keys.errors import (
    KeysError,
)
from vault import errors
from vault.adapters.process import hear_signals, protect_memory, stop_signals
from vault.commands.exits import FAILED, status_of
from vault.commands.output import tell
from vault.commands.parser import make_parser
from vault.commands.wording import worded

#: The versions of Python that the tests run on, as the classifiers of `pyproject.toml`.
TESTED = ((3, 11), (3, 13))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit."""
    # Whatever is run may hold keys, tokens or content, and at the latest from here on.
    protect_memory()
    hear_signals()
    line = sys.argv[1:] if arguments is None else arguments
    try:
        args = make_parser(line).parse_args(line)
    except KeyboardInterrupt:
        # The modules of the command were still being loaded.
        sys.exit(128 + signal.SIGINT)
    quiet = logging.INFO if args.serves else logging.ERROR
    logging.basicConfig(
        level=logging.DEBUG if args.verbose else quiet,
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
    )
    logging.getLogger("asyncio").setLevel(logging.WARNING if args.verbose else logging.ERROR)
    if args.serves or args.checks:
        _warn_of_python()
    sys.exit(_run(args))


def _warn_of_python() -> None:
    """Say so where the interpreter is of a version that the tests do not run on."""
    if (running := sys.version_info[:2]) in TESTED:
        return
    versions = [f"{major}.{minor}" for major, minor in (*TESTED, running)]
    tell(
        f"portvault: warning: this is Python {versions.pop()}; Portvault is tested with Python"
        f" {' and '.join(versions)} only"
    )


def _run(args: argparse.Namespace) -> int:
    stopped = list[signal.Signals]()
    hear_signals()
    try:
        _runner(args)(_stoppable(args, stopped))
    except (KeyboardInterrupt, asyncio.CancelledError):
        # Where something else cancelled the command, too, asyncio does not say that it was Ctrl-C.
        return 128 + (stopped or [signal.SIGINT])[0]
    except BrokenPipeError:
        # Whoever read our output has gone; nothing more is to be said, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:  # noqa: BLE001 - the last place that can still say it in a line
        if args.verbose:
            traceback.print_exc()
        return _say(error)
    return 0


def _runner(args: argparse.Namespace) -> Callable[[Coroutine[Any, Any, None]], None]:
    """Return what runs a command: the faster loop for servers, which alone load it."""
    if not args.serves:
        return asyncio.run
    import uvloop

    from vault.adapters.warm import ServerLoop

    return functools.partial(uvloop.run, loop_factory=ServerLoop)


async def _stoppable(args: argparse.Namespace, stopped: list[signal.Signals]) -> None:
    """Run the command so that what asks it to stop lets it put away what is half done."""
    task = asyncio.current_task()

    def stop(number: signal.Signals) -> None:
        stopped.append(number)
        if task is not None:
            task.cancel()

    loop = asyncio.get_running_loop()
    for number in set(stop_signals()) - {signal.SIGINT}:
        loop.add_signal_handler(number, stop, number)
    await args.run(args)


def _say(error: Exception) -> int:
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    known = isinstance(error, errors.VaultError | KeysError | OSError)
    text = str(error) if known else f"{type(error).__name__}: {error}"
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        text = f"{os.fsdecode(error.filename)}: {error.strerror}"
    tell(f"portvault: {worded(' '.join(text.split()))}")
    return status_of(error)


if __name__ == "__main__":
    main()
