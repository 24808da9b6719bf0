"""Real object stores on loopback, started for tests: Ceph's RADOS Gateway and moto (S3), an
emulator of GCS, and Azurite.

``.ci/servers`` installs them; one that is not here is skipped by its name.
"""

import contextlib
import ctypes
import http.server
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from ports import free_port

INSTALLED = Path(__file__).parents[2] / ".servers"
ATTEMPTS = 300
ACCESS_KEY, SECRET_KEY = "test", "testsecret"


def program(*names: str) -> list[str]:
    """Paths of programs; the test is skipped by the name of one that is missing."""
    places = [INSTALLED / "bin", INSTALLED / "node_modules" / ".bin"]
    path = os.pathsep.join([*map(str, places), os.environ["PATH"], "/usr/sbin"])
    found = [shutil.which(name, path=path) for name in names]
    for name, where in zip(names, found, strict=True):
        if where is None:
            pytest.skip(f"{name} is not installed (.ci/servers installs it)")
    return found


def wait_until_open(process: subprocess.Popen, port: int, what: str) -> None:
    """Return when somebody listens at the port; a program that ends instead is an error."""
    for _ in range(ATTEMPTS):
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        # A closed port refuses at once; waiting for the program to end paces the attempts.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=0.2)
            break
    raise RuntimeError(f"{what} did not start (exit status {process.poll()})")


def end_with_parent() -> None:
    """Ask the kernel to end this process when its parent ends, however that happens (Linux)."""
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


@contextlib.contextmanager
def running(command: list[str], port: int | None = None, **settings) -> Iterator[None]:
    """A server process, once it listens at this port; ended with all its children at the end."""
    nowhere = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(
        command, **nowhere, start_new_session=True, preexec_fn=end_with_parent, **settings
    )
    try:
        if port is not None:
            wait_until_open(process, port, command[0])
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextlib.contextmanager
def moto() -> Iterator[str]:
    """moto's S3 server (it checks no signatures); its endpoint."""
    [server] = program("moto_server")
    port = free_port()
    with running([server, "-H", "127.0.0.1", "-p", str(port)], port):
        yield f"http://127.0.0.1:{port}"


CEPH = """
[global]
fsid = {fsid}
mon host = [v1:127.0.0.1:{mon}]
mon initial members = a
ms bind msgr2 = false
public network = 127.0.0.0/8
auth cluster required = none
auth service required = none
auth client required = none
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
mon allow pool size one = true
mon max pg per osd = 1000
mon data avail crit = 1
osd crush chooseleaf type = 0
osd objectstore = memstore
memstore device bytes = 1073741824
osd class update on start = false
osd crush update on start = false
osd class load list = *
osd class default list = *
run dir = {folder}/run
admin socket = {folder}/run/$cluster-$name.asok
log file = {folder}/$name.log
mon data = {folder}/mon
osd data = {folder}/osd
rgw data = {folder}/rgw
[client.rgw]
rgw frontends = beast endpoint=127.0.0.1:{port}
"""


