"""A real registry, and real engines with a base image, on this machine: nothing is pulled.

The registry is Debian's ``docker-registry``; the engines are podman and buildah with settings and
storage in a folder of their own; the base image is made of this machine's own CPython. What is
missing is installed by ``.ci/install-containers``.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.server
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
PROGRAMS = ("docker-registry", "podman", "buildah", "runc")
USER, PASSWORD = "ada", "s3cret"
#: bcrypt of PASSWORD; the registry takes no other kind.
_HTPASSWD = f"{USER}:$2b$05$aIvWh/Xn0NbAdcWYwO7pHuYGApatYFZy2SKbMc.QY0E2WTXfmlewy\n"
_STRIPPED = re.compile(
    r"(test|idlelib|tkinter|ensurepip|lib2to3|turtledemo|config-.*|site-packages|dist-packages|"
    r"__pycache__)$"
)
_TOOLS = ("cat", "chmod", "cp", "env", "id", "ls", "mkdir", "mktemp", "mv", "pwd", "rm", "sleep",
          "stat", "test", "touch", "true", "uname", "find", "readlink")  # fmt: skip


def missing() -> list[str]:
    """What of PROGRAMS this machine does not have."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    return [name for name in PROGRAMS if shutil.which(name, path=path) is None]


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    """Until something listens there; fails when the process ends before."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        if process.poll() is not None:
            break
        select_pause()
    raise AssertionError(f"nothing listens on port {port}")


def select_pause() -> None:
    """Let the other process have the processor for a moment between two looks."""
    threading.Event().wait(0.01)


class RegistryServer:
    """One ``docker-registry`` process. ``auth`` is its configuration's section, as YAML."""

    def __init__(self, folder: Path, auth: str = "") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.port = free_port()
        self.address = f"localhost:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None
        (folder / "config.yml").write_text(
            "version: 0.1\nlog: {level: warn}\n"
            f"storage:\n  filesystem: {{rootdirectory: {folder}/data}}\n"
            "  delete: {enabled: true}\n"
            f'http: {{addr: "127.0.0.1:{self.port}", secret: tests}}\n{auth}',
            encoding="utf-8",
        )

    def start(self) -> RegistryServer:
        """Start it (again), and wait until it listens."""
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._argv(),
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        wait_for(self.port, self._process)
        return self

    def _argv(self) -> list[str]:
        return ["docker-registry", "serve", str(self.folder / "config.yml")]

    def kill(self) -> None:
        """SIGKILL, as a crash does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def log(self) -> str:
        """What it has logged."""
        return (self.folder / "log").read_text(encoding="utf-8")


class Distribution(RegistryServer):
    """The same project's next version, built from its source."""

    def _argv(self) -> list[str]:
        return ["distribution", "serve", str(self.folder / "config.yml")]


class Crane(RegistryServer):
    """Another registry altogether, of go-containerregistry."""

    def _argv(self) -> list[str]:
        place = self.folder / "data"
        place.mkdir(exist_ok=True)
        address = f"127.0.0.1:{self.port}"
        return ["crane", "registry", "serve", "--address", address, "--disk", str(place)]


class SmallRegistry(RegistryServer):
    """A registry whose disk has so many bytes: a file system in memory that only it sees."""

    def __init__(self, folder: Path, size: int) -> None:
        super().__init__(folder)
        self._size = size
        (folder / "data").mkdir()

    def _argv(self) -> list[str]:
        own = [] if os.getuid() == 0 else ["--map-root-user"]
        mount = 'mount -t tmpfs -o size="$0" none "$1" && shift && exec "$@"'
        data = str(self.folder / "data")
        return ["unshare", "--mount", *own, "sh", "-c", mount, str(self._size), data,
                *super()._argv()]  # fmt: skip

    @property
    def data(self) -> Path:
        """Its disk, as seen from here."""
        assert self._process is not None
        return Path(f"/proc/{self._process.pid}/root{self.folder}/data")

    def resize(self, size: int) -> None:
        """Give it another disk size; what it holds stays."""
        assert self._process is not None
        own = [] if os.getuid() == 0 else ["--user", "--preserve-credentials"]
        subprocess.run(
            ["nsenter", "--mount", *own, "--target", str(self._process.pid), "mount", "-o",
             f"remount,size={size}", str(self.folder / "data")],
            check=True, capture_output=True,
        )  # fmt: skip


