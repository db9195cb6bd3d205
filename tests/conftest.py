"""
What every test may use: each piece brings its fixtures in a module `fixtures_<piece>.py`.

Workers share the tests out (`scripts/test`). Tests that need the same dear server are of one group,
which one worker runs, so that the server is started once.
"""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import uvloop

from vault.adapters.process import look_less

pytest_plugins = [
    f"tests.{path.stem}" for path in sorted(Path(__file__).parent.glob("fixtures_*.py"))
]

#: Fixtures of the session that take seconds to start, with those that ask for them by name.
DEAR = {
    "ceph": ("ceph", "ground"),
    "provider": ("identity_provider",),
    "bao": ("bao",),
    "wheel": ("wheels_server",),
}
#: What lasts longest begins first, so that no worker is left alone with it at the end.
LONGEST_FIRST = ("simulation", "model", "scenarios", "integration", "unit")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put what shares a server into one group, and the longest tests first."""
    if config.getoption("dist", "no") == "no":
        return
    for item in items:
        used = getattr(item, "fixturenames", ())
        for name, fixtures in DEAR.items():
            if any(fixture in used for fixture in fixtures):
                item.add_marker(pytest.mark.xdist_group(name))
    items.sort(key=lambda item: LONGEST_FIRST.index(item.path.parent.name))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Have the garbage collector leave alone what was loaded to find the tests, as in a server."""
    del session
    look_less()


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run the tests on the loop that a server runs on."""
    return {"uvloop": uvloop.new_event_loop}
