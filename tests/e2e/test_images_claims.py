"""Two machines that want the same images at once: one builds each, and both name the same."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from ctflow.errors import Interrupted, OutsideError
from ctflow.images.builders import claims
from ctflow.images.builders.claims import TAG, Busy, Claims, owner_of
from ctflow.images.registry import OciRegistry
from ctflow.images.registry.oci import OCI_MANIFEST
from tests.containers import Containers, SmallRegistry, TokenServer, token_registry
from tests.e2e.test_images_build import world  # noqa: F401 (a fixture)
from tests.e2e.test_images_registry import Faulty, auth, login, push

CONTENT = "sha256:" + "c" * 64
STEPS = ("one", "three", "two")


class Machine:
    """A checkout, state and cache of its own; a podman that waits for a file before it builds."""

    def __init__(self, folder: Path, source: Path) -> None:
        self.root = folder / "checkout"
        self.go = folder / "go"
        folder.mkdir()
        subprocess.run(["git", "clone", "-q", str(source), str(self.root)], check=True)
        url = ["git", "remote", "get-url", "origin"]
        origin = subprocess.run(url, cwd=source, check=True, capture_output=True, text=True).stdout
        subprocess.run(
            ["git", "remote", "set-url", "origin", origin.strip()], cwd=self.root, check=True
        )
        wrapper = folder / "bin" / "podman"
        wrapper.parent.mkdir()
        wrapper.write_text(
            f'#!/bin/sh\nif [ "$1" = build ]; then echo $$ >>{folder}/builds; '
            f"until [ -e {self.go} ]; do sleep 0.02; done; fi\n"
            f'exec {shutil.which("podman")} "$@"\n'
        )
        wrapper.chmod(0o755)
        self.builds = folder / "builds"
        self._environ = {
            **os.environ, "PYTHONPATH": str(Path(__file__).parents[2]),
            "CTFLOW_CACHE": str(folder / "cache"), "CTFLOW_STATE": str(folder / "state"),
            "PATH": f"{wrapper.parent}:{os.environ['PATH']}",
        }  # fmt: skip

    def build(self, *words: str, stale: float = claims.STALE) -> subprocess.Popen[str]:
        """`ctflow build --json`, at work."""
        script = (
            "import sys\nfrom ctflow.images.builders import claims\n"
            f"claims.Claims.__init__.__defaults__ = ({min(0.5, stale / 4)}, {stale})\n"
            "from ctflow.cli import main\nsys.exit(main(sys.argv[1:]))\n"
        )
        return subprocess.Popen(
            [sys.executable, "-c", script, "build", "--json", *words], cwd=self.root, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=self._environ,
        )  # fmt: skip


def images(process: subprocess.Popen[str]) -> dict[str, dict[str, Any]]:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return {one["step"]: one for one in json.loads(out)["images"]}


def until(seen: Any) -> None:
    deadline = time.monotonic() + 60
    while not seen():
        assert time.monotonic() < deadline
        threading.Event().wait(0.01)


@pytest.fixture
def machines(world: Path, tmp_path: Path) -> tuple[Machine, Machine]:  # noqa: F811
    return Machine(tmp_path / "a", world), Machine(tmp_path / "b", world)


@pytest.fixture
def name(containers: Containers, tmp_path: Path) -> str:
    return f"{containers.address}/claims/{tmp_path.name.replace('_', '-').lower()}"


@pytest.fixture
def plain() -> OciRegistry:
    return OciRegistry({"HOME": "/nonexistent"})


# -- two machines -------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["podman", "layers"])
def test_each_image_is_built_by_one(
    containers: Containers, machines: tuple[Machine, Machine], plain: OciRegistry, engine: str
) -> None:
    """They share the work, both name what the registry has, and each tag is put there once."""
    for machine in machines:
        machine.go.touch()
    log = len(containers.registry.log())
    running = [machine.build("--set", f"images.builder={engine}") for machine in machines]
    found = [images(process) for process in running]
    assert [one["reference"] for one in found[0].values()] == [
        one["reference"] for one in found[1].values()
    ]
    assert [found[0][step]["built"] + found[1][step]["built"] for step in STEPS] == [1, 1, 1]
    put = re.findall(r'"PUT /v2/\S+/manifests/(ctx-\w+) ', containers.registry.log()[log:])
    assert len(put) == len(set(put)) == 3
    for image in found[0].values():
        repository, _, digest = str(image["reference"]).partition("@")
        tag = next(tag for tag in plain.tags(repository) if tag.startswith("ctx-"))
        assert plain.digest(f"{repository}:{tag}") == digest


def one_waits(
    machines: tuple[Machine, Machine], stale: float = claims.STALE
) -> tuple[subprocess.Popen[str], subprocess.Popen[str]]:
    """The first in the middle of a build, and the second, which says that it waits for it."""
    first, second = machines
    use = ("--set", "images.builder=podman", "--only", "one")
    building = first.build(*use, stale=stale)
    until(first.builds.exists)
    other = second.build(*use, stale=stale)
    assert other.stderr is not None
    said = "another machine is building step one: waiting for its image"
    assert any(said in line for line in other.stderr)
    return building, other


def test_the_second_waits_for_the_first(
    containers: Containers, machines: tuple[Machine, Machine]
) -> None:
    """It starts no build of its own, and takes the image."""
    building, other = one_waits(machines)
    machines[0].go.touch()
    mine, theirs = images(building), images(other)
    assert mine["one"]["built"]
    assert not theirs["one"]["built"]
    assert mine["one"]["reference"] == theirs["one"]["reference"]
    assert not machines[1].builds.exists()


def test_a_machine_that_died_is_not_waited_for(
    containers: Containers, machines: tuple[Machine, Machine]
) -> None:
    """kill -9 in the middle of a build: another that waits takes over."""
    dying, other = one_waits(machines, stale=4)
    machines[1].go.touch()
    dying.kill()
    dying.communicate()
    os.kill(int(machines[0].builds.read_text()), 9)  # the program that it had started
    assert images(other)["one"]["built"]


def test_a_failure_lets_the_other_try(
    containers: Containers, machines: tuple[Machine, Machine]
) -> None:
    """At once: nothing has to grow stale."""
    failing, other = one_waits(machines)
    machines[1].go.touch()
    os.kill(int(machines[0].builds.read_text()), 9)
    failing.communicate()
    assert failing.returncode == 5
    assert images(other)["one"]["built"]


def test_ctrl_c_ends_the_builds(
    containers: Containers, machines: tuple[Machine, Machine], plain: OciRegistry
) -> None:
    """The engine's program too, which has a session of its own; nobody has to wait for us."""
    first, second = machines
    use = ("--set", "images.builder=podman", "--only", "one")
    building = first.build(*use)
    until(first.builds.exists)
    building.terminate()  # as Ctrl-C does, which a test runner in the background ignores
    building.communicate(timeout=30)
    assert building.returncode == 130
    assert not Path(f"/proc/{first.builds.read_text().strip()}").exists()
    second.go.touch()
    other = second.build(*use)
    _, err = other.communicate(timeout=60)
    assert other.returncode == 0
    assert "another machine" not in err