def htpasswd_registry(folder: Path) -> RegistryServer:
    """A registry that wants USER and PASSWORD by basic authentication."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "htpasswd").write_text(_HTPASSWD, encoding="utf-8")
    auth = f"auth: {{htpasswd: {{realm: tests, path: {folder}/htpasswd}}}}\n"
    return RegistryServer(folder, auth).start()


class TokenServer:
    """Gives tokens for USER: reading and writing ``open/...``, only reading ``read/...``.

    The tokens are JSON web tokens, signed with a key that openssl makes here.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.key, self.certificate = folder / "key.pem", folder / "cert.pem"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
             "/CN=tests", "-keyout", str(self.key), "-out", str(self.certificate)],
            check=True, capture_output=True,
        )  # fmt: skip
        self.asked: list[dict[str, str]] = []
        self.refresh = "refresh-me"
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                query = {k: " ".join(v) for k, v in parse_qs(urlsplit(self.path).query).items()}
                login = self.headers.get("Authorization", "")
                want = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
                self._answer(query, login == f"Basic {want}")

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                query = {k: v[0] for k, v in parse_qs(body).items()}
                self._answer(query, query.get("refresh_token") == outer.refresh)

            def _answer(self, query: dict[str, str], known: bool) -> None:
                outer.asked.append({"method": self.command, **query})
                data = json.dumps({"token": outer.sign(query)} if known else {}).encode()
                self.send_response(200 if known else 401)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.realm = f"http://127.0.0.1:{self.server.server_address[1]}/token"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def sign(self, query: Mapping[str, str]) -> str:
        """A token for the scopes that are asked for, as far as USER may have them."""
        access = []
        for scope in query.get("scope", "::").split():
            kind, name, actions = ([*scope.split(":"), "", ""])[:3]
            may = {"open": {"pull", "push"}, "read": {"pull"}}.get(name.split("/")[0], set())
            allowed = sorted(may & set(actions.split(",")))
            access.append({"type": kind, "name": name, "actions": allowed})
        now = int(time.time())
        certificate = "".join(self.certificate.read_text().splitlines()[1:-1])
        head = {"typ": "JWT", "alg": "RS256", "x5c": [certificate]}
        claims = {"iss": "tests", "sub": USER, "aud": query.get("service", ""), "exp": now + 300,
                  "nbf": now - 5, "iat": now, "jti": "1", "access": access}  # fmt: skip
        text = ".".join(_url64(json.dumps(part).encode()) for part in (head, claims))
        signature = subprocess.run(
            ["openssl", "dgst", "-sha256", "-sign", str(self.key)],
            input=text.encode(), capture_output=True, check=True,
        ).stdout  # fmt: skip
        return f"{text}.{_url64(signature)}"

    def close(self) -> None:
        """Stop serving."""
        self.server.shutdown()
        self.server.server_close()


def token_registry(folder: Path, tokens: TokenServer) -> RegistryServer:
    """A registry that takes the tokens of a TokenServer."""
    auth = (
        f"auth: {{token: {{realm: '{tokens.realm}', service: tests, issuer: tests, "
        f"rootcertbundle: {tokens.certificate}}}}}\n"
    )
    return RegistryServer(folder, auth).start()


