"""`ctflow build` with real engines, a real registry, and without an engine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ctflow.cli import main
from ctflow.images.builders.docker import DockerEngine
from ctflow.images.builders.podman import PodmanEngine
from ctflow.images.registry import OciRegistry
from tests.containers import PYTHON, Containers, RegistryServer

DOCKERFILE = """\
ARG BASE=python:3.11-slim
FROM ${BASE}
WORKDIR /step
COPY requirements.txt ./
RUN pip install --no-cache-dir -r requirements.txt
COPY . ./
CMD ["python", "main.py", "--help"]
"""
MAIN = """\
import importlib.metadata, json, os, pathlib, sys
import hello
rows = []
for folder, names, files in os.walk("."):
    for name in sorted(files):
        path = os.path.join(folder, name)
        if not path.endswith(".pyc"):
            rows.append([path, os.stat(path).st_mode & 0o777, os.path.islink(path)])
print(json.dumps({"cwd": os.getcwd(), "hello": hello.say(), "rows": sorted(rows),
                  "version": importlib.metadata.version("hello"), "uid": os.getuid(),
                  "env": os.environ.get("COLOUR"), "argv": sys.argv[1:]}))
"""


def write(root: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def git(root: Path, *words: str) -> str:
    return subprocess.run(
        ["git", *words], cwd=root, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def world(containers: Containers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A committed project of three steps, beside the engines' settings."""
    for name, value in containers.environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("CTFLOW_CACHE", str(tmp_path / "cache"))
    # The packages of the tests' own index on this machine.
    monkeypatch.setenv("UV_DEFAULT_INDEX", containers.index.url)
    monkeypatch.delenv("UV_OFFLINE")
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("UV_NO_CACHE", "1")
    containers.index.add(
        "hello", "1.0", {"hello/__init__.py": "def say():\n    return 'hello'\n"},
        "hello-say = hello:say",
    )  # fmt: skip
    root = tmp_path / "project"
    name = f"{containers.address}/{tmp_path.name.replace('_', '-').lower()}"
    write(root, {
        "ctflow.yaml": f"project: walk\nimages:\n  registry: {name}\n  base: {containers.base}\n"
                       "steps:\n  one: {include: [common]}\n",
        "common/shared.py": "VALUE = 1\n",
    })  # fmt: skip
    for step in ("one", "two", "three"):
        write(root / "steps" / step, {
            "Dockerfile": DOCKERFILE, "main.py": f"# {step}\n{MAIN}",
            "requirements.txt": "hello==1.0\n", ".dockerignore": "*.md\n!keep.md\n",
            "drop.md": "x", "keep.md": "x", "sub/ünï.txt": "x",
        })  # fmt: skip
        (root / "steps" / step / "link").symlink_to("main.py")
        (root / "steps" / step / "tool.sh").write_text("#!/bin/sh\n")
        (root / "steps" / step / "tool.sh").chmod(0o755)
    git(root.parent, "init", "-q", str(root))
    git(root, "remote", "add", "origin", "https://ada:secret@example.org/acme/walk.git")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "one")
    return root


def build(
    root: Path, capsys: pytest.CaptureFixture[str], *words: str, code: int = 0
) -> dict[str, dict[str, object]]:
    """`ctflow build --json`; the images by step."""
    capsys.readouterr()
    assert main(["build", "-C", str(root), "--json", *words]) == code, capsys.readouterr().err
    out = capsys.readouterr().out
    return {one["step"]: one for one in json.loads(out)["images"]} if code == 0 else {}


@pytest.mark.parametrize("engine", ["podman", "buildah", "layers"])
def test_builds_what_changed(
    containers: Containers, world: Path, capsys: pytest.CaptureFixture[str], engine: str
) -> None:
    """Each once; then nothing; then only the step whose file changed."""
    use = ("--set", f"images.builder={engine}")
    first = build(world, capsys, *use)
    assert [one["built"] for one in first.values()] == [True] * 3
    again = build(world, capsys, *use)
    assert [one["built"] for one in again.values()] == [False] * 3
    assert [a["reference"] for a in again.values()] == [a["reference"] for a in first.values()]
    with (world / "steps/two/main.py").open("a") as file:
        file.write("# more\n")
    third = build(world, capsys, *use)
    assert {name for name, one in third.items() if one["built"]} == {"two"}
    said = containers.run(
        ["podman", "run", "--rm", str(third["one"]["reference"]), "python", "main.py", "a"]
    )
    told = json.loads(said)
    assert told["cwd"] == "/step"
    assert told["hello"] == "hello"
    assert told["argv"] == ["a"]
    paths = [row[0] for row in told["rows"]]
    assert "./common/shared.py" in paths
    assert "./keep.md" in paths
    assert "./drop.md" not in paths