@contextlib.contextmanager
def rgw(folder: Path) -> Iterator[str]:
    """A Ceph cluster of one monitor and one OSD in memory, and its S3 gateway; the endpoint.

    Args:
        folder: For its files; a short path, because sockets lie in it.
    """
    mon, osd, gateway, ceph, admin, maptool = program(
        "ceph-mon", "ceph-osd", "radosgw", "ceph", "radosgw-admin", "monmaptool"
    )
    mon_port, port = free_port(), free_port()
    for name in ("run", "mon", "osd", "rgw"):
        (folder / name).mkdir(parents=True)
    fsid, osd_id, conf = str(uuid.uuid4()), str(uuid.uuid4()), folder / "ceph.conf"
    conf.write_text(CEPH.format(fsid=fsid, mon=mon_port, port=port, folder=folder))
    user = ["--setuser", "root", "--setgroup", "root"] if os.getuid() == 0 else []

    def do(*command: str, tries: int = 1, says: str = "") -> None:
        for _ in range(tries):
            done = subprocess.run(
                [*command, "-c", str(conf)], capture_output=True, text=True, timeout=60
            )
            if done.returncode == 0 and says in done.stdout:
                return
        raise RuntimeError(
            f"{' '.join(command)}: exit status {done.returncode}, {done.stdout[-300:]} "
            f"{done.stderr[-600:]}"
        )

    address = ["--addv", "a", f"[v1:127.0.0.1:{mon_port}]", f"{folder}/monmap"]
    do(maptool, "--create", "--clobber", "--fsid", fsid, *address)
    do(mon, "--mkfs", "-i", "a", "--monmap", f"{folder}/monmap", *user)
    with contextlib.ExitStack() as servers:
        servers.enter_context(running([mon, "-f", "-i", "a", *user, "-c", str(conf)], mon_port))
        do(ceph, "--connect-timeout", "5", "osd", "create", osd_id, "0", tries=10)
        do(osd, "-i", "0", "--mkfs", "--osd-uuid", osd_id, *user)
        do(
            ceph,
            "--connect-timeout",
            "5",
            "osd",
            "crush",
            "add",
            "osd.0",
            "1",
            "host=h",
            "root=default",
        )
        servers.enter_context(running([osd, "-f", "-i", "0", *user, "-c", str(conf)]))
        do(ceph, "--connect-timeout", "5", "osd", "stat", tries=400, says="1 up")
        keys = ["--access-key", ACCESS_KEY, "--secret-key", SECRET_KEY]
        do(admin, "user", "create", "--uid=test", "--display-name=test", *keys)
        servers.enter_context(
            running([gateway, "-f", "-n", "client.rgw", *user, "-c", str(conf)], port)
        )
        yield f"http://127.0.0.1:{port}"


S3_SERVERS = {"rgw": rgw, "moto": lambda folder: moto()}


@contextlib.contextmanager
def gcs(folder: Path) -> Iterator[dict[str, str]]:
    """An emulator of Google Cloud Storage; the environment variables with which Google's client
    speaks to it.
    """
    [server] = program("gcp-storage-emulator")
    port = free_port()
    command = [server, "start", "--host=127.0.0.1", f"--port={port}", "--in-memory"]
    with _token_server() as tokens, running(command, port, cwd=folder):
        account = folder / "account.json"
        account.write_text(json.dumps(_service_account(tokens)))
        yield {
            "STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{port}",
            "GOOGLE_APPLICATION_CREDENTIALS": str(account),
            "GOOGLE_CLOUD_PROJECT": "test",
        }


def _service_account(token_uri: str) -> dict[str, str]:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    pem = key.private_bytes(serialization.Encoding.PEM, *form).decode()
    return {
        "type": "service_account",
        "project_id": "test",
        "private_key_id": "1",
        "private_key": pem,
        "client_email": "test@test.iam.gserviceaccount.example",
        "client_id": "1",
        "token_uri": token_uri,
    }


@contextlib.contextmanager
def _token_server() -> Iterator[str]:
    """Hands out tokens to whoever asks."""

    class Tokens(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            content = json.dumps(
                {"access_token": "t", "expires_in": 3600, "token_type": "Bearer"}
            ).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Tokens) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/token"
        server.shutdown()


@contextlib.contextmanager
def azurite(folder: Path) -> Iterator[str]:
    """Microsoft's emulator of Azure's blob service; the URL of its one account."""
    [server] = program("azurite-blob")
    port = free_port()
    options = [
        "--blobHost",
        "127.0.0.1",
        "--blobPort",
        str(port),
        "--location",
        str(folder),
        "--silent",
    ]
    with running([server, *options, "--skipApiVersionCheck"], port):
        yield f"http://127.0.0.1:{port}/devstoreaccount1"
