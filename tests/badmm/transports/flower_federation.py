"""SuperLink and SuperNodes as processes on this machine, over TLS, each node with a key that was registered before."""

from __future__ import annotations

import datetime
import ipaddress
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

ROOT = Path(__file__).resolve().parents[3]
BIN = Path(sys.executable).parent
APP = ROOT / "examples" / "flower"
PEM, SSH = serialization.Encoding.PEM, serialization.Encoding.OpenSSH


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def certificates(folder: Path) -> None:
    """ca.pem, and server.pem with server.key that it has signed, for localhost."""
    now = datetime.datetime.now(datetime.UTC)
    keys = {name: ec.generate_private_key(ec.SECP256R1()) for name in ("ca", "server")}
    names = {name: x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]) for name in keys}
    places = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    for name, key in keys.items():
        made = x509.CertificateBuilder().subject_name(names[name]).issuer_name(names["ca"])
        made = made.public_key(key.public_key()).serial_number(x509.random_serial_number())
        made = made.not_valid_before(now - datetime.timedelta(1)).not_valid_after(now + datetime.timedelta(1))
        made = made.add_extension(x509.BasicConstraints(ca=name == "ca", path_length=None), critical=True)
        made = made.add_extension(x509.SubjectAlternativeName(places), critical=False)
        (folder / f"{name}.pem").write_bytes(made.sign(keys["ca"], hashes.SHA256()).public_bytes(PEM))
    none = serialization.NoEncryption()
    (folder / "server.key").write_bytes(keys["server"].private_bytes(PEM, serialization.PrivateFormat.PKCS8, none))


def node_key(folder: Path, name: str) -> None:
    """NAME.key and NAME.pub as ssh-keygen writes them."""
    key, none = ec.generate_private_key(ec.SECP384R1()), serialization.NoEncryption()
    (folder / f"{name}.key").write_bytes(key.private_bytes(PEM, serialization.PrivateFormat.OpenSSH, none))
    public = key.public_key().public_bytes(SSH, serialization.PublicFormat.OpenSSH)
    (folder / f"{name}.pub").write_bytes(public)


class Federation:
    """A SuperLink in `folder`, ended with all of its processes at the end of the context."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        certificates(folder)
        home = folder / "home"
        home.mkdir()
        address = f'address = "127.0.0.1:{self.port}"\nroot-certificates = "{folder / "ca.pem"}"\n'
        (home / "config.toml").write_text(f'[superlink]\ndefault = "study"\n[superlink.study]\n{address}', "utf-8")
        path = os.pathsep.join([str(ROOT), str(ROOT / "kernels"), os.environ.get("PYTHONPATH", "")])
        off = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1", "FLWR_HOME": str(home)}
        threads = {"OMP_NUM_THREADS": "1", "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
        self.environment = {**os.environ, **off, **threads, "PYTHONPATH": path}

    def __enter__(self) -> Federation:
        tls = [f"--ssl-{part}={self.folder / file}" for part, file in self._server_files()]
        there = ["--host", "127.0.0.1", "--port", str(self.port), "--database", str(self.folder / "link.db")]
        lean = ["--enable-supernode-auth", "--disable-runtime-dependency-installation"]
        self._start("link", [str(BIN / "flower-superlink"), *tls, *there, *lean])
        self.until(lambda: "Uvicorn running" in self.log("link"), "link")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for name in list(self.processes):
            self.kill(name, signal.SIGTERM)

    @staticmethod
    def _server_files() -> list[tuple[str, str]]:
        return [("ca-certfile", "ca.pem"), ("certfile", "server.pem"), ("keyfile", "server.key")]

    def _start(self, name: str, command: list[str]) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                command, env=self.environment, cwd=self.folder, stdout=log, stderr=log, start_new_session=True
            )

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text("utf-8", "replace")

    def until(self, true: Callable[[], bool], name: str, limit: float = 300.0) -> None:
        began = time.monotonic()
        while not true():
            assert time.monotonic() - began < limit, self.log(name)[-3000:]
            time.sleep(0.2)

    def flwr(self, *arguments: str) -> str:
        command = [str(BIN / "flwr"), *arguments]
        done = subprocess.run(command, env=self.environment, cwd=APP, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def register(self, name: str) -> None:
        """Make a key for a node and let the SuperLink know it."""
        node_key(self.folder, name)
        told = json.loads(self.flwr("supernode", "register", str(self.folder / f"{name}.pub"), "--format", "json"))
        assert told["success"], told

    def node(self, name: str, site: Path) -> None:
        """Start a SuperNode with its key and its site's file."""
        tls = [f"--ssl-{part}={self.folder / file}" for part, file in self._server_files()]
        link = ["--superlink", f"127.0.0.1:{self.port}", "--root-certificates", str(self.folder / "ca.pem")]
        own = ["--auth-supernode-private-key", str(self.folder / f"{name}.key"), "--node-config", f'site="{site}"']
        there = ["--host", "127.0.0.1", "--port", str(free_port())]
        self._start(name, [str(BIN / "flower-supernode"), *link, *tls, *own, *there])

    def kill(self, name: str, how: signal.Signals = signal.SIGKILL) -> int:
        """End a node, and whatever it has started, and wait for it."""
        process = self.processes.pop(name)
        if process.poll() is None:
            os.killpg(process.pid, how)
        try:
            return process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return process.wait(30)
