"""
A real S3 server for tests: a Ceph cluster of one node, on loopback, in a temporary directory.

Monitor, manager, one store on a sparse file, and the RADOS gateway, with cephx between them. All
keys are made beforehand, so that the cluster comes up with few slow administrative calls. The
daemons end with the process that started them.
"""

import base64
import os
import secrets
import shutil
import socket
import struct
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path

PROGRAMS = ("ceph", "ceph-mon", "ceph-mgr", "ceph-osd", "ceph-authtool", "monmaptool")
GATEWAY_PROGRAMS = ("radosgw", "radosgw-admin", "setpriv")
START_SECONDS = 120.0
COMMAND_SECONDS = 60.0
LOG_TAIL = 1500

CAPABILITIES = {
    "mon.": {"mon": "allow *"},
    "client.admin": {"mon": "allow *", "mgr": "allow *", "osd": "allow *"},
    "mgr.x": {"mon": "allow profile mgr", "osd": "allow *"},
    "osd.0": {"mon": "allow profile osd", "mgr": "allow profile osd", "osd": "allow *"},
    "client.rgw": {"mon": "allow rw", "osd": "allow rwx"},
}

SETTINGS = """\
[global]
fsid = {fsid}
mon_host = [v2:127.0.0.1:{v2}/0,v1:127.0.0.1:{v1}/0]
public_network = 127.0.0.0/8
auth_cluster_required = cephx
auth_service_required = cephx
auth_client_required = cephx
auth_allow_insecure_global_id_reclaim = false
keyring = {home}/keyring
run_dir = {home}
admin_socket = {home}/$name.sock
pid_file =
crash_dir = {home}
log_file = {home}/$name.log
mon_cluster_log_file = {home}/cluster.log
log_to_stderr = false
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 1
osd_pool_default_pgp_num = 1
osd_pool_default_pg_autoscale_mode = off
mon_allow_pool_size_one = true
mon_max_pg_per_osd = 10000
mon_data = {home}/mon
mon_data_avail_warn = 1
mon_data_avail_crit = 1
paxos_propose_interval = 0.05
paxos_min_wait = 0.02
mgr_data = {home}/mgr
mgr_module_path = {home}/modules
mgr_initial_modules =
osd_data = {home}/osd
osd_objectstore = bluestore
osd_crush_chooseleaf_type = 0
osd_memory_target = 1073741824
osd_class_update_on_start = false
bluestore_block_size = {block_bytes}
rgw_data = {home}/rgw
rgw_frontends = beast endpoint=127.0.0.1:{s3} tcp_nodelay=1
rgw_rados_pool_pg_num_min = 1
rgw_dynamic_resharding = false
rgw_override_bucket_index_max_shards = 1
rgw_enable_lc_threads = false
rgw_enable_quota_threads = false
rgw_run_sync_thread = false
rgw_thread_pool_size = 64
rgw_crypt_require_ssl = false
"""
BLOCK_BYTES = 8 * 1024**3


