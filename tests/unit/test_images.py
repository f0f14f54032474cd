"""What builders read and say: Dockerfiles, references, command lines, layers, what is kept."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctflow.errors import ConfigError, OutsideError, RunFailed
from ctflow.images.builders import buildctl, docker, find, podman
from ctflow.images.builders.bases import read_lock, write_lock
from ctflow.images.builders.commands import execute
from ctflow.images.builders.dockerfile import bases, expand, instructions
from ctflow.images.builders.engine import Options, Target, content_tag
from ctflow.images.builders.layer import pack
from ctflow.images.builders.simple import read_simple, read_simple_target
from ctflow.images.registry import parse_reference
from ctflow.model import RegistryImage
from ctflow.ports import StepSource
from ctflow.rest.loopback import is_loopback
from ctflow.runners.containers import reap
from ctflow.runners.containers.launch import run_argv
from ctflow.scm.git_provenance import remote_url
from ctflow.stages.images import superfluous
from ctflow.steps.context import ContextFile, context_files

CONTENT = "sha256:" + "ab" * 32
TARGET = Target("train", (), CONTENT, "ghcr.io/acme/train", "python@sha256:" + "0" * 64)
FULL = Options(
    args={"BASE": "b", "COLOUR": "red"},
    platforms=("linux/amd64",),
    secrets={"TOKEN": Path("/s/TOKEN")},
    labels={"a": "b"},
    cache="ghcr.io/acme/cache",
    created=1700000000,
)
REFERENCE = "ghcr.io/acme/train:ctx-" + "ab" * 16


# -- references ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "host", "repository", "version"),
    [
        ("python", "docker.io", "library/python", "latest"),
        ("python:3.11-slim", "docker.io", "library/python", "3.11-slim"),
        ("acme/x", "docker.io", "acme/x", "latest"),
        ("localhost/x:1", "localhost", "x", "1"),
        ("localhost:5000/a/b", "localhost:5000", "a/b", "latest"),
        ("ghcr.io/a/b:t@" + CONTENT, "ghcr.io", "a/b", CONTENT),
        ("[::1]:5000/a", "[::1]:5000", "a", "latest"),
    ],
)
def test_references(text: str, host: str, repository: str, version: str) -> None:
    found = parse_reference(text)
    assert (found.host, found.repository, found.version) == (host, repository, version)


@pytest.mark.parametrize("text", ["", "A/b", "a//b", "a:", "a@sha256:12", "x.io/a:b c", "../a"])
def test_wrong_references(text: str) -> None:
    with pytest.raises(ConfigError, match="is not an image reference"):
        parse_reference(text)


@pytest.mark.parametrize(
    ("host", "expected"),
    [("localhost:5000", True), ("127.0.0.2", True), ("[::1]:5", True), ("a.localhost", True),
     ("localhost.example.org", False), ("10.0.0.1:5000", False)],
)  # fmt: skip
def test_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


# -- Dockerfiles ---------------------------------------------------------------------------------


def test_instructions() -> None:
    text = "# syntax=x\n\nFROM a \\\n  # in between\n  AS b\nRUN <<EOF\nFROM no\nEOF\nrun x\n"
    found = [(one.word, one.rest, one.line) for one in instructions(text)]
    assert found == [("FROM", "a AS b", 3), ("RUN", "<<EOF", 6), ("RUN", "x", 9)]


def test_another_escape() -> None:
    assert [o.rest for o in instructions("# escape=`\nRUN a `\n b\\\nUSER 1")] == ["a b\\", "1"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("${A}", "1"), ("$A/b", "1/b"), ("${B:-x}", "x"), ("${A:+y}", "y"), ("${B:+y}", ""),
     ("${E:-x}${E-x}", "x")],
)  # fmt: skip
def test_expand(text: str, expected: str) -> None:
    assert expand(text, {"A": "1", "E": ""}) == expected


def test_bases() -> None:
    text = (
        "ARG BASE=python:3\nARG V=1\nFROM --platform=linux/amd64 ${BASE} AS one\nFROM node:$V\n"
        "FROM one\nCOPY --from=busybox /x /\nCOPY --from=one /x /\nCOPY --from=0 /x /\n"
    )
    assert bases(text, {"BASE": "b@x"}) == ["b@x", "node:1", "busybox"]
    assert bases(text, {})[0] == "python:3"
    with pytest.raises(ConfigError, match="line 1: FROM names no image"):
        bases("FROM ${NOTHING}\n", {})


def context(*paths: str) -> list[ContextFile]:
    return [ContextFile(path, f"/src/{path}", "file") for path in paths]


@pytest.mark.parametrize(
    ("rules", "copied"),
    [
        ("", ["Dockerfile", "main.py"]),
        ("Dockerfile\n.dockerignore\n", ["main.py"]),
        ("*\n!main.py\n", ["main.py"]),
    ],
)
def test_an_ignored_dockerfile_is_read_and_not_copied(
    tmp_path: Path, rules: str, copied: list[str]
) -> None:
    (tmp_path / "Dockerfile").write_text("FROM python\nCOPY . /step/\n")
    (tmp_path / "main.py").write_text("")
    if rules:
        (tmp_path / ".dockerignore").write_text(rules)
    target = replace(TARGET, files=context_files(StepSource("train", tmp_path)))
    found = [one.path for one in read_simple_target(target).files]
    assert found == [f"step/{name}" for name in copied]


def test_a_simple_dockerfile() -> None:
    text = (
        "ARG BASE\nFROM ${BASE}\nARG LEVEL=info\nWORKDIR /step\nCOPY requirements.txt ./\n"
        "RUN pip install --no-cache-dir -r requirements.txt\nCOPY . ./\nCOPY main.py /bin/tool\n"
        "COPY sub /data\nENV A=1 B='two words' C=$LEVEL\nUSER 1000\nEXPOSE 8080 53/udp\n"
        'LABEL x="y"\nWORKDIR src\nENTRYPOINT ["python", "main.py"]\nCMD go on\n'
    )
    files = context("requirements.txt", "main.py", "sub/a.txt")
    recipe = read_simple(text, files, {"BASE": "python@x"}, "here")
    assert recipe.base == "python@x"
    assert recipe.requirements == ("/src/requirements.txt",)
    assert {one.path: one.source for one in recipe.files} == {
        "step/requirements.txt": "/src/requirements.txt", "step/main.py": "/src/main.py",
        "step/sub/a.txt": "/src/sub/a.txt", "bin/tool": "/src/main.py",
        "data/a.txt": "/src/sub/a.txt",
    }  # fmt: skip
    assert recipe.env == {"A": "1", "B": "two words", "C": "info"}
    assert (recipe.user, recipe.workdir) == ("1000", "/step/src")
    assert recipe.ports == ("8080/tcp", "53/udp")
    assert recipe.entrypoint == ("python", "main.py")
    assert recipe.cmd == ("/bin/sh", "-c", "go on")
    assert recipe.made == ("step", "step/src")


@pytest.mark.parametrize(
    "line",
    [
        "RUN apt-get update", "RUN pip install numpy", "RUN pip install -r a.txt && rm x",
        "RUN pip install -r a.txt --extra-index-url https://x", "RUN pip install -r $(ls)",
        "RUN pip install -r missing.txt", "RUN pip install -e .", "COPY --chown=1 a.txt /",
        "COPY *.txt /", "COPY missing /", "ADD a.txt /", "HEALTHCHECK CMD x", "FROM other",
        "COPY <<EOF /x\nEOF", "VOLUME /x", "SHELL [\"x\"]", "ONBUILD RUN x", "WORKDIR relative",
        "ENV x='", "RUN --mount=type=cache,target=/x pip install -r a.txt",
    ],
)  # fmt: skip
def test_more_is_refused_with_its_line(line: str) -> None:
    text = f"FROM base\nCOPY a.txt /\n{line}\n"
    with pytest.raises(ConfigError, match=r"^here line 3: "):
        read_simple(text, context("a.txt"), {}, "here")


# -- command lines -------------------------------------------------------------------------------


def test_podman() -> None:
    assert podman.build_argv("podman", TARGET, FULL, Path("/w/id")) == [
        "podman", "build", "--file", "Dockerfile", "--layers", "--tag", REFERENCE,
        "--iidfile", "/w/id", "--platform", "linux/amd64", "--build-arg", "BASE=b",
        "--build-arg", "COLOUR=red", "--label", "a=b", "--secret",
        "type=file,id=TOKEN,src=/s/TOKEN", "--timestamp", "1700000000",
        "--cache-from", "ghcr.io/acme/cache", "--cache-to", "ghcr.io/acme/cache", "-",
    ]  # fmt: skip
    many = Options(platforms=("linux/amd64", "linux/arm64"), insecure=True)
    argv = podman.build_argv("buildah", TARGET, many, Path("/w/id"))
    assert argv[:7] == ["buildah", "build", "--file", "Dockerfile", "--layers", "--manifest",
                        REFERENCE]  # fmt: skip
    assert "--tls-verify=false" in argv
    assert podman.push_argv("buildah", TARGET, many) == [
        "buildah", "manifest", "push", "--all", "--tls-verify=false", REFERENCE,
        f"docker://{REFERENCE}",
    ]  # fmt: skip
    assert podman.push_argv("podman", TARGET, FULL) == [
        "podman", "push", REFERENCE, f"docker://{REFERENCE}"
    ]  # fmt: skip


def test_buildx() -> None:
    cache = f"ghcr.io/acme/cache:{TARGET.step}"
    shared = [
        "docker", "buildx", "build", "--file", "/w/context/Dockerfile", "--progress", "plain",
        "--provenance=false", "--tag", REFERENCE, "--build-arg", "BASE=b",
        "--build-arg", "COLOUR=red", "--label", "a=b", "--platform", "linux/amd64",
        "--secret", "type=file,id=TOKEN,src=/s/TOKEN",
        "--build-arg", "SOURCE_DATE_EPOCH=1700000000",
        "--cache-from", f"type=registry,ref={cache}",
    ]  # fmt: skip
    ends = {
        "cacheonly": ["--output", "type=cacheonly"],
        "push": ["--cache-to", f"type=registry,ref={cache},mode=max",
                 "--output", "type=image,push=true,unpack=false,rewrite-timestamp=true"],
        "load": ["--load", "--iidfile", "/w/id"],
    }  # fmt: skip
    for output, end in ends.items():
        assert docker.buildx_argv(TARGET, FULL, output, Path("/w")) == [
            *shared, *end, "/w/context"
        ]  # fmt: skip


def test_classic_docker() -> None:
    simple = Options(args={"BASE": "b"}, labels={"a": "b"}, platforms=("linux/amd64",))
    assert docker.classic_argv(TARGET, simple, Path("/w/id")) == [
        "docker", "build", "--force-rm", "--file", "Dockerfile", "--tag", REFERENCE,
        "--iidfile", "/w/id", "--build-arg", "BASE=b", "--label", "a=b",
        "--platform", "linux/amd64", "-",
    ]  # fmt: skip
    for options in (
        Options(secrets={"A": Path("/a")}), Options(cache="x"), Options(platforms=("a/b", "c/d"))
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=r"classic builder has no .*docker-buildx"):
            docker.classic_argv(TARGET, options, Path("/w/id"))


def test_buildctl() -> None:
    cache = f"ghcr.io/acme/cache:{TARGET.step}"
    shared = [
        "buildctl", "build", "--progress", "plain", "--frontend", "dockerfile.v0",
        "--local", "context=/w/c", "--local", "dockerfile=/w/c", "--opt", "build-arg:BASE=b",
        "--opt", "build-arg:COLOUR=red", "--opt", "build-arg:SOURCE_DATE_EPOCH=1700000000",
        "--opt", "label:a=b", "--opt", "platform=linux/amd64", "--secret", "id=TOKEN,src=/s/TOKEN",
        "--import-cache", f"type=registry,ref={cache}",
    ]  # fmt: skip
    assert buildctl.argv_of(TARGET, FULL, Path("/w/c"), push=False) == shared
    assert buildctl.argv_of(TARGET, FULL, Path("/w/c"), push=True) == [
        *shared, "--export-cache", f"type=registry,ref={cache},mode=max", "--output",
        f"type=image,name={REFERENCE},push=true,rewrite-timestamp=true",
    ]  # fmt: skip


def program(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


@pytest.mark.parametrize("name", ["docker", "podman", "buildah", "buildctl"])
def test_a_missing_engine(tmp_path: Path, name: str) -> None:
    environ = {"PATH": str(tmp_path)}
    with pytest.raises(OutsideError, match=rf"^{name} is not on the PATH; install it with `"):
        find.find_engine(name, environ, [], None, local=False)
    program(tmp_path, name, "exit 1")
    with pytest.raises(OutsideError, match=f"^{name} is installed, but does not answer"):
        find.find_engine(name, environ, [], None, local=False)
    program(tmp_path, name, "exit 0")
    assert find.find_engine(name, environ, [], None, local=False).name == name
    assert find.find_engine("auto", environ, [], None, local=False).name == name


def test_no_engine_at_all(tmp_path: Path) -> None:
    with pytest.raises(
        OutsideError, match=r"no container engine on this machine.*apt-get install podman"
    ):
        find.find_engine("auto", {"PATH": str(tmp_path)}, [], None, local=False)


def test_docker_with_and_without_buildx(tmp_path: Path) -> None:
    """What the client has decides which of its builders is called, and how."""
    log = tmp_path / "log"
    for buildx, expected in ((0, ["buildx version", "buildx build cacheonly", "buildx build push"]),
                             (1, ["buildx version", "build 0", "push"])):  # fmt: skip
        program(tmp_path, "docker", (
            f'case "$1 $2" in "buildx version") echo "$1 $2" >>{log}; exit {buildx};; '
            f'"buildx build") cat >/dev/null; case "$*" in *cacheonly*) echo "$1 $2 cacheonly";; '
            f'*push=true*) echo "$1 $2 push";; esac >>{log};; '
            f'"build "*) cat >/dev/null; echo "build $DOCKER_BUILDKIT" >>{log};; '
            f'*) echo $1 >>{log};; esac'
        ))  # fmt: skip
        log.write_text("")
        engine = docker.DockerEngine({"PATH": f"{tmp_path}:/usr/bin:/bin"})
        engine.build(TARGET, Options(), tmp_path, lambda line: None)
        engine.push(TARGET, Options(), tmp_path, lambda line: None)
        assert log.read_text().splitlines() == expected


def test_a_failure_shows_the_last_lines() -> None:
    argv = ["sh", "-c", "for i in 1 2 3; do echo line $i; done; exit 3"]
    lines: list[str] = []
    with pytest.raises(RunFailed, match=r"building failed \(exit code 3\)") as caught:
        execute(argv, lines.append, what="building", environ=dict(os.environ))
    assert caught.value.details == tuple(lines) == ("line 1", "line 2", "line 3")
    full = ["sh", "-c", "echo write /x: no space left on device; exit 1"]
    with pytest.raises(OutsideError, match="the disk is full"):
        execute(full, lines.append, what="building", environ=dict(os.environ))


@pytest.mark.parametrize("ended", [False, True])
def test_containers_that_come_late(tmp_path: Path, ended: bool) -> None:
    """After a kill a daemon may still make what it was asked for; after a run's end it does not."""
    log = tmp_path / "log"
    # There is no container when first asked, and one that cannot be seen before.
    program(tmp_path, "docker", (
        f'if [ "$1" = ps ]; then echo ps >>{log}; '
        f'if [ "$(grep -c ps {log})" -gt 2 ] && ! grep -q rm {log}; then echo late; fi; '
        f'else echo "$*" >>{log}; fi'
    ))  # fmt: skip
    subprocess.run(
        [sys.executable, "-I", "-S", str(Path(reap.__file__)), "docker", "r-1"],
        input=reap.ENDED if ended else b"", check=True,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
    )  # fmt: skip
    asked = log.read_text().splitlines()
    assert asked == ["ps"] if ended else "rm --force late" in asked


