"""The programs of PostgreSQL: what other accounts of the machine may see of how they are called."""

import pytest

from vault.adapters.postgres.cluster import without_password


@pytest.mark.parametrize(
    "dsn, shown, password",
    [
        ("postgresql://u:p%40w@h:5432/d?a=b", "postgresql://u@h:5432/d?a=b", "p@w"),
        ("postgresql:///d?user=u&password=p%2Fw", "postgresql:///d?user=u", "p/w"),
        ("postgresql://u@/d?host=%2Ftmp", "postgresql://u@/d?host=%2Ftmp", None),
        ("postgresql://h/d", "postgresql://h/d", None),
    ],
)
def test_no_password_stands_among_the_arguments(dsn: str, shown: str, password: str | None) -> None:
    """The address keeps everything but the password, wherever it stood."""
    assert without_password(dsn) == (shown, password)
