"""The main job with the objects in a real S3 bucket that keeps versions."""

from collections.abc import AsyncIterator
from dataclasses import replace
from uuid import UUID

import pytest

from tests.fixtures_objects import S3Bucket
from tests.fixtures_server import OPERATOR, Api, in_pieces
from vault.actions.keys import seal
from vault.actions.shred import purge_shredded
from vault.app import open_vault
from vault.config.settings import Config
from vault.context import Vault
from vault.domain.documents import object_name


@pytest.fixture
async def vault(config: Config, versioned_bucket: S3Bucket) -> AsyncIterator[Vault]:
    """Open a vault as its settings would, on the bucket."""
    place = versioned_bucket
    settings = replace(
        config,
        regions=("uk",),
        objects=f"s3+http://{place.ceph.endpoint}/{place.name}",
        s3_access_key=place.ceph.access_key,
        s3_secret_key=place.ceph.secret_key,
        store_timeout_seconds=10.0,
    )
    async with open_vault(settings, dsn=settings.database) as opened:
        yield opened


async def test_from_upload_to_the_last_version_purged(
    vault: Vault, api: Api, versioned_bucket: S3Bucket, passport: bytes
) -> None:
    """A scan is stored, read, shredded and sealed, and no version of its object is left."""
    order = await api.order()
    _, document = await api.put(order, passport)
    assert await api.get(document["id"]) == (200, passport)
    # An older client may have overwritten or deleted: versions and markers go, too.
    name = object_name(UUID(document["id"]))
    versioned_bucket.client.remove_object(versioned_bucket.name, name)
    assert (await api.get(document["id"]))[0] == 503
    path = f"/v1/documents/{document['id']}/actions/shred"
    assert (await api.call("POST", path, json={"reason": "test"}))[0] == 200
    assert await seal(vault, OPERATOR, "uk") is not None
    assert await purge_shredded(vault, "uk") == 1
    assert versioned_bucket.everything("documents/") == []
    assert (await api.get(document["id"]))[0] == 410


async def test_refused_uploads_leave_no_part(
    vault: Vault, api: Api, versioned_bucket: S3Bucket, passport: bytes
) -> None:
    """An upload over the limit, of unknown length, leaves neither object nor part."""
    large = passport + bytes(vault.config.document_bytes_max)
    assert (await api.put(await api.order(), in_pieces(large)))[0] == 413
    assert versioned_bucket.everything("documents/") == []
