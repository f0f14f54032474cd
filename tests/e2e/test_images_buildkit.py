"""`ctflow build` with real daemons: buildkitd (buildctl, buildx) and dockerd (buildx, classic)."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from ctflow.cli import main
from ctflow.images.builders.docker import DockerEngine
from ctflow.images.registry import OciRegistry
from ctflow.images.registry.oci import Manifest
from tests.containers import Containers
from tests.engines import Buildkit, Docker

#: Installs a wheel from the context: dockerd's containers reach no index on this machine.
DOCKERFILE = """\
ARG BASE=python:3.11-slim
FROM ${BASE}
WORKDIR /step
COPY *.whl ./
RUN pip install --no-cache-dir --no-index hello-1.0-py3-none-any.whl
COPY . ./
CMD ["python", "main.py"]
"""
#: Writes files of its own: what makes them is the machine's clock, not only the commit.
PLAIN = """\
ARG BASE=python:3.11-slim
FROM ${BASE}
WORKDIR /step
RUN mkdir -p made && echo hello > made/file
COPY . ./
"""
SECRET = "very-secret-value"
#: An ELF file for ARM64 that holds nothing: no other machine can run it.
ARM64_PROGRAM = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00\xb7\x00\x01" + bytes(43)


def git(root: Path, *words: str) -> str:
    return subprocess.run(
        ["git", *words], cwd=root, check=True, capture_output=True, text=True
    ).stdout.strip()


def write(root: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


@pytest.fixture
def world(containers: Containers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A committed project of two steps that install the same, and one that writes files."""
    for name, value in containers.environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("CTFLOW_CACHE", str(tmp_path / "cache"))
    containers.index.add("hello", "1.0", {"hello/__init__.py": "def say():\n    return 'hello'\n"})
    root = tmp_path / "project"
    write(root, {
        "ctflow.yaml": f"project: walk\nimages:\n  registry: {repository(containers, tmp_path)}\n"
                       f"  base: {containers.base}\nsteps:\n  one: {{include: [common]}}\n",
        "common/shared.py": "VALUE = 1\n",
        "steps/plain/Dockerfile": PLAIN, "steps/plain/sub/file.txt": "x\n",
    })  # fmt: skip
    for step in ("one", "two"):
        write(root / "steps" / step, {
            "Dockerfile": DOCKERFILE, ".dockerignore": "*.md\n!keep.md\n", "keep.md": "",
            "drop.md": "", "main.py": f"import hello\nprint('{step}', hello.say())\n",
        })  # fmt: skip
        wheel = containers.index.folder / "hello-1.0-py3-none-any.whl"
        shutil.copy(wheel, root / "steps" / step)
    git(tmp_path, "init", "-q", str(root))
    git(root, "remote", "add", "origin", "https://ada:secret@example.org/acme/walk.git")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "one")
    return root


def repository(containers: Containers, folder: Path) -> str:
    """A name in the registry that no other test has."""
    return f"{containers.address}/{folder.name.replace('_', '-').lower()}"


Use = Callable[..., tuple[str, ...]]


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Use]:
    """Makes ctflow use one of the builders; gives the words for its command line."""
    with contextlib.ExitStack() as stack:

        def choose(name: str, kit: Buildkit | None = None) -> tuple[str, ...]:
            if name in ("podman", "buildah"):
                return ("--set", f"images.builder={name}")
            if name in ("buildctl", "remote"):
                kit = kit or request.getfixturevalue("buildkit")
                monkeypatch.setenv("BUILDKIT_HOST", kit.address)
            if name != "buildctl":
                docker: Docker = request.getfixturevalue("docker")
                for key, value in docker.environ.items():
                    monkeypatch.setenv(key, value)
            if name == "remote":  # buildx in front of buildkitd
                assert kit is not None
                builder = f"kit-{os.urandom(4).hex()}"
                docker.run("docker", "buildx", "create", "--name", builder, "--driver", "remote",
                           kit.address)  # fmt: skip
                stack.callback(docker.run, "docker", "buildx", "rm", builder)
                monkeypatch.setenv("BUILDX_BUILDER", builder)
            if name == "classic":  # as where the client has no plug-in
                monkeypatch.setattr(DockerEngine, "_buildx", False)
            return ("--set", f"images.builder={'buildctl' if name == 'buildctl' else 'docker'}")

        yield choose