# -- claims -------------------------------------------------------------------------------------


def test_many_at_once(containers: Containers, plain: OciRegistry, name: str) -> None:
    """Eight processes in effect: one builds, seven take its image."""
    built: list[int] = []
    taken: list[str] = []
    barrier = threading.Barrier(8)

    def work(number: int) -> None:
        own = OciRegistry({"HOME": "/nonexistent"})
        mine = Claims(own, str(number), threading.Event())
        barrier.wait()
        with mine.held(name, CONTENT, lambda: own.digest(f"{name}:image"), lambda: None) as found:
            if found is None:
                built.append(number)
                taken.append(push(own, name, "image"))
            else:
                taken.append(found)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 1
    assert taken == [plain.digest(f"{name}:image")] * 8


@pytest.fixture
def clock(plain: OciRegistry, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The time of the registry's clock, which only the test moves on."""
    now = [1_000_000_000]
    monkeypatch.setattr(plain, "clock", lambda reference: float(now[0]))
    return now


def test_a_claim_that_is_refused_as_anothers_comes(
    plain: OciRegistry, name: str, clock: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The registry takes one of two at a time: whose claim was refused does not build as well."""
    first = Claims(plain, "a", threading.Event())
    second = Claims(plain, "b", threading.Event())

    def refused(*_: Any) -> bool:
        assert not first._other(name, CONTENT)
        return False

    monkeypatch.setattr(second, "_write", refused)
    with pytest.raises(Busy), second.held(name, CONTENT, lambda: None, None):
        pytest.fail("it builds")


def test_a_claim_that_is_refused_once_is_made_again(
    plain: OciRegistry, name: str, clock: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that others wait, although the first write failed."""
    first = Claims(plain, "a", threading.Event())
    second = Claims(plain, "b", threading.Event())
    write, answers = first._write, [False]
    monkeypatch.setattr(first, "_write", lambda *words: answers.pop() if answers else write(*words))
    with first.held(name, CONTENT, lambda: None, None) as found:
        assert found is None
        with pytest.raises(Busy), second.held(name, CONTENT, lambda: None, None):
            pytest.fail("it builds")


def test_a_claim_is_kept_alive_and_let_go(plain: OciRegistry, name: str, clock: list[int]) -> None:
    """For longer than one that nobody renews; other content is not kept waiting by it."""
    first = Claims(plain, "a", threading.Event(), beat=0.05, stale=3)
    second = Claims(plain, "b", threading.Event(), beat=0.05, stale=3)
    with first.held(name, CONTENT, lambda: None, None) as found:
        assert found is None
        for _ in range(6):
            clock[0] += 1
            while second._read(name).beat != clock[0]:
                time.sleep(0.01)
            with pytest.raises(Busy), second.held(name, CONTENT, lambda: None, None):
                pass
    with second.held(name, CONTENT, lambda: None, None) as found:
        assert found is None
    assert TAG in plain.tags(name)
    with (
        first.held(name, CONTENT, lambda: None, None),
        second.held(name, CONTENT.replace("c", "d"), lambda: None, None) as found,
    ):
        assert found is None


def test_a_stale_claim_is_nobodys(plain: OciRegistry, name: str, clock: list[int]) -> None:
    dead = Claims(plain, "c", threading.Event(), beat=60, stale=2)
    mine = Claims(plain, "d", threading.Event(), beat=60, stale=2)
    dead._write(name, dead._mine(name, CONTENT))
    with pytest.raises(Busy), mine.held(name, CONTENT, lambda: None, None):
        pass
    clock[0] += 1
    with pytest.raises(Busy), mine.held(name, CONTENT, lambda: None, None):
        pass
    waited: list[int] = []

    def waiting() -> None:
        waited.append(1)
        clock[0] += 1

    with mine.held(name, CONTENT, lambda: None, waiting) as found:
        assert found is None
    assert waited == [1]


def test_what_this_machine_left_behind_is_its_own(
    plain: OciRegistry, name: str, tmp_path: Path
) -> None:
    """A claim of a process here that was killed is not waited for; a copied cache is another's."""
    owner = owner_of(tmp_path / "locks")
    assert owner == owner_of(tmp_path / "locks")
    assert owner != owner_of(tmp_path / "copy")
    dead = Claims(plain, owner, threading.Event())
    dead._write(name, dead._mine(name, CONTENT))
    with Claims(plain, owner, threading.Event()).held(name, CONTENT, lambda: None, None) as found:
        assert found is None
    assert not dead._is_anothers(dead._read(name), name, CONTENT)


def test_waiting_can_be_stopped(plain: OciRegistry, name: str) -> None:
    stop = threading.Event()
    with (
        Claims(plain, "e", threading.Event()).held(name, CONTENT, lambda: None, None),
        pytest.raises(Interrupted),
        Claims(plain, "f", stop).held(name, CONTENT, lambda: None, stop.set),
    ):
        pass


def test_a_tag_of_somebody_else_is_no_claim(plain: OciRegistry, name: str) -> None:
    """An image under that name, and annotations that are nonsense."""
    push(plain, name, TAG)
    with Claims(plain, "g", threading.Event()).held(name, CONTENT, lambda: None, None) as found:
        assert found is None
    body = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "annotations": {
        "ctflow.content": CONTENT, "ctflow.owner": "x", "ctflow.beat": "9" * 400}}  # fmt: skip
    manifest = plain.manifest(f"{name}:{TAG}")
    assert manifest is not None
    data = json.dumps({**manifest.body, **body}).encode()
    plain.push_manifest(f"{name}:{TAG}", OCI_MANIFEST, data)
    with Claims(plain, "h", threading.Event()).held(name, CONTENT, lambda: None, None) as found:
        assert found is None


def test_a_registry_that_takes_no_claims(plain: OciRegistry, name: str) -> None:
    """Then everybody builds, as without them."""

    class Picky(OciRegistry):
        def push_manifest(self, *rest: Any, **more: Any) -> str:
            raise OutsideError("the artifact type is not allowed")

    picky = Claims(Picky({"HOME": "/nonexistent"}), "i", threading.Event())
    for _ in range(2):
        with picky.held(name, CONTENT, lambda: None, None) as found:
            assert found is None


def test_the_registrys_clock_counts(tmp_path: Path) -> None:
    faulty = Faulty(lambda method, path, number: (404, {}, b""))
    handler: Any = faulty.server.RequestHandlerClass
    client = OciRegistry({"HOME": "/"})
    name = f"{faulty.address}/a"
    try:
        assert client.digest(f"{name}:1") is None
        assert abs(client.clock(name) - time.time()) < 1
        handler.date_time_string = lambda self, stamp=None: "Thu, 01 Jan 1970 01:00:00 GMT"
        assert client.digest(f"{name}:1") is None
        assert 3600 <= client.clock(name) < 3700
        handler.date_time_string = lambda self, stamp=None: "some day"
        assert client.digest(f"{name}:1") is None
        assert 3600 <= client.clock(name) < 3700
    finally:
        faulty.close()


# -- what is known before anything is built -----------------------------------------------------


def test_a_registry_that_takes_nothing_of_us_is_known_before_the_build(
    containers: Containers, machines: tuple[Machine, Machine], tmp_path: Path,

) -> None:  # fmt: skip
    """A good login that may not push, and a full disk: nobody waits for a build in vain."""
    tokens = TokenServer(tmp_path / "tokens")
    server = token_registry(tmp_path / "token-registry", tokens)
    small = SmallRegistry(tmp_path / "small", 20_000)
    small.start()
    settings = login(tmp_path / "login", auths={server.address: auth()})
    machine = machines[0]
    machine._environ["DOCKER_CONFIG"] = settings["DOCKER_CONFIG"]
    try:
        for registry, says in (
            (f"{server.address}/read", "accepts your login, but the login may not push to"),
            (f"{small.address}/p", f"registry {small.address} has no space left; make room"),
        ):
            words = ("--set", "images.builder=podman", "--set", f"images.registry={registry}")
            process = machine.build(*words)
            _, err = process.communicate(timeout=60)
            assert process.returncode == 5
            lines = [line for line in err.splitlines() if not line.startswith(" ")]
            assert len(lines) == 1, err
            assert says in lines[0]
            assert not machine.builds.exists()
    finally:
        server.kill()
        small.kill()
        tokens.close()


@pytest.mark.parametrize("engine", ["podman", "layers"])
def test_a_registry_that_fills_up(
    containers: Containers, machines: tuple[Machine, Machine], tmp_path: Path, engine: str
) -> None:
    """During the push: one line, no tag; with room the same command ends well."""
    small = SmallRegistry(tmp_path / "small", 3 << 20)
    small.start()
    machine = machines[0]
    machine.go.touch()
    words = ("--set", f"images.builder={engine}", "--set", f"images.registry={small.address}/p",
             "--only", "one")  # fmt: skip
    plain = OciRegistry({"HOME": "/nonexistent"})
    try:
        process = machine.build(*words)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 5
        lines = [line for line in err.splitlines() if not line.startswith(" ")]
        assert len(lines) == 1, err
        assert f"registry {small.address} has no space left; make room there" in lines[0]
        assert [tag for tag in plain.tags(f"{small.address}/p/one") if tag != TAG] == []
        small.resize(200 << 20)
        image = images(machine.build(*words))["one"]
        assert image["built"]
        said = containers.run(["podman", "run", "--rm", "--tls-verify=false",
                               str(image["reference"]), "python", "main.py"])  # fmt: skip
        assert json.loads(said)["hello"] == "hello"
    finally:
        small.kill()


def test_damaged_tags_are_mended(
    containers: Containers, machines: tuple[Machine, Machine], plain: OciRegistry, name: str
) -> None:
    """docker-registry leaves empty files behind where its disk was full, and answers 500 then."""
    machine = machines[0]
    words = ("--set", "images.builder=layers", "--set", f"images.registry={name}", "--only", "one")
    first = images(machine.build(*words))["one"]
    repositories = containers.registry.folder / "data/docker/registry/v2/repositories"
    links = list((repositories / name.partition("/")[2]).glob("one/_manifests/tags/*/current/link"))
    assert len(links) == 2  # the image's, and the claim's
    for link in links:
        link.write_text("")
    again = images(machine.build(*words))["one"]
    assert again["built"]
    assert again["reference"] == first["reference"]
    assert all(link.read_text() for link in links)
    assert not images(machine.build(*words))["one"]["built"]