class Ceph:
    """One cluster; `start` returns when the gateway answers, `stop` leaves nothing behind."""

    def __init__(self) -> None:
        missing = [name for name in PROGRAMS + GATEWAY_PROGRAMS if shutil.which(name) is None]
        if missing:
            raise RuntimeError(
                f"the S3 tests need {', '.join(missing)}; install the packages ceph-common, "
                "ceph-mon, ceph-mgr, ceph-osd, radosgw and util-linux"
            )
        # Paths of Unix sockets may have some 100 characters only.
        self.home = Path(tempfile.mkdtemp(prefix="pvceph", dir="/tmp"))
        self.access_key = "P" + secrets.token_hex(9).upper()
        self.secret_key = secrets.token_hex(20)
        ports = _free_ports(3)
        self.port = ports[2]
        self._monitor_ports = ports[:2]
        self._fsid = str(uuid.uuid4())
        self._running: list[subprocess.Popen[bytes]] = []

    @property
    def endpoint(self) -> str:
        """Host and port of the S3 server."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start everything; raises with the ends of the logs when something does not come up."""
        try:
            self._configure()
            self._start_monitor()
            self._start_store()
            self._make_user()
            self._daemon("radosgw", "-n", "client.rgw")
            self._wait_for_gateway()
        except BaseException as error:
            error.add_note(self._logs())
            self.stop()
            raise

    def stop(self) -> None:
        """End every daemon by force, and remove what they stored."""
        for process in reversed(self._running):
            process.kill()
        for process in self._running:
            process.wait()
        self._running.clear()
        shutil.rmtree(self.home, ignore_errors=True)

    def _configure(self) -> None:
        v1, v2 = self._monitor_ports
        for name in ("mon", "mgr", "osd", "rgw", "modules"):
            (self.home / name).mkdir()
        (self.home / "ceph.conf").write_text(
            SETTINGS.format(
                fsid=self._fsid,
                home=self.home,
                v1=v1,
                v2=v2,
                s3=self.port,
                block_bytes=BLOCK_BYTES,
            )
        )
        lines = []
        for name, allowed in CAPABILITIES.items():
            lines += [f"[{name}]", f"\tkey = {_new_key()}"]
            lines += [f'\tcaps {service} = "{what}"' for service, what in allowed.items()]
        (self.home / "keyring").write_text("\n".join(lines) + "\n")

    def _start_monitor(self) -> None:
        v1, v2 = self._monitor_ports
        monmap = str(self.home / "monmap")
        address = f"[v2:127.0.0.1:{v2},v1:127.0.0.1:{v1}]"
        self._run("monmaptool", "--create", "--addv", "a", address, "--fsid", self._fsid, monmap)
        keyring = str(self.home / "keyring")
        self._run("ceph-mon", "--mkfs", "-i", "a", "--monmap", monmap, "--keyring", keyring)
        self._daemon("ceph-mon", "-i", "a")

    def _start_store(self) -> None:
        identity = str(uuid.uuid4())
        self._run("ceph", "osd", "new", identity)
        self._daemon("ceph-mgr", "-i", "x")
        self._run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", identity)
        self._daemon("ceph-osd", "-i", "0")

    def _make_user(self) -> None:
        self._run(
            "radosgw-admin",
            "-n",
            "client.rgw",
            "user",
            "create",
            "--uid=portvault",
            "--display-name=portvault",
            f"--access-key={self.access_key}",
            f"--secret-key={self.secret_key}",
        )

    def _wait_for_gateway(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                with urllib.request.urlopen(f"http://{self.endpoint}/", timeout=5):
                    return
            except (urllib.error.URLError, OSError):
                dead = [process.args for process in self._running if process.poll() is not None]
                if dead or time.monotonic() > deadline:
                    raise RuntimeError(f"the gateway does not answer; ended: {dead}") from None
            time.sleep(0.1)

    def _run(self, *command: str) -> None:
        done = subprocess.run(
            self._with_settings(command),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{command[:4]} failed: {done.stdout.decode()[-LOG_TAIL:]}")

    def _daemon(self, *command: str) -> None:
        ending_with_us = ("setpriv", "--pdeathsig", "KILL", "--")
        with (self.home / f"{command[0]}.out").open("wb") as output:
            self._running.append(
                subprocess.Popen(
                    [*ending_with_us, *self._with_settings(command), "-f"],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    cwd=self.home,
                )
            )

    def _with_settings(self, command: tuple[str, ...]) -> list[str]:
        if command[0] == "monmaptool":
            return list(command)
        return [command[0], "-c", str(self.home / "ceph.conf"), *command[1:]]

    def _logs(self) -> str:
        files = sorted([*self.home.glob("*.log"), *self.home.glob("*.out")])
        ends = [(file, file.read_text(errors="replace")[-LOG_TAIL:]) for file in files]
        return "\n".join(f"--- {file.name}\n{end}" for file, end in ends if end)


def _new_key() -> str:
    """Make a cephx key: a header of type, time and length, and sixteen random bytes."""
    made = int(time.time())
    return base64.b64encode(struct.pack("<HIIH", 1, made, 0, 16) + os.urandom(16)).decode()


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for opened in sockets:
        opened.bind(("127.0.0.1", 0))
    ports = [opened.getsockname()[1] for opened in sockets]
    for opened in sockets:
        opened.close()
    return ports