def _url64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Index:
    """A package index on this machine, for ``pip install`` inside of builds."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        outer = self

        class Handler(http.server.SimpleHTTPRequestHandler):
            def __init__(self, *args: Any) -> None:
                super().__init__(*args, directory=str(outer.folder))

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class Server(http.server.ThreadingHTTPServer):
            def handle_error(self, request: Any, address: Any) -> None:
                """A client may hang up: pip does, once it has read enough of a wheel."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/simple"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def add(self, name: str, version: str, files: Mapping[str, str], scripts: str = "") -> None:
        """Publish a wheel with these files."""
        info = f"{name}-{version}.dist-info"
        whole = {
            **files,
            f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
            f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\n"
            "Tag: py3-none-any\n",
            **({f"{info}/entry_points.txt": f"[console_scripts]\n{scripts}\n"} if scripts else {}),
        }
        record = "".join(
            f"{path},sha256={_url64(hashlib.sha256(text.encode()).digest())},{len(text)}\n"
            for path, text in whole.items()
        )
        file = self.folder / f"{name}-{version}-py3-none-any.whl"
        with zipfile.ZipFile(file, "w") as wheel:
            for path, text in {**whole, f"{info}/RECORD": f"{record}{info}/RECORD,,\n"}.items():
                wheel.writestr(path, text)
        self.serve(file)

    def serve(self, wheel: Path) -> None:
        """Publish a wheel."""
        name = re.sub(r"[-_.]+", "-", wheel.name.partition("-")[0]).lower()
        place = self.folder / "simple" / name
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(wheel, place / wheel.name)
        links = "".join(f'<a href="{one.name}">{one.name}</a>\n' for one in place.glob("*.whl"))
        (place / "index.html").write_text(links, encoding="utf-8")

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()


