"""What a statement is given many of: the types have the fields that are sent, in their order."""

from collections.abc import Sequence

import asyncpg
import pytest

from vault.domain.records import Record
from vault.sql.fax_intake import GIVEN


@pytest.mark.parametrize(
    "name, fields",
    [("record_given", tuple(Record.__dataclass_fields__)), ("fax_given", GIVEN)],
)
async def test_a_type_has_the_fields_that_are_sent(
    pool: asyncpg.Pool, name: str, fields: Sequence[str]
) -> None:
    """A value in the wrong place could be taken for its neighbour."""
    found = await pool.fetch(
        "select attname from pg_attribute where attrelid = $1::text::regclass order by attnum", name
    )
    assert [row["attname"] for row in found] == list(fields)
