"""Real daemons that build and run images, each with a folder of its own: buildkitd and dockerd.

buildkitd, buildctl and the buildx plug-in are built by ``.ci/install-buildkit``, which prints the
folder to be put on PATH; dockerd comes from Debian's packages (``.ci/install-containers``). Both
daemons need root. What they serve listens on Unix sockets only.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from tests.containers import select_pause

PROGRAMS = ("buildkitd", "buildctl", "docker-buildx", "dockerd", "docker", "ip")
_SEARCHED = ":/usr/sbin:/sbin"


def missing() -> list[str]:
    """What of PROGRAMS this machine does not have; and root, where we are not that."""
    path = os.environ.get("PATH", "") + _SEARCHED
    absent = [name for name in PROGRAMS if shutil.which(name, path=path) is None]
    return absent if os.geteuid() == 0 else [*absent, "root"]


class Daemon:
    """A process that serves a Unix socket. ``environ`` holds what its clients need."""

    def __init__(self, folder: Path, argv: list[str], environ: Mapping[str, str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.socket = folder / "s"
        self.environ = dict(environ)
        with (folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                argv, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
                env={**os.environ, "PATH": os.environ["PATH"] + _SEARCHED},
            )  # fmt: skip

    def wait(self, *ask: str) -> None:
        """Until its client's command is answered."""
        deadline = time.monotonic() + 60
        while self.call(*ask).returncode != 0:
            assert self._process.poll() is None, f"it ended: {self.log()}"
            assert time.monotonic() < deadline, f"it does not answer: {self.log()}"
            select_pause()

    def call(self, *argv: str, data: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
        """Run a client's command."""
        return subprocess.run(
            argv, env={**os.environ, **self.environ}, input=data, capture_output=True
        )

    def run(self, *argv: str, data: bytes | None = None) -> str:
        """Run a client's command that has to work; its standard output."""
        done = self.call(*argv, data=data)
        assert done.returncode == 0, done.stderr.decode(errors="replace") + self.log()
        return done.stdout.decode()

    def log(self) -> str:
        """The end of its log."""
        return (self.folder / "log").read_text(encoding="utf-8", errors="replace")[-4000:]

    def close(self) -> None:
        """End it, and unmount what it leaves mounted, so that its folder can be removed."""
        self._process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(30)
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
        for place in [line.split()[1] for line in reversed(mounts)]:
            if place.startswith(f"{self.folder}/"):
                subprocess.run(["umount", "--lazy", place], capture_output=True)


class Buildkit(Daemon):
    """buildkitd with an empty state; its builds use this machine's network, as the index needs."""

    def __init__(self, folder: Path) -> None:
        self.address = f"unix://{folder}/s"
        super().__init__(
            folder,
            ["buildkitd", "--addr", self.address, "--root", f"{folder}/root",
             "--oci-worker-net", "host", "--containerd-worker=false"],
            {"BUILDKIT_HOST": self.address},
        )  # fmt: skip
        self.wait("buildctl", "debug", "workers")


class Docker(Daemon):
    """dockerd on a bridge of its own: nothing of the machine's firewall or routes is changed.

    Args:
        buildx: the client has the buildx plug-in.
    """

    def __init__(self, folder: Path, *, buildx: bool) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._bridge = f"ctflow{os.getpid() % 100000}"
        for words in (("link", "add", self._bridge, "type", "bridge"),
                      # Addresses that are for documentation lead nowhere.
                      ("addr", "add", "192.0.2.1/24", "dev", self._bridge),
                      ("link", "set", self._bridge, "up")):  # fmt: skip
            subprocess.run(["ip", *words], check=True, env={"PATH": f"/bin:/usr/bin{_SEARCHED}"})
        # What Docker 29 begins with can do more; the tests are of what all versions have.
        (folder / "daemon.json").write_text('{"features": {"containerd-snapshotter": false}}')
        config = folder / "config"
        config.mkdir()
        (config / "config.json").write_text("{}")  # podman wants one where DOCKER_CONFIG is set
        super().__init__(
            folder,
            ["dockerd", "--host", f"unix://{folder}/s", "--data-root", f"{folder}/data",
             "--exec-root", f"{folder}/exec", "--pidfile", f"{folder}/pid", "--bridge",
             self._bridge, "--iptables=false", "--ip6tables=false", "--ip-masq=false",
             "--ip-forward=false", "--config-file", f"{folder}/daemon.json"],
            {"DOCKER_HOST": f"unix://{folder}/s", "DOCKER_CONFIG": str(config)},
        )  # fmt: skip
        self.wait("docker", "version")
        if buildx:
            self.add_buildx()

    def add_buildx(self) -> None:
        """Give the client the plug-in."""
        plugins = self.folder / "config" / "cli-plugins"
        plugins.mkdir(exist_ok=True)
        found = shutil.which("docker-buildx")
        assert found
        (plugins / "docker-buildx").symlink_to(found)

    def close(self) -> None:
        """As above; the bridge goes too."""
        super().close()
        subprocess.run(
            ["ip", "link", "delete", self._bridge], env={"PATH": f"/bin:/usr/bin{_SEARCHED}"}
        )