def test_the_reason_before_the_last_lines() -> None:
    """What is known is found where much is said after it; no more lines are shown for that."""
    script = "echo exec /bin/sh: exec format error; for i in $(seq 50); do echo $i; done; exit 1"
    with pytest.raises(OutsideError, match="cannot run programs of that platform") as caught:
        execute(["sh", "-c", script], lambda line: None, what="a", environ=dict(os.environ))
    assert caught.value.details == tuple(str(number) for number in range(36, 51))


def test_a_container() -> None:
    words = ["docker", "--see", "/state", "--see", "/models", "--cpus", "2", "--memory", "1024",
             "--network", "none", "--", "image@x", "python", "main.py", "--", "a"]  # fmt: skip
    environ = {
        "CTFLOW_RUN": "r-1", "CTFLOW_TASK": "t", "CTFLOW_CONTAINER_A": "1", "SECRET": "x",
        "CTFLOW_CONTAINER_PATH": "/p", "CTFLOW_MOUNTS": '{"/data": "/volumes/d"}',
    }  # fmt: skip
    argv = run_argv(words, environ, "/task/1", "name")
    me = f"{os.getuid()}:{os.getgid()}"
    assert argv == [
        "docker", "run", "--name", "name", "--label", "ctflow.run=r-1", "--user", me,
        "--security-opt", "no-new-privileges", "--volume", "/state:/state:ro",
        "--volume", "/models:/models:ro", "--cpus", "2", "--memory", "1024", "--network", "none",
        "--volume", "/task/1:/task/1:rw", "--volume", "/volumes/d:/data:rw",
        "--env", "HOME=/tmp", "--env", "PYTHONUNBUFFERED=1",
        "--env", "CTFLOW_RUN=r-1", "--env", "CTFLOW_TASK=t", "--env", "A", "--env", "PATH=/p",
        "--entrypoint", "python", "image@x", "main.py", "--", "a",
    ]  # fmt: skip


