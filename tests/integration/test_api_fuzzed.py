"""The API called with whatever its own description allows, and what it does not, as each role."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import load_all_checks, not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import status_code_conformance

from tests.fixtures_server import Api
from tests.integration.test_everything_is_recorded import ROLES
from vault.web.routes import openapi

EXAMPLES = 3


def operations(mode: GenerationMode) -> Iterator[tuple[str, Any]]:
    """Yield each operation of the description with what makes calls of it."""
    schema = schemathesis.openapi.from_dict(openapi())
    found: Any
    for found in schema.get_all_operations():
        operation = found.ok()
        yield operation.label, operation.as_strategy(generation_mode=mode)


def call_all(api: Api, role: str, mode: GenerationMode) -> list[str]:
    """Call every operation some times, and return what was wrong."""
    load_all_checks()
    headers = {"Authorization": f"Bearer {api.tokens[role]}"}
    wrong = []
    for label, strategy in operations(mode):

        @given(case=strategy)
        @settings(
            max_examples=EXAMPLES,
            derandomize=True,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        def check(case: Any) -> None:
            response = case.call(base_url=api.url, headers=headers, timeout=20)
            case.validate_response(response, checks=[not_a_server_error, status_code_conformance])

        try:
            check()
        except Unsatisfiable:
            # What takes nothing cannot be given anything wrong.
            continue
        except Exception as error:  # noqa: BLE001 - all of them are shown together
            wrong.append(f"{label}: {error}")
    return wrong


@pytest.mark.parametrize("mode", GenerationMode)
@pytest.mark.parametrize("role", ROLES)
async def test_nothing_that_is_sent_breaks_it(api: Api, role: str, mode: GenerationMode) -> None:
    """Well formed or not, each call of each role is answered as described, and never with 500."""
    wrong = await asyncio.to_thread(call_all, api, role, mode)
    assert wrong == []