@pytest.fixture
def another(_engines: None) -> Iterator[Callable[[], Buildkit]]:
    """Starts one more buildkitd, whose state is empty."""
    with contextlib.ExitStack() as stack:

        def start() -> Buildkit:
            folder = stack.enter_context(
                tempfile.TemporaryDirectory(prefix="ctflow-e-", ignore_cleanup_errors=True)
            )
            made = Buildkit(Path(folder) / "d")
            stack.callback(made.close)
            return made

        yield start


def call(root: Path, capsys: pytest.CaptureFixture[str], *words: str, code: int) -> str:
    """`ctflow build`; what it says on standard error."""
    capsys.readouterr()
    assert main(["build", "-C", str(root), *words]) == code, capsys.readouterr().err
    return capsys.readouterr().err


def build(
    root: Path, capsys: pytest.CaptureFixture[str], *words: str
) -> dict[str, dict[str, object]]:
    """`ctflow build --json`; the images by step."""
    capsys.readouterr()
    assert main(["build", "-C", str(root), "--json", *words]) == 0, capsys.readouterr().err
    return {one["step"]: one for one in json.loads(capsys.readouterr().out)["images"]}


def registry() -> OciRegistry:
    return OciRegistry({"HOME": "/"})


def manifest(reference: str) -> Manifest:
    found = registry().manifest(reference)
    assert found is not None, f"the registry has no {reference}"
    return found


def config(reference: str) -> dict[str, Any]:
    """An image's configuration."""
    digest = manifest(reference).body["config"]["digest"]
    found: dict[str, Any] = json.loads(registry().blob(reference, digest))
    return found


def files(reference: str, *, skip: int = 1) -> dict[str, tuple[int, bytes]]:
    """Mode and content of all that an image's layers hold, but for the base's ``skip`` layers."""
    found = {}
    for layer in manifest(reference).body["layers"][skip:]:
        data = b"".join(registry().stream(reference, layer["digest"]))
        with tarfile.open(fileobj=io.BytesIO(gzip.decompress(data))) as tar:
            for one in tar:
                source = tar.extractfile(one) if one.isfile() else None
                found[one.name.strip("/")] = (one.mode & 0o777, source.read() if source else b"")
    return found


def logs(root: Path) -> dict[str, str]:
    """The builds' logs, by step."""
    found: dict[str, str] = {}
    for file in (root / ".ctflow/images/logs").iterdir():
        step = file.name.partition("-ctx-")[0]
        found[step] = found.get(step, "") + file.read_text()
    return found


# -- what every builder does ---------------------------------------------------------------------

ALL = ("buildctl", "remote", "buildx", "classic")
#: Those that have a whole BuildKit, not the one inside of dockerd.
WHOLE = ("buildctl", "remote")


@pytest.mark.parametrize("name", ALL)
def test_builds_what_changed(
    containers: Containers, world: Path, use: Use, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """Each once, under its content's tag, with its commit; then nothing; then what changed."""
    words = use(name)
    first = build(world, capsys, *words)
    assert [one["built"] for one in first.values()] == [True] * 3
    assert {
        step: one["built"] for step, one in build(world, capsys, *words).items()
    } == dict.fromkeys(("one", "plain", "two"), False)
    with (world / "steps/two/main.py").open("a") as file:
        file.write("# more\n")
    third = build(world, capsys, *words)
    assert {step for step, one in third.items() if one["built"]} == {"two"}
    one = str(first["one"]["reference"])
    assert containers.run(["podman", "run", "--rm", one]) == "one hello\n"
    assert (
        containers.run(["podman", "run", "--rm", one, "cat", "common/shared.py"]) == "VALUE = 1\n"
    )
    content = str(first["one"]["digest"]).removeprefix("sha256:")[:32]
    tagged = f"{one.partition('@')[0]}:ctx-{content}"
    assert registry().digest(tagged) == one.partition("@")[2]
    made = int(git(world, "log", "-1", "--format=%ct"))
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(made))
    whole = config(one)
    assert whole["config"]["Labels"] == {
        "org.opencontainers.image.source": "https://example.org/acme/walk.git",
        "org.opencontainers.image.revision": git(world, "rev-parse", "HEAD"),
        "org.opencontainers.image.created": moment,
    }
    if name in WHOLE:
        assert whole["created"] == moment