# -- layers, locks, what is kept -----------------------------------------------------------------


@given(st.permutations(["a", "d/e.txt", "d/f/g", "z"]))
def test_layers_do_not_depend_on_order_or_time(order: list[str]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        files = []
        for path in order:
            (place / path.replace("/", "_")).write_text(path)
            size = len(path)
            files.append(ContextFile(path, str(place / path.replace("/", "_")), "exec", size=size))
        layer = pack(files, place / "layer", frozenset({"d"}), ["made/here"])
        data = (place / "layer").read_bytes()
        assert layer.digest == f"sha256:{hashlib.sha256(data).hexdigest()}"
        assert layer.size == len(data)
        inner = gzip.decompress(data)
        assert layer.diff == f"sha256:{hashlib.sha256(inner).hexdigest()}"
        with tarfile.open(fileobj=io.BytesIO(inner)) as tar:
            members = tar.getmembers()
        assert [m.name for m in members] == [
            "made", "made/here", "a", "d/e.txt", "d/f", "d/f/g", "z"
        ]  # fmt: skip
        assert {(m.uid, m.gid, m.mtime, m.mode) for m in members} == {(0, 0, 315532800, 0o755)}


def test_content_tag() -> None:
    assert content_tag(CONTENT) == "ctx-" + "ab" * 16


def test_lock(tmp_path: Path) -> None:
    file = tmp_path / "ctflow.lock"
    assert write_lock(file, {"b": "2", "a": "1"})
    assert not write_lock(file, {"a": "1", "b": "2"})
    assert read_lock(file) == {"a": "1", "b": "2"}
    file.write_text("[]")
    with pytest.raises(ConfigError, match="is not a lock file"):
        read_lock(file)
    assert write_lock(file, {"a": "1"})


def kept(tag: str, digest: str, used: bool = False) -> RegistryImage:
    return RegistryImage("s", "r/s", tag, digest, "", used)


def test_superfluous() -> None:
    images = [kept("5", "e"), kept("4", "d", True), kept("3", "c"), kept("2", "b"), kept("1", "d")]
    assert [one.tag for one in superfluous(images, 0)] == ["5", "3", "2"]
    assert [one.tag for one in superfluous(images, 3)] == ["2"]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://ada:token@example.org/a/b.git", "https://example.org/a/b.git"),
        ("git@example.org:a/b.git", "https://example.org/a/b.git"),
        ("ssh://git@example.org:22/a/b.git", "https://example.org/a/b.git"),
        ("/srv/git/a.git", ""),
        ("file:///srv/a.git", ""),
    ],
)
def test_remote_url_has_no_login(tmp_path: Path, url: str, shown: str) -> None:
    import subprocess

    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    subprocess.run(["git", "remote", "add", "origin", url], cwd=tmp_path, check=True)
    assert remote_url(tmp_path) == shown
