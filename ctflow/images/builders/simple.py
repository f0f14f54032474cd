"""Dockerfiles that are only "base, requirements, copy, command": what an image of one is made of.

Everything else is refused, with its line: guessing what a command does would make another image
than an engine's.
"""

from __future__ import annotations

import json
import posixpath
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ctflow.errors import ConfigError
from ctflow.images.builders.dockerfile import Instruction, expand, instructions
from ctflow.images.builders.engine import Target
from ctflow.steps.context import DOCKERFILE, ContextFile, rules_of

_PIP = re.compile(r"^(?:python3? -m )?pip3? install\s+(.*)$")
#: Flags of pip that change nothing about what is installed, as we install.
_HARMLESS = frozenset({
    "--no-cache-dir", "--no-compile", "--quiet", "-q", "--disable-pip-version-check",
    "--no-input", "--root-user-action=ignore", "--no-warn-script-location", "--require-hashes",
})  # fmt: skip
_GLOB = re.compile(r"[*?\[]")
_SHELL = ["/bin/sh", "-c"]


@dataclass(frozen=True)
class Recipe:
    """What an image adds to its base.

    Attributes:
        requirements: files of the context that pip installs, in order.
        files: the context's files, their ``path`` absolute in the image, without the first slash.
        workdir: None as the base has it; so with ``user``, ``entrypoint`` and ``cmd``.
        env, labels, ports: what is added.
        made: folders that WORKDIR makes.
    """

    base: str
    requirements: tuple[str, ...] = ()
    files: tuple[ContextFile, ...] = ()
    workdir: str | None = None
    user: str | None = None
    entrypoint: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    ports: tuple[str, ...] = ()
    made: tuple[str, ...] = ()


def read_simple_target(target: Target, args: Mapping[str, str] | None = None) -> Recipe:
    """The recipe of a step. Raises ConfigError, with the line that asks for more."""
    found = next((one for one in target.files if one.path == DOCKERFILE), None)
    if found is None:
        raise ConfigError(f"step {target.step}: its context has no {DOCKERFILE}")
    with open(found.source, encoding="utf-8-sig") as file:  # noqa: PTH123
        text = file.read()
    values = {"BASE": target.base, **(args or {})}
    files = target.files
    if rules_of(Path(found.source).parent, target.step).ignored(DOCKERFILE):
        # It is in every context, for it is to be read; an engine copies it only where it may.
        files = tuple(one for one in files if one is not found)
    return read_simple(text, files, values, f"step {target.step}: {DOCKERFILE}")


def read_simple(
    text: str, files: Sequence[ContextFile], args: Mapping[str, str], where: str
) -> Recipe:
    """The recipe of a Dockerfile's text. Raises ConfigError."""
    return _Reader(files, args, where).read(text)


