"""Signatures for S3 are those that the minio client makes."""

from datetime import UTC, datetime
from urllib.parse import urlsplit

from hypothesis import given
from hypothesis import strategies as st
from minio.credentials.credentials import Credentials
from minio.signer import sign_v4_s3
from minio.time import to_amz_date

from vault.adapters.s3_requests import UNSIGNED, Signer, encode_query

NAMES = st.text("abcxyz0189-_./", min_size=1, max_size=40)
WORDS = st.text("abcXYZ0189-_.~", min_size=1, max_size=20)
TIMES = st.datetimes(datetime(2020, 1, 1), datetime(2090, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - hypothesis adds UTC


@given(
    method=st.sampled_from(["PUT", "GET", "POST", "DELETE"]),
    name=NAMES,
    query=st.dictionaries(WORDS, st.text(max_size=20), max_size=3),
    region=WORDS,
    keys=st.tuples(WORDS, st.text("abcXYZ0189+/=", min_size=1, max_size=40)),
    times=st.lists(TIMES, min_size=1, max_size=3),
)
def test_the_signature_is_the_clients(method, name, query, region, keys, times) -> None:
    """For any request at any time, one day after another, the headers are those of minio."""
    signer = Signer("s3.example:9000", region, *keys)
    path, encoded = f"/bucket/{name}", encode_query(query)
    for now in times:
        theirs = sign_v4_s3(
            method=method,
            url=urlsplit(f"http://s3.example:9000{path}?{encoded}"),
            region=region,
            headers={
                "Host": "s3.example:9000",
                "x-amz-content-sha256": UNSIGNED,
                "x-amz-date": to_amz_date(now),
            },
            credentials=Credentials(*keys),
            content_sha256=UNSIGNED,
            date=now,
        )
        assert signer.headers(method, path, encoded, now) == theirs


def test_a_signer_hides_its_keys() -> None:
    """What is printed of a signer shows neither key."""
    shown = repr(Signer("s3.example", "eu", "access", "secret"))
    assert "access" not in shown
    assert "secret" not in shown