def test_layers_and_engine_make_the_same(
    containers: Containers, world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same files with the same modes, the same settings, the same behaviour."""
    files: dict[str, Any] = {}
    config: dict[str, Any] = {}
    said: dict[str, str] = {}
    look = (
        "find /step /usr/local/bin /usr/local/lib/python*/site-packages -not -path '*/pip*' "
        "-not -name '*.pyc' -not -name __pycache__ -not -name RECORD -not -name INSTALLER "
        "-not -name REQUESTED -printf '%p %y %m %U %G %l %s\n'"
    )
    for engine in ("podman", "layers"):
        name = f"{containers.address}/same-{engine}"
        use = ("--set", f"images.builder={engine}", "--set", f"images.registry={name}")
        image = str(build(world, capsys, *use, "--only", "one")["one"]["reference"])
        run = ["podman", "run", "--rm", "--env", "COLOUR=red", image]
        said[engine] = containers.run([*run, "python", "main.py", "x"])
        listed = containers.run([*run, "sh", "-c", look]).splitlines()
        files[engine] = sorted(
            # pip and uv write a script's body each in its own way.
            line.rsplit(" ", 1)[0] if " d " in line or "hello-say" in line else line
            for line in listed
        )
        assert containers.run([*run, "sh", "-c", "hello-say; echo $?"]).strip() in ("1", "hello\n1")
        whole = json.loads(containers.run(["podman", "image", "inspect", image]))[0]
        config[engine] = {
            key: whole["Config"].get(key)
            for key in ("Env", "WorkingDir", "Cmd", "Entrypoint", "User", "ExposedPorts")
        }
        labels = whole["Labels"]
        assert labels["org.opencontainers.image.source"] == "https://example.org/acme/walk.git"
        assert labels["org.opencontainers.image.revision"] == git(world, "rev-parse", "HEAD")
        made = int(git(world, "log", "-1", "--format=%ct"))
        assert whole["Created"].startswith(time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(made)))
    assert said["layers"] == said["podman"]
    assert files["layers"] == files["podman"]
    assert config["layers"] == config["podman"]


def test_layers_are_the_same_anywhere(
    containers: Containers, world: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    """Another checkout, umask and cache: the same digest, bit for bit."""
    other = tmp_path / "elsewhere" / "p"
    other.parent.mkdir()
    git(tmp_path, "clone", "-q", str(world), str(other))
    git(other, "remote", "set-url", "origin", git(world, "remote", "get-url", "origin"))
    found = []
    for root, place in ((world, "a"), (other, "b")):
        monkeypatch.setenv("CTFLOW_CACHE", str(tmp_path / f"cache-{place}"))
        use = ("--set", "images.builder=layers", "--set",
               f"images.registry={containers.address}/anywhere-{place}")  # fmt: skip
        for path in root.rglob("steps/*/*.py"):
            path.chmod(0o664 if place == "b" else 0o644)
        images = build(root, capsys, *use)
        found.append({k: str(v["reference"]).partition("@")[2] for k, v in images.items()})
    assert found[0] == found[1]


@pytest.mark.parametrize("engine", ["podman", "buildah", "layers"])
def test_the_context_is_dockers(
    containers: Containers, world: Path, capsys: pytest.CaptureFixture[str], engine: str
) -> None:
    """The same .dockerignore given to podman by itself selects the same files and folders."""
    step = world / "steps" / "two"
    write(step, {
        ".dockerignore": "# notes\n**/*.log\n!keep.log\ndata/*\n!data/in*\n*/tmp\n[ab].txt\n"
                         "**/.gitkeep\nkeep\n!keep/empty\nback\n!back/y\n",
        "x.log": "", "keep.log": "", "data/in.csv": "", "data/out.csv": "", "sub/tmp/x": "",
        "sub/deep/tmp": "", "a.txt": "", "c.txt": "", "sub/y.log": "", "requirements.txt": "",
        # Git keeps these folders; nothing of what it keeps in them is in the context.
        "out/deep/.gitkeep": "", "data/inner/.gitkeep": "", "data/other/.gitkeep": "",
        "keep/empty/.gitkeep": "", "keep/x/.gitkeep": "", "back/y": "", "back/z/.gitkeep": "",
        "logs/a.log": "", "tmps/tmp/.gitkeep": "",
        "Dockerfile": "ARG BASE\nFROM ${BASE}\nWORKDIR /step\nCOPY . ./\nCOPY out/deep /var/made\n"
                      "COPY logs /usr\nCOPY logs x/\nCMD [\"ls\"]\n",
    })  # fmt: skip
    use = ("--set", f"images.builder={engine}", "--only", "two")
    ours = str(build(world, capsys, *use)["two"]["reference"])
    plain = f"{containers.address}/plain:1"
    containers.run(
        ["podman", "build", "--build-arg", f"BASE={containers.base}", "-t", plain, str(step)]
    )
    look = ["find", "/step", "/var/made", "/usr", "-maxdepth", "3", "-printf", "%p %y %m\\n"]
    listed = [
        sorted(
            # Modes of the files are the checkout's for plain podman.
            line if " d " in line else line.rsplit(" ", 1)[0]
            for line in containers.run(["podman", "run", "--rm", image, *look]).splitlines()
        )
        for image in (ours, plain)
    ]
    assert listed[0] == listed[1]
    there = {line.partition(" ")[0] for line in listed[0]}
    assert {"/step/keep.log", "/step/out/deep", "/step/keep/empty", "/step/logs"} <= there
    assert not {"/step/a.txt", "/step/data/other", "/step/keep/x", "/step/back/z"} & there


def test_check_pushes_nothing(
    containers: Containers, world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for engine in ("podman", "layers"):
        images = build(world, capsys, "--check", "--set", f"images.builder={engine}")
        assert all(one["built"] for one in images.values())
        assert (
            main(["build", "-C", str(world), "--check", "--set", f"images.builder={engine}"]) == 0
        )
        assert "one  builds; not pushed" in capsys.readouterr().out
        name = str(images["one"]["reference"]).partition("@")[0]
        assert OciRegistry({"HOME": "/"}).tags(name) == []


def test_a_dry_run_is_that_of_the_same_build(
    containers: Containers, world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """For `runner: local` no registry is asked; with --push what is there is known."""
    use = ("--set", "images.base=no-such-host.invalid/python:3", "--dry-run")
    capsys.readouterr()

    def planned(*words: str) -> list[bool]:
        assert main(["build", "-C", str(world), "--json", *words]) == 0
        return [one["build"] for one in json.loads(capsys.readouterr().out)["images"]]

    assert planned(*use) == [True] * 3
    assert planned("--push", "--dry-run") == [True] * 3
    build(world, capsys, "--push", "--only", "two", "--set", "images.builder=layers")
    assert planned("--push", "--dry-run") == [True, True, False]
    assert main(["build", "-C", str(world), "--dry-run", "--only", "nope"]) == 2


def test_no_push_keeps_them_here(
    containers: Containers, world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    use = ("--no-push", "--set", "images.builder=podman")
    first = build(world, capsys, *use, "--only", "one")["one"]
    assert first["built"]
    again = build(world, capsys, *use, "--only", "one")["one"]
    assert not again["built"]
    assert again["reference"] == first["reference"]
    name, _, image = str(first["reference"]).partition("@")
    assert OciRegistry({"HOME": "/"}).tags(name) == []
    assert "hello" in containers.run(["podman", "run", "--rm", image, "python", "main.py"])


def test_a_failing_dockerfile(
    containers: Containers, world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its last lines are shown, its log is kept, and nothing is pushed."""
    file = world / "steps/two/Dockerfile"
    file.write_text(DOCKERFILE.replace("COPY . ./", "RUN echo this goes wrong; exit 7"))
    capsys.readouterr()
    assert main(["build", "-C", str(world), "--set", "images.builder=podman", "--push"]) == 4
    said = capsys.readouterr().err
    assert "step two: podman build failed" in said
    assert "this goes wrong" in said
    logs = list((world / ".ctflow/images/logs").glob("two-*.log"))
    assert "this goes wrong" in logs[0].read_text()
    capsys.readouterr()
    assert main(["build", "-C", str(world), "--set", "images.builder=layers", "--push"]) == 2
    assert "Dockerfile line 6: RUN does more" in capsys.readouterr().err


def test_since(containers: Containers, world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The steps that a change touches: their files, their includes, the base."""
    use = ("--push", "--dry-run", "--since", "HEAD")

    def touched() -> set[str]:
        capsys.readouterr()
        assert main(["build", "-C", str(world), "--json", *use]) == 0
        return {one["step"] for one in json.loads(capsys.readouterr().out)["images"]}

    assert touched() == set()
    write(world, {"README.md": "x"})
    assert touched() == set()
    write(world, {"steps/three/new.py": ""})
    assert touched() == {"three"}
    write(world, {"common/shared.py": "VALUE = 2\n"})
    assert touched() == {"one", "three"}
    config = world / "ctflow.yaml"
    config.write_text(config.read_text().replace("project: walk", "project: run"))
    assert touched() == {"one", "three"}
    config.write_text(config.read_text().replace("/python:", "/python3:"))
    with pytest.raises(AssertionError):
        touched()  # there is no such base
    containers.run(["podman", "tag", containers.base, f"{containers.address}/python3:{PYTHON}"])
    containers.run(["podman", "push", "-q", f"{containers.address}/python3:{PYTHON}"])
    assert touched() == {"one", "two", "three"}


def test_a_base_that_moves(
    containers: Containers, world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is said, the steps are built again; --locked refuses it until it is locked anew."""
    moving = f"{containers.address}/moving:1"
    containers.run(["podman", "tag", containers.base, moving])
    containers.run(["podman", "push", "-q", moving])
    use = ("--set", f"images.base={moving}", "--set", "images.builder=layers")
    build(world, capsys, *use, "--locked", code=2)
    build(world, capsys, *use, "--dry-run")
    build(world, capsys, *use, "--locked", code=2)  # to have seen it is not to have locked it
    assert main(["images", "lock", "-C", str(world), *use]) == 0
    first = build(world, capsys, *use, "--locked")
    tags = {one["digest"] for one in first.values()}
    containers.push_base(containers.folder / "rootfs", moving, "ENV MOVED=1")
    build(world, capsys, *use, "--locked", code=2)
    capsys.readouterr()
    assert main(["build", "-C", str(world), *use]) == 0
    out = capsys.readouterr()
    assert "has moved from sha256:" in out.out + out.err
    assert "3 built" in out.out
    assert main(["images", "lock", "-C", str(world), *use]) == 0
    third = build(world, capsys, *use, "--locked")
    assert not any(one["built"] for one in third.values())
    assert not tags & {one["digest"] for one in third.values()}


def test_arguments_and_secrets(
    containers: Containers, world: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Arguments arrive and change the tag; a secret arrives and stays out of image and log."""
    (world / "steps/two/Dockerfile").write_text(
        "ARG BASE\nFROM ${BASE}\nARG COLOUR\n"
        "RUN --mount=type=secret,id=TOKEN cat /run/secrets/TOKEN && echo .\n"
        "RUN echo ${COLOUR} > /colour\n"
        'CMD ["cat", "/colour"]\n'
    )
    use = ("--only", "two", "--set", "images.builder=podman", "--set", "images.secrets=[TOKEN]")
    red = ("--set", "images.args={COLOUR: red}")
    build(world, capsys, *use, *red, code=2)  # the variable is not set
    monkeypatch.setenv("TOKEN", "very-secret-value")
    one = build(world, capsys, *use, *red)["two"]
    assert containers.run(["podman", "run", "--rm", str(one["reference"])]) == "red\n"
    blue = build(world, capsys, *use, "--set", "images.args={COLOUR: blue}")["two"]
    assert blue["digest"] != one["digest"]
    logs = "".join(file.read_text() for file in (world / ".ctflow/images/logs").iterdir())
    assert "very-secret-value" not in logs
    assert "***" in logs, logs


def test_two_at_once_build_once(containers: Containers, world: Path) -> None:
    """Two processes, the same content: each image is built by one, and both name the same."""
    argv = [sys.executable, "-m", "ctflow", "build", "--json", "--set", "images.builder=podman"]
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    two = [subprocess.Popen(argv, cwd=world, stdout=subprocess.PIPE, env=environ) for _ in range(2)]
    found = [json.loads(process.communicate()[0])["images"] for process in two]
    assert [process.returncode for process in two] == [0, 0]
    assert [a["reference"] for a in found[0]] == [b["reference"] for b in found[1]]
    assert [a["built"] + b["built"] for a, b in zip(*found, strict=True)] == [1, 1, 1]


def test_another_machine_was_first(
    containers: Containers, world: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """An image that another machine pushes while we build is taken, and not pushed over."""
    use = ("--set", "images.builder=podman", "--only", "one")
    original = PodmanEngine.build
    theirs: list[str] = []

    def build_slowly(self: Any, target: Any, *rest: Any) -> str:
        made = original(self, target, *rest)
        containers.run(["podman", "tag", containers.base, target.reference])
        containers.run(["podman", "push", "-q", target.reference])
        theirs.append(str(OciRegistry({"HOME": "/"}).digest(target.reference)))
        return made

    monkeypatch.setattr(PodmanEngine, "build", build_slowly)
    image = build(world, capsys, *use)["one"]
    assert str(image["reference"]).endswith(f"@{theirs[0]}")
    assert not image["built"]


def test_docker_through_podmans_service(
    containers: Containers, world: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The real docker client, its classic builder, against podman's Docker API."""
    if shutil.which("docker") is None:
        pytest.skip("no docker client here: run .ci/install-containers")
    with containers.docker_host() as host:
        monkeypatch.setenv("DOCKER_HOST", host)
        # Where the client has buildx too: podman's service has no BuildKit behind it.
        monkeypatch.setattr(DockerEngine, "_buildx", False)
        use = ("--set", "images.builder=docker", "--only", "one")
        first = build(world, capsys, *use)["one"]
        assert first["built"]
        assert not build(world, capsys, *use)["one"]["built"]
    said = containers.run(["podman", "run", "--rm", str(first["reference"]), "python", "main.py"])
    assert json.loads(said)["hello"] == "hello"


def test_list_and_prune(
    containers: Containers, world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The newest and the named stay; older ones go."""
    use = ("--set", "images.builder=layers")
    for number in range(3):
        (world / "steps/two/main.py").write_text(f"print({number})\n")
        images = build(world, capsys, *use)
    capsys.readouterr()

    def listed(*words: str) -> Any:
        capsys.readouterr()
        assert main(["images", *words, "-C", str(world), "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    everything = listed("list")
    assert sorted(one["step"] for one in everything) == ["one", "three", "two", "two", "two"]
    used = [one["digest"] for one in everything if one["used"]]
    assert sorted(used) == sorted(str(i["reference"]).partition("@")[2] for i in images.values())
    assert len(listed("prune", "--keep", "0", "--dry-run")["deleted"]) == 2
    assert len(listed("prune", "--keep", "0")["deleted"]) == 2
    assert [one["used"] for one in listed("list")] == [True] * 3


def test_a_killed_registry_comes_back(
    containers: Containers, world: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """A registry that dies during the push: an error that says so; the next build ends well."""
    server = RegistryServer(tmp_path / "dying").start()
    use = ("--set", "images.builder=layers", "--set", f"images.registry={server.address}/p",
           "--only", "one")  # fmt: skip
    original = OciRegistry.push_manifest

    def die(self: OciRegistry, reference: str, *rest: Any, **more: Any) -> str:
        if ":ctx-" in reference:
            server.kill()
        return original(self, reference, *rest, **more)

    monkeypatch.setattr("ctflow.rest.patience._LONGEST_PAUSE", 0.0)
    monkeypatch.setattr(OciRegistry, "push_manifest", die)
    try:
        capsys.readouterr()
        assert main(["build", "-C", str(world), *use]) == 5
        assert f"cannot reach registry {server.address}" in capsys.readouterr().err
        monkeypatch.setattr(OciRegistry, "push_manifest", original)
        server.start()
        assert build(world, capsys, *use)["one"]["built"]
    finally:
        server.kill()


@pytest.mark.parametrize("how", ["local", "podman", "layers"])
@pytest.mark.parametrize("kind", ["sparse", "many"])
def test_large_contexts(
    containers: Containers, world: Path, kind: str, how: str, tmp_path: Path
) -> None:
    """2 GB in one file, or 50,000 files: memory stays bounded."""
    step = world / "steps/two"
    (step / "Dockerfile").write_text("ARG BASE\nFROM ${BASE}\nCOPY main.py /\n")
    if how != "podman":  # which would write all of it to the disk twice more
        (step / "Dockerfile").write_text("ARG BASE\nFROM ${BASE}\nCOPY . /step/\n")
    if kind == "sparse":
        with (step / "huge.bin").open("wb") as file:
            file.truncate(2 << 30)
    else:
        for folder in range(50):
            (step / f"d{folder}").mkdir()
            for number in range(1000):
                (step / f"d{folder}" / f"{number}.txt").write_bytes(b"")
    script = (
        "import sys\n"
        "from ctflow.cli import main\n"
        "code = main(sys.argv[1:])\n"
        # ru_maxrss would be that of whoever started this, if it was larger.
        "print(*(line for line in open('/proc/self/status') if 'VmHWM' in line), file=sys.stderr)\n"
        "sys.exit(code)\n"
    )
    # A dry run reads and hashes all; a snapshot would be 2 GB on the disk.
    words = ["--dry-run"] if how == "local" else ["--check", "--set", f"images.builder={how}"]
    done = subprocess.run(
        [sys.executable, "-c", script, "build", "--only", "two", *words],
        cwd=world, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    peak = int(done.stderr.split()[-2]) >> 10
    assert peak < 160, f"{peak} MiB"