class _Reader:
    def __init__(self, files: Sequence[ContextFile], args: Mapping[str, str], where: str) -> None:
        self._files = files
        self._args = args
        self._where = where
        self._values: dict[str, str] = {}
        self._base = ""
        self._workdir = ""
        self._copied: dict[str, ContextFile] = {}
        self._requirements: list[str] = []
        self._made: list[str] = []
        self._env: dict[str, str] = {}
        self._labels: dict[str, str] = {}
        self._ports: list[str] = []
        self._user: str | None = None
        self._entrypoint: tuple[str, ...] | None = None
        self._cmd: tuple[str, ...] | None = None

    def read(self, text: str) -> Recipe:
        handlers = {
            "ARG": self._arg, "FROM": self._from, "WORKDIR": self._change, "ENV": self._set,
            "COPY": self._copy, "RUN": self._run, "USER": self._as, "LABEL": self._label,
            "EXPOSE": self._expose, "CMD": self._command, "ENTRYPOINT": self._command,
        }  # fmt: skip
        for one in instructions(text):
            handler = handlers.get(one.word)
            if handler is None or one.heredoc:
                raise self._refused(one, f"{one.word} needs a container engine")
            if not self._base and one.word not in ("ARG", "FROM"):
                raise self._refused(one, f"{one.word} comes before FROM")
            handler(one)
        if not self._base:
            raise ConfigError(f"{self._where} has no FROM", next="add `FROM ${BASE}`")
        return Recipe(
            self._base, tuple(self._requirements), tuple(self._copied.values()),
            self._workdir or None, self._user, self._entrypoint, self._cmd, self._env,
            self._labels, tuple(self._ports), tuple(self._made),
        )  # fmt: skip

    def _arg(self, one: Instruction) -> None:
        name, equals, default = one.rest.partition("=")
        if name in self._args:
            self._values[name] = self._args[name]
        elif equals:
            self._values[name] = self._fill(_unquote(default))

    def _from(self, one: Instruction) -> None:
        words = one.rest.split()
        if self._base:
            raise self._refused(one, "a second FROM needs a container engine")
        if words and words[0].startswith("--"):
            raise self._refused(one, f"{words[0]} needs a container engine")
        self._base = self._fill(words[0]) if words else ""
        if not self._base or self._base == "scratch":
            raise self._refused(one, "FROM names no base image")

    def _change(self, one: Instruction) -> None:
        if not self._workdir and not self._fill(one.rest).startswith("/"):
            raise self._refused(one, "the first WORKDIR must be absolute")
        self._workdir = posixpath.normpath(posixpath.join(self._workdir, self._fill(one.rest)))
        self._made.append(self._workdir.strip("/"))

    def _pairs(self, one: Instruction) -> dict[str, str]:
        try:
            words = shlex.split(one.rest)
        except ValueError:
            raise self._refused(one, f"{one.word} has an open quote") from None
        if words and "=" not in words[0]:
            name, _, value = one.rest.partition(" ")
            return {name: self._fill(value.strip())}
        if not all("=" in word for word in words):
            raise self._refused(one, f"{one.word} is not NAME=value")
        return {name: self._fill(value) for name, _, value in (w.partition("=") for w in words)}

    def _set(self, one: Instruction) -> None:
        for name, value in self._pairs(one).items():
            self._env[name] = self._values[name] = value

    def _label(self, one: Instruction) -> None:
        self._labels.update(self._pairs(one))

    def _expose(self, one: Instruction) -> None:
        for word in self._fill(one.rest).split():
            self._ports.append(word if "/" in word else f"{word}/tcp")

    def _as(self, one: Instruction) -> None:
        self._user = self._fill(one.rest)

    def _command(self, one: Instruction) -> None:
        words: list[str] | None = None
        if one.rest.startswith("["):
            try:
                words = json.loads(one.rest)
            except ValueError:
                words = None  # then it is the shell form, as Docker takes it
        command = tuple(map(str, words)) if words is not None else (*_SHELL, one.rest)
        if one.word == "CMD":
            self._cmd = command
        else:
            self._entrypoint = command

    def _copy(self, one: Instruction) -> None:
        words = one.rest.split()
        if one.rest.startswith("["):
            try:
                words = [str(word) for word in json.loads(one.rest)]
            except ValueError:
                raise self._refused(one, "COPY is not JSON") from None
        words = [self._fill(word) for word in words]
        if words and words[0].startswith("--"):
            raise self._refused(one, f"COPY {words[0].partition('=')[0]} needs a container engine")
        if len(words) < 2:
            raise self._refused(one, "COPY wants a source and a target")
        *sources, target = words
        into = target.endswith("/") or target in (".", "..") or len(sources) > 1
        place = posixpath.normpath(posixpath.join(self._workdir or "/", target)).strip("/")
        for source in sources:
            if _GLOB.search(source):
                raise self._refused(one, f"the pattern {source} needs a container engine")
            self._copy_one(one, posixpath.normpath(source.strip("/") or "."), place, into)

    def _copy_one(self, one: Instruction, source: str, place: str, into: bool) -> None:
        exact = next((file for file in self._files if file.path == source), None)
        if exact is not None and exact.kind == "folder":
            self._put(one, exact, place)  # what is in it is copied, which is nothing
            return
        if exact is not None:
            path = f"{place}/{posixpath.basename(source)}" if into else place
            self._put(one, exact, path.strip("/"))
            return
        prefix = "" if source == "." else f"{source}/"
        inside = [file for file in self._files if file.path.startswith(prefix)]
        if not inside:
            raise self._refused(one, f"{source!r} is not in the step's context")
        for file in inside:
            self._put(one, file, f"{place}/{file.path[len(prefix) :]}".strip("/"))

    def _put(self, one: Instruction, file: ContextFile, path: str) -> None:
        if not path:
            if file.kind == "folder":
                return
            raise self._refused(one, "COPY of a file onto the root folder")
        self._copied[path] = replace(file, path=path)

    def _run(self, one: Instruction) -> None:
        match = _PIP.match(" ".join(one.rest.split()))
        words = match[1].split() if match else []
        files: list[str] = []
        rest = iter(words)
        for word in rest:
            if word in ("-r", "--requirement"):
                files.append(next(rest, ""))
            elif word.startswith("--requirement="):
                files.append(word.partition("=")[2])
            elif word not in _HARMLESS:
                files = []
                break
        if not files or re.search(r"[&|;<>`$]", one.rest):
            raise self._refused(
                one, "RUN does more than `pip install -r FILE`, which needs a container engine"
            )
        for file in files:
            path = posixpath.normpath(posixpath.join(self._workdir or "/", file)).strip("/")
            copied = self._copied.get(path)
            if copied is None or copied.kind == "folder":
                raise self._refused(one, f"{file} was not copied into the image before")
            self._requirements.append(copied.source)

    def _fill(self, text: str) -> str:
        return expand(text, self._values)

    def _refused(self, one: Instruction, why: str) -> ConfigError:
        return ConfigError(
            f"{self._where} line {one.line}: {why}",
            cause="images without an engine are base, requirements, copies and a command",
            next="simplify it, or use `images: {builder: auto}` with docker or podman",
        )


def _unquote(text: str) -> str:
    if len(text) >= 2 and text[0] == text[-1] and text[0] in "\"'":
        return text[1:-1]
    return text