@pytest.mark.parametrize("name", [*ALL, "podman", "buildah"])
def test_the_context_is_dockers(
    containers: Containers, world: Path, docker: Docker, use: Use,
    capsys: pytest.CaptureFixture[str], name: str,
) -> None:  # fmt: skip
    """What docker itself takes: also where .dockerignore names itself and the Dockerfile."""
    step = world / "steps/plain"
    write(step, {
        ".dockerignore": "Dockerfile\n.dockerignore\n*.md\n!keep.md\n**/*.log\n", "a.md": "",
        "keep.md": "", "sub/x.md": "", "sub/deep/y.log": "", "ünï.txt": "",
    })  # fmt: skip
    (step / "link").symlink_to("sub/file.txt")
    (step / "tool.sh").write_text("#!/bin/sh\n")
    (step / "tool.sh").chmod(0o755)
    plain = f"{repository(containers, world.parent)}/itself:1"
    docker.run("docker", "buildx", "build", "--build-arg", f"BASE={containers.base}", "--tag",
               plain, "--load", str(step))  # fmt: skip
    docker.run("docker", "push", plain)
    before = os.umask(0o077)
    try:
        found = build(world, capsys, "--only", "plain", *use(name))["plain"]
    finally:
        os.umask(before)
    # Of RUN each builder leaves traces of its own in /etc.
    ours, theirs = (
        {path: one for path, one in files(image).items() if path.startswith("step")}
        for image in (str(found["reference"]), plain)
    )
    assert ours == theirs
    assert "step/Dockerfile" not in ours
    assert "step/keep.md" in ours
    assert ours["step/sub"][0] == 0o755