class Containers:
    """A registry, the engines' settings, and the base image, in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.index = Index(folder / "index")
        self.registry = RegistryServer(folder / "registry").start()
        self.address = self.registry.address
        self.base = f"{self.address}/python:{PYTHON}"
        self.environ = self._settings()
        root = make_base(folder / "rootfs")
        self.changes = [
            "ENV PATH=/usr/local/bin:/usr/bin:/bin", "ENV LANG=C.UTF-8",
            "ENV PIP_ROOT_USER_ACTION=ignore", f"ENV PIP_INDEX_URL={self.index.url}",
            'CMD ["python3"]',
        ]  # fmt: skip
        self.push_base(root, self.base)

    def push_base(self, root: Path, name: str, *more: str) -> None:
        """Import a root folder as an image and push it."""
        changes = [word for change in (*self.changes, *more) for word in ("-c", change)]
        pipe = io.BytesIO()
        with tarfile.open(fileobj=pipe, mode="w") as tar:
            tar.add(root, ".", filter=_as_root)
        self.run(["podman", "import", "-q", *changes, "-", name], data=pipe.getvalue())
        self.run(["podman", "push", "-q", name])

    def _settings(self) -> dict[str, str]:
        folder = self.folder
        (folder / "storage.conf").write_text(
            f'[storage]\ndriver="overlay"\nrunroot="{folder}/run"\ngraphroot="{folder}/storage"\n'
        )
        # What works for root on a machine whose control groups are only half there.
        (folder / "containers.conf").write_text(
            '[containers]\ndefault_ulimits=["nofile=20000:20000","nproc=20000:20000"]\nnetns="host"\n'
            '[engine]\nruntime="runc"\ncgroup_manager="cgroupfs"\nevents_logger="file"\n'
        )
        (folder / "registries.conf").write_text(
            f'[[registry]]\nlocation="{self.address}"\ninsecure=true\n'
            f'[[registry]]\nprefix="docker.io/library/python"\nlocation="{self.address}/python"\n'
            "insecure=true\n"
        )
        return {
            "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
            "CONTAINERS_CONF": str(folder / "containers.conf"),
            "CONTAINERS_REGISTRIES_CONF": str(folder / "registries.conf"),
            "BUILDAH_ISOLATION": "chroot",
            "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin",
        }

    def run(self, argv: Sequence[str], data: bytes = b"") -> str:
        """Run an engine's command; its standard output."""
        done = subprocess.run(
            list(argv), input=data, capture_output=True, env={**os.environ, **self.environ}
        )
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        return done.stdout.decode()

    @contextlib.contextmanager
    def docker_host(self) -> Iterator[str]:
        """podman's Docker API, for the docker client: the value of DOCKER_HOST."""
        place = self.folder / "docker.sock"
        process = subprocess.Popen(
            ["podman", "system", "service", "--time=0", f"unix://{place}"],
            env={**os.environ, **self.environ}, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        try:
            deadline = time.monotonic() + 30
            while not place.exists():
                assert process.poll() is None, "podman system service ended"
                assert time.monotonic() < deadline, "podman system service makes no socket"
                select_pause()
            yield f"unix://{place}"
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()

    def close(self) -> None:
        """Stop the servers and unmount what the engines mounted."""
        with contextlib.suppress(AssertionError):
            self.run(["podman", "rm", "--all", "--force", "--time", "0"])
        self.registry.kill()
        self.index.close()
        subprocess.run(["umount", str(self.folder / "storage" / "overlay")], capture_output=True)


def _as_root(info: tarfile.TarInfo) -> tarfile.TarInfo:
    info.uid = info.gid = 0
    info.uname = info.gname = "root"
    return info


def make_base(root: Path) -> Path:
    """A root folder with this machine's CPython, its libraries, a shell and a few tools."""
    for name in ("usr/bin", "usr/lib64", "usr/local/bin", "usr/local/lib", "etc", "tmp", "root",
                 "proc", "sys", "dev", "var/tmp", "run", "home"):  # fmt: skip
        (root / name).mkdir(parents=True, exist_ok=True)
    for name in ("bin", "lib64"):
        (root / name).symlink_to(f"usr/{name}")
    (root / "lib").symlink_to("usr/lib64")
    for name in ("tmp", "var/tmp"):
        (root / name).chmod(0o1777)
    (root / "etc/passwd").write_text(
        "root:x:0:0:root:/root:/bin/sh\nada:x:1000:1000:Ada:/home:/bin/sh\n"
    )
    (root / "etc/group").write_text("root:x:0:\nada:x:1000:\n")
    programs = [_python(root)]
    for name in _TOOLS:
        found = shutil.which(name)
        assert found, f"no {name} on this machine"
        shutil.copy(Path(found).resolve(), root / "usr/bin" / name)
        programs.append(Path(found))
    shell = shutil.which("dash") or "/bin/sh"
    shutil.copy(Path(shell).resolve(), root / "usr/bin/sh")
    programs += [Path(shell), *(root / f"usr/local/lib/python{PYTHON}/lib-dynload").glob("*.so")]
    _libraries(root, programs)
    return root


def _python(root: Path) -> Path:
    source = Path(sysconfig.get_path("stdlib", vars={"installed_base": sys.base_prefix}))
    target = root / f"usr/local/lib/python{PYTHON}"

    def left_out(folder: str, names: list[str]) -> set[str]:
        return {n for n in names if _STRIPPED.match(n) or n.startswith(("_tkinter", "_test"))}

    shutil.copytree(source, target, ignore=left_out, symlinks=False)
    bundled = next((source / "ensurepip" / "_bundled").glob("pip-*.whl"))
    with zipfile.ZipFile(bundled) as wheel:
        wheel.extractall(target / "site-packages")  # noqa: S202 (Python's own)
    program = Path(sys.base_prefix) / "bin" / f"python{PYTHON}"
    shutil.copy(program.resolve(), root / f"usr/local/bin/python{PYTHON}")
    for name in ("python", "python3"):
        (root / "usr/local/bin" / name).symlink_to(f"python{PYTHON}")
    pip = root / "usr/local/bin/pip"
    pip.write_text("#!/usr/local/bin/python3\nfrom pip._internal.cli.main import main\nmain()\n")
    pip.chmod(0o755)
    return program


def _libraries(root: Path, programs: Sequence[Path]) -> None:
    """Copy the shared libraries of the programs; all into the one folder that is searched."""
    told = subprocess.run(["ldd", *map(str, programs)], capture_output=True, text=True).stdout
    found = set(re.findall(r"=> (/\S+)", told)) | set(re.findall(r"^\s+(/\S*ld-\S+)", told, re.M))
    beside = Path("/lib") / f"{os.uname().machine}-linux-gnu"
    for extra in ("libgcc_s.so.1", "libstdc++.so.6", "libpthread.so.0", "libdl.so.2",
                  "libnss_files.so.2", "libm.so.6", "librt.so.1", "libutil.so.1"):  # fmt: skip
        if (beside / extra).exists():
            found.add(str(beside / extra))
    for path in found:
        if not re.search(r"lib(tk|tcl|X|xcb)", path):
            shutil.copy(Path(path).resolve(), root / "usr/lib64" / Path(path).name)
    (root / "etc/ld.so.conf").write_text("/usr/lib64\n")
    loader = shutil.which("ldconfig", path=f"{os.environ['PATH']}:/sbin:/usr/sbin")
    assert loader
    subprocess.run([loader, "-r", str(root)], check=True, capture_output=True)
