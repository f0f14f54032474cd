"""Runs in a process of its own, in a Python that has kfp and need not have ctflow: compiles one
pipeline definition.

``python kfp_compile_child.py REQUEST RESULT``: two JSON files. The request holds ``root``, ``file``
(relative to it), ``function``, ``output`` and ``ctflow`` (the file of the module that a definition
imports under that name). The result holds ``files`` (what the definition read of the project), or
``error``: {kind, message, file, line, frames, names}.
"""

# Plain strings for paths: an audit hook runs at every file that anybody opens.
# ruff: noqa: PTH110, PTH113, PTH118, PTH119, PTH120, PTH122, PTH123, PTH206
from __future__ import annotations

import importlib.util
import json
import os
import sys
import traceback
from collections.abc import Iterator
from types import ModuleType
from typing import Any

_SKIPPED = {".git", ".ctflow", "__pycache__", "site-packages", "node_modules"}


class Refused(Exception):
    """The definition is wrong in a way that no exception of its own says."""

    def __init__(self, kind: str, message: str, names: list[str] | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.names = names or []


class Reads:
    """Which files of the project are opened for reading: an audit hook cannot be got around by
    mistake, and sees component files and data as well as modules."""

    def __init__(self, root: str) -> None:
        self._prefix = root.rstrip(os.sep) + os.sep
        self._paths: dict[str, None] = {}

    def hook(self, event: str, args: tuple[Any, ...]) -> None:
        """As ``sys.addaudithook`` wants it."""
        if event != "open" or not isinstance(args[0], (str, bytes)):
            return
        flags = args[2] if isinstance(args[2], int) else 0
        if flags & (os.O_WRONLY | os.O_RDWR):
            return
        path = os.path.realpath(os.fsdecode(args[0]))
        if path.startswith(self._prefix):
            self._paths[path] = None

    def add(self, path: str) -> None:
        """Count a file that was imported from bytecode."""
        path = os.path.realpath(path)
        if path.startswith(self._prefix):
            self._paths[path] = None

    def relative(self) -> Iterator[str]:
        """The files, relative to the root, in the order of the first reading."""
        for path in self._paths:
            name = path[len(self._prefix) :]
            folders = name.split(os.sep)[:-1]
            if _SKIPPED & set(folders) or path.endswith(".pyc") or not os.path.isfile(path):
                continue
            places = (os.sep.join(folders[: n + 1]) for n in range(len(folders)))
            if any(os.path.exists(f"{self._prefix}{one}/pyvenv.cfg") for one in places):
                continue
            yield name


def main(request_file: str, result_file: str) -> int:
    """Compile, and write the result."""
    with open(request_file, encoding="utf-8") as file:
        request = json.load(file)
    root = os.path.realpath(request["root"])
    try:
        result: dict[str, Any] = {"files": _compile(root, request)}
    except Refused as refused:
        result = {"error": {"kind": refused.kind, "message": str(refused), "names": refused.names}}
    except KeyboardInterrupt:
        return 130
    except BaseException as error:  # noqa: BLE001 (the user's code may raise anything)
        result = {"error": _describe(error, root)}
    with open(result_file, "w", encoding="utf-8") as file:
        json.dump(result, file)
    return 0


def _compile(root: str, request: dict[str, Any]) -> list[str]:
    # This file's own folder is no place to import from; the project's root is.
    sys.path[0] = root
    try:
        from kfp import compiler
        from kfp.dsl.base_component import BaseComponent
        from kfp.dsl.graph_component import GraphComponent
    except ImportError as error:
        raise Refused("kfp", str(error)) from None
    own = _load("ctflow", request["ctflow"])
    beside = os.path.join(os.path.dirname(request["ctflow"]), "components.py")
    own.components = _load("ctflow.components", beside)  # type: ignore[attr-defined]
    path = os.path.join(root, request["file"])
    sys.path.insert(1, os.path.dirname(path))
    # kfp's own bytecode is worth keeping; the project's folder stays as it is.
    sys.dont_write_bytecode = True
    reads = Reads(root)
    reads.add(path)
    sys.addaudithook(reads.hook)
    stem = os.path.splitext(os.path.basename(path))[0]
    module = _load(stem if stem not in sys.modules else f"pipeline_{stem}", path)
    definition = _definition(module, request["function"], BaseComponent, GraphComponent)
    compiler.Compiler().compile(definition, request["output"])
    for loaded in list(sys.modules.values()):
        origin = getattr(loaded, "__file__", None)
        if isinstance(origin, str) and getattr(loaded, "__name__", "") not in (
            "ctflow",
            "ctflow.components",
        ):
            reads.add(origin)
    return list(reads.relative())


def _load(name: str, path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise Refused("file", f"{path} is not a Python module")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _definition(module: ModuleType, name: str, component: type, graph: type) -> Any:
    found = vars(module).get(name)
    pipelines = [key for key, value in vars(module).items() if isinstance(value, graph)]
    if found is None:
        raise Refused("function", f"has no function {name!r}", pipelines)
    if not isinstance(found, component):
        what = "a plain function" if callable(found) else f"a {type(found).__name__}"
        raise Refused("plain", f"{name} is {what}, not a pipeline", pipelines)
    return found


def _describe(error: BaseException, root: str) -> dict[str, Any]:
    """The user's own line, and the frames of the project only."""
    prefix = root + os.sep
    # Python's own frozen modules have no file, and no place in the user's traceback.
    own = [one for one in traceback.extract_tb(error.__traceback__) if one.filename[:1] != "<"]
    frames = [
        {"file": os.path.realpath(one.filename)[len(prefix) :], "line": one.lineno,
         "function": one.name, "text": one.line or ""}
        for one in own
        if os.path.realpath(one.filename).startswith(prefix)
        and not _SKIPPED & set(os.path.realpath(one.filename)[len(prefix) :].split(os.sep))
    ]  # fmt: skip
    described: dict[str, Any] = {
        "kind": type(error).__name__,
        "message": _text(error),
        "frames": frames,
        "file": frames[-1]["file"] if frames else None,
        "line": frames[-1]["line"] if frames else None,
        "names": [],
    }
    if isinstance(error, SyntaxError) and error.filename:
        place = os.path.realpath(error.filename)
        described["file"] = place[len(prefix) :] if place.startswith(prefix) else error.filename
        described["line"] = error.lineno
        described["message"] = error.msg
        described["frames"].append(
            {"file": described["file"], "line": error.lineno, "function": "",
             "text": (error.text or "").strip()}
        )  # fmt: skip
    if isinstance(error, ModuleNotFoundError):
        described["names"] = [error.name or ""]
    return described


def _text(error: BaseException) -> str:
    if isinstance(error, KeyError) and len(error.args) == 1:
        return repr(error.args[0])
    try:
        return str(error)
    except Exception as second:  # noqa: BLE001 (an exception's own __str__ may be broken)
        return f"(its message failed with {type(second).__name__})"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
