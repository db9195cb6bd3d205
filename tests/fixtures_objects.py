"""Object stores on real ground: directories, and buckets of a Ceph that the session starts once."""

import itertools
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import urllib3
from minio import Minio
from minio.commonconfig import ENABLED
from minio.versioningconfig import VersioningConfig

from tests.ceph import Ceph
from vault.adapters.objects import open_store
from vault.context import ObjectStore

_numbers = itertools.count(1)
TIMEOUT_SECONDS = 10.0


@pytest.fixture(scope="session")
def ceph() -> Iterator[Ceph]:
    """Run an S3 server for the session; fails, and does not skip, where Ceph is not installed."""
    cluster = Ceph()
    cluster.start()
    yield cluster
    cluster.stop()


class S3Bucket:
    """A bucket of its own for one test, and a second client to look into it."""

    def __init__(self, ceph: Ceph, *, versioned: bool) -> None:
        self.ceph = ceph
        self.name = f"bucket-{next(_numbers)}"
        self.http = urllib3.PoolManager(retries=False)
        self.client = Minio(
            ceph.endpoint, ceph.access_key, ceph.secret_key, secure=False, http_client=self.http
        )
        self.client.make_bucket(self.name)
        if versioned:
            self.client.set_bucket_versioning(self.name, VersioningConfig(ENABLED))

    def open(self, **changes: Any) -> ObjectStore:
        """Open the bucket as the vault does, with changes such as another host or key."""
        settings: dict[str, Any] = {
            "host": self.ceph.endpoint,
            "bucket": self.name,
            "access_key": self.ceph.access_key,
            "secret_key": self.ceph.secret_key,
            "timeout_seconds": TIMEOUT_SECONDS,
            **changes,
        }
        uri = f"s3+http://{settings.pop('host')}/{settings.pop('bucket')}"
        return open_store(uri, region="us-east-1", **settings)

    def everything(self, prefix: str = "") -> list[str]:
        """Return the names of all versions, markers and uploads in parts under a prefix."""
        versions = self.client.list_objects(self.name, recursive=True, include_version=True)
        uploads = self.client._list_multipart_uploads(self.name).uploads
        names = [str(item.object_name) for item in [*versions, *uploads]]
        return [name for name in names if name.startswith(prefix)]


@pytest.fixture
def s3_bucket(ceph: Ceph) -> Iterator[S3Bucket]:
    """Give a bucket without versions."""
    bucket = S3Bucket(ceph, versioned=False)
    yield bucket
    bucket.http.clear()


@pytest.fixture
def versioned_bucket(ceph: Ceph) -> Iterator[S3Bucket]:
    """Give a bucket that keeps versions."""
    bucket = S3Bucket(ceph, versioned=True)
    yield bucket
    bucket.http.clear()


class Ground:
    """A store under test, and a look at everything that lies in it, seen or not."""

    def __init__(self, store: ObjectStore, place: S3Bucket | Path, *, versioned: bool) -> None:
        self.store = store
        self.versioned = versioned
        self._place = place

    def everything(self) -> list[str]:
        """Return whatever is stored: versions, markers, uploads in parts, partial files."""
        if isinstance(self._place, S3Bucket):
            return self._place.everything()
        return [str(path) for path in self._place.rglob("*") if path.is_file()]


@pytest.fixture(params=["directory", "s3", "s3 versioned"])
async def ground(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Ground]:
    """Give each kind of object store in turn."""
    place: S3Bucket | Path
    if request.param == "directory":
        place = tmp_path / "objects"
        store = open_store(
            f"dir:{place}",
            access_key="",
            secret_key="",
            region="",
            timeout_seconds=10,
            make=True,
        )
    else:
        versioned = request.param == "s3 versioned"
        place = request.getfixturevalue("versioned_bucket" if versioned else "s3_bucket")
        assert isinstance(place, S3Bucket)
        store = place.open()
    yield Ground(store, place, versioned=request.param == "s3 versioned")
    await store.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system with room for four MiB."""
    with disk(tmp_path / "disk", 4) as place:
        yield place


@contextmanager
def disk(place: Path, size_mib: int) -> Iterator[Path]:
    """Mount a file system of a size."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small file system")
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_mib}m", "none", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)