@pytest.mark.parametrize("name", ALL)
def test_a_failing_build(
    world: Path, docker: Docker, use: Use, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """It is the Dockerfile's fault; its last lines are shown, and all of them are in the log."""
    before = docker.run("docker", "ps", "--all", "--quiet")
    (world / "steps/plain/Dockerfile").write_text(
        "ARG BASE=python:3.11-slim\nFROM ${BASE}\n"
        "RUN i=0; while [ $i -lt 40 ]; do i=$((i+1)); echo word-$i-; done; exit 3\n"
    )
    said = call(world, capsys, "--only", "plain", *use(name), code=4)
    assert "step plain: docker build failed" in said or "step plain: buildctl failed" in said
    assert "correct the Dockerfile" in said
    shown = said.partition("its last lines are below")[2]
    assert "word-40-" in shown
    assert "word-1-" not in shown
    assert "word-1-" in logs(world)["plain"]
    assert docker.run("docker", "ps", "--all", "--quiet") == before


@pytest.mark.parametrize("name", ["buildctl", "remote", "buildx"])
def test_arguments_and_secrets(
    world: Path, use: Use, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:  # fmt: skip
    """Arguments arrive and change the tag; a secret arrives, and is in no layer, config nor log."""
    (world / "steps/plain/Dockerfile").write_text(
        "ARG BASE=python:3.11-slim\nFROM ${BASE}\nARG COLOUR\n"
        f"RUN --mount=type=secret,id=TOKEN echo {name} && cat /run/secrets/TOKEN && python3 -c \\\n"
        '  \'import hashlib; print(hashlib.sha256(open("/run/secrets/TOKEN","rb").read())'
        ".hexdigest())' >/proof\n"
        "RUN echo ${COLOUR} >/colour\n"
    )
    words = (*use(name), "--only", "plain", "--set", "images.secrets=[TOKEN]")
    red = ("--set", "images.args={COLOUR: red}")
    call(world, capsys, *words, *red, code=2)  # the variable is not set
    monkeypatch.setenv("TOKEN", SECRET)
    one = str(build(world, capsys, *words, *red)["plain"]["reference"])
    found = files(one)
    assert found["proof"][1].decode().strip() == hashlib.sha256(SECRET.encode()).hexdigest()
    assert found["colour"][1] == b"red\n"
    assert not [path for path, (_, data) in found.items() if SECRET.encode() in data]
    assert SECRET not in json.dumps(config(one))
    assert SECRET not in logs(world)["plain"]
    assert "***" in logs(world)["plain"]
    blue = build(world, capsys, *words, "--set", "images.args={COLOUR: blue}")["plain"]
    assert files(str(blue["reference"]))["colour"][1] == b"blue\n"
    assert blue["digest"] != one.partition("@")[2]


# -- what needs a whole BuildKit -----------------------------------------------------------------


@pytest.mark.parametrize("name", WHOLE)
def test_the_cache_is_in_the_registry(
    containers: Containers, world: Path, use: Use, another: Callable[[], Buildkit],
    capsys: pytest.CaptureFixture[str], name: str,
) -> None:  # fmt: skip
    """A builder that never saw the steps runs none of their commands; --check writes no cache."""
    place = repository(containers, world.parent)
    words = (*use(name, another()), "--set", f"images.cache={place}/cache")
    assert all(one["built"] for one in build(world, capsys, *words, "--check").values())
    assert registry().tags(f"{place}/cache") == []
    first = logs(world)
    assert "Successfully installed hello-1.0" in first["one"] + first["two"]
    build(world, capsys, *words)
    assert sorted(registry().tags(f"{place}/cache")) == ["one", "plain", "two"]
    shutil.rmtree(world / ".ctflow/images/logs")
    words = (*use(name, another()), "--set", f"images.cache={place}/cache",
             "--set", f"images.registry={place}/second")  # fmt: skip
    assert all(one["built"] for one in build(world, capsys, *words).values())
    for step, log in logs(world).items():
        assert "importing cache manifest" in log, step
        assert "Successfully installed" not in log, step
        ran = [line for line in log.splitlines() if "] RUN " in line]
        assert ran, step
        numbers = {line.split()[0] for line in ran}
        assert numbers <= {line.split()[0] for line in log.splitlines() if " CACHED" in line}, log


@pytest.mark.parametrize("name", ["podman", "buildah"])
def test_the_cache_of_podman(
    containers: Containers, world: Path, use: Use, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch, name: str,
) -> None:  # fmt: skip
    """As above, with a storage of its own in the place of the builder that never saw the steps."""
    place = repository(containers, world.parent)
    words = (*use(name), "--only", "plain", "--set", f"images.cache={place}/cache")
    with (world / "steps/plain/Dockerfile").open("a") as file:
        file.write(f"RUN echo {name} >made/by\n")  # what no other test has made
    build(world, capsys, *words, "--check")
    assert registry().tags(f"{place}/cache") == []
    assert "Using cache" not in logs(world)["plain"].partition("made/by")[2]
    build(world, capsys, *words)
    with tempfile.TemporaryDirectory(prefix="ctflow-e-", ignore_cleanup_errors=True) as folder:
        settings = Path(folder) / "storage.conf"
        settings.write_text(
            f'[storage]\ndriver="overlay"\nrunroot="{folder}/run"\ngraphroot="{folder}/storage"\n'
        )
        monkeypatch.setenv("CONTAINERS_STORAGE_CONF", str(settings))
        assert build(world, capsys, *words, "--set", f"images.registry={place}/second")["plain"][
            "built"
        ]
        subprocess.run(["umount", f"{folder}/storage/overlay"], capture_output=True)
    log = logs(world)["plain"]
    for command in ("RUN mkdir", "COPY", "RUN echo"):
        assert "Cache pulled from remote" in log.partition(f": {command}")[2].partition("STEP")[0]


@pytest.mark.parametrize("name", WHOLE)
def test_the_same_commit_gives_the_same_image(
    containers: Containers, world: Path, use: Use, another: Callable[[], Buildkit],
    capsys: pytest.CaptureFixture[str], name: str, tmp_path: Path,
) -> None:  # fmt: skip
    """Another checkout, another builder, another time: bit for bit the same."""
    clone = tmp_path / "elsewhere"
    git(tmp_path, "clone", "-q", str(world), str(clone))
    git(clone, "remote", "set-url", "origin", git(world, "remote", "get-url", "origin"))
    digests = []
    for root, kit in ((world, None), (clone, another())):
        words = (*use(name, kit), "--only", "plain", "--set",
                 f"images.registry={repository(containers, tmp_path)}/{root.name}")  # fmt: skip
        digests.append(str(build(root, capsys, *words)["plain"]["reference"]).partition("@")[2])
    assert digests[0] == digests[1]


@pytest.fixture
def two_platforms(containers: Containers, tmp_path: Path) -> str:
    """A base for two platforms; that for ARM64 has a shell that cannot be run here."""
    name = f"{repository(containers, tmp_path)}/base:1"
    pipe = io.BytesIO()
    with tarfile.open(fileobj=pipe, mode="w") as tar:
        shell = tarfile.TarInfo("bin/sh")
        shell.size, shell.mode = len(ARM64_PROGRAM), 0o755
        tar.addfile(shell, io.BytesIO(ARM64_PROGRAM))
    arm = f"localhost/{tmp_path.name.lower()}:arm64"
    containers.run(["podman", "import", "-q", "--arch", "arm64", "-", arm], data=pipe.getvalue())
    containers.run(["podman", "manifest", "create", name, f"docker://{containers.base}"])
    containers.run(["podman", "manifest", "add", "--os", "linux", "--arch", "arm64", name,
                    f"containers-storage:{arm}"])  # fmt: skip
    containers.run(["podman", "manifest", "push", "--all", name, f"docker://{name}"])
    return name


@pytest.mark.parametrize("name", [*WHOLE, "podman", "buildah"])
def test_two_platforms(
    world: Path, use: Use, two_platforms: str, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """One index of two images, each on the base of its platform; the package names the index."""
    platforms = ("linux/amd64", "linux/arm64")
    words = (*use(name), "--only", "plain", "--set", f"images.base={two_platforms}",
             "--set", f"images.platforms=[{', '.join(platforms)}]")  # fmt: skip
    # Without RUN nothing of another platform has to be run.
    (world / "steps/plain/Dockerfile").write_text(
        "ARG BASE=python:3.11-slim\nFROM ${BASE}\nWORKDIR /step\nCOPY . ./\n"
    )
    index = str(build(world, capsys, *words)["plain"]["reference"])
    assert sorted(registry().platforms(index)) == list(platforms)
    assert manifest(index).is_index
    bases = registry().platforms(two_platforms)
    for platform, digest in registry().platforms(index).items():
        one = f"{index.partition('@')[0]}@{digest}"
        assert f"linux/{config(one)['architecture']}" == platform
        base = manifest(f"{two_platforms.rpartition(':')[0]}@{bases[platform]}")
        assert manifest(one).body["layers"][0]["digest"] == base.body["layers"][0]["digest"]
        assert "step/sub/file.txt" in files(one)
    assert not build(world, capsys, *words)["plain"]["built"]
    # With RUN it is said what is missing.
    (world / "steps/plain/Dockerfile").write_text(PLAIN)
    said = call(world, capsys, *words, code=5)
    assert "this machine cannot run programs of that platform" in said
    assert "qemu-user-static" in said


# -- what docker's own builder cannot do, and what is not there ----------------------------------


def test_what_dockers_own_builder_cannot_do(
    containers: Containers, world: Path, use: Use, two_platforms: str,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """A cache, several platforms: one line with the command that gets a builder that can."""
    both = (f"images.base={two_platforms}", "images.platforms=[linux/amd64, linux/arm64]")
    cache = (f"images.cache={repository(containers, world.parent)}/cache",)
    for settings in (cache, both):
        words = [word for one in settings for word in ("--set", one)]
        said = call(world, capsys, "--only", "plain", *words, *use("buildx"), code=5)
        assert "docker buildx create --use" in said
    for settings in (cache, both, ("images.secrets=[TOKEN]",)):
        monkeypatch.setenv("TOKEN", "a-long-secret")
        words = [word for one in settings for word in ("--set", one)]
        said = call(world, capsys, "--only", "plain", *words, *use("classic"), code=2)
        assert "apt-get install docker-buildx" in said


def test_images_that_stay_in_docker(
    world: Path, docker: Docker, use: Use, capsys: pytest.CaptureFixture[str]
) -> None:
    """With --no-push docker has them; the second build finds them there."""
    words = (*use("buildx"), "--no-push", "--only", "one")
    first = build(world, capsys, *words)["one"]
    assert first["built"]
    there = str(first["reference"]).partition("@")[2]
    docker.run("docker", "image", "inspect", there)
    assert not build(world, capsys, *words)["one"]["built"]
    assert registry().digest(str(first["reference"])) is None


def test_a_builder_that_does_not_answer(
    world: Path, tmp_path: Path, use: Use, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """What it says itself, and what to set; one that is missing: how to get it."""
    words = use("buildctl")
    monkeypatch.setenv("BUILDKIT_HOST", f"unix://{tmp_path}/nobody")
    said = call(world, capsys, *words, code=5)
    assert "buildctl is installed, but does not answer (" in said
    assert "nobody" in said
    assert "set BUILDKIT_HOST" in said
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nobody")
    said = call(world, capsys, "--set", "images.builder=docker", code=5)
    assert "docker is installed, but does not answer (" in said
    assert "systemctl start docker" in said
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "git").symlink_to(shutil.which("git") or "")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert "go install ./cmd/buildctl" in call(world, capsys, *words, code=5)
