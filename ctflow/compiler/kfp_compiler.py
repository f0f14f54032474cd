"""Compiles KFP DSL to a package, in a child process: kfp keeps global state, and a newcomer's
environment does not have it."""

from __future__ import annotations

import difflib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import ctflow
from ctflow.errors import ConfigError, CtflowError, OutsideError
from ctflow.ports import Environments, Watch, ignore

#: What a compiler of ours is made from where the running Python has no kfp that fits.
_VERSION = "2.16.1"
KFP_REQUIREMENT = f"kfp=={_VERSION}\nkfp-kubernetes=={_VERSION}\n"
_FITS = ((2, 16, 1), (3,))
_CHILD = Path(__file__).with_name("kfp_compile_child.py")
#: Raised when the child compiles the same definition to other bytes.
_LAYOUT = 1
_TIMEOUT = 120.0
_MESSAGE_MAX = 600
_OUTPUT_MAX = 1 << 16


class KfpCompiler:
    """Implements the ``Compiler`` port.

    Args:
        environments: makes an environment with kfp where the running Python has none.
        timeout: seconds after which a definition that does not end is killed.
    """

    def __init__(self, environments: Environments, timeout: float = _TIMEOUT) -> None:
        self._environments = environments
        self._timeout = timeout

    def fingerprint(self) -> str:
        """As the port says; imports nothing of kfp."""
        return f"ctflow-compile-{_LAYOUT} kfp-{_own_kfp() or _VERSION}"

    def compile(
        self,
        root: Path,
        pipeline: str,
        images: Mapping[str, str],
        output: Path,
        watch: Watch = ignore,
    ) -> tuple[Path, ...]:
        """As the port says. The returned paths are relative to ``root``."""
        root = root.resolve()
        name, _, function = pipeline.rpartition(":")
        _check_file(root, name)
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=output.parent, prefix=".compile-") as scratch:
            made = Path(scratch) / "package.yaml"
            request = {
                "root": str(root),
                "file": name,
                "function": function,
                "output": str(made),
                "ctflow": ctflow.__file__,
            }
            python = self._python(watch)
            result = self._run(python, Path(scratch), root, request, images)
            error = result.get("error")
            if error is not None:
                raise _error(error, name, function)
            with made.open("rb") as file:
                os.fsync(file.fileno())
            made.replace(output)
        return tuple(Path(one) for one in result["files"])

    def _python(self, watch: Watch) -> str:
        if _own_kfp():
            return sys.executable
        return str(self._environments.ensure(KFP_REQUIREMENT, watch).python)

    def _run(
        self,
        python: str,
        scratch: Path,
        root: Path,
        request: Mapping[str, str],
        images: Mapping[str, str],
    ) -> dict[str, Any]:
        asked, answered, printed = (scratch / one for one in ("request", "result", "output"))
        asked.write_text(json.dumps(request), encoding="utf-8")
        variables = {key: value for key, value in os.environ.items() if key != "PYTHONHOME"} | {
            # The same bytes on every machine: no order may hang on hashes or on the locale.
            "PYTHONHASHSEED": "0",
            "PYTHONUTF8": "1",
            ctflow.IMAGES_VARIABLE: json.dumps(dict(images), sort_keys=True),
        }
        command = [python, str(_CHILD), str(asked), str(answered)]
        with printed.open("wb") as output:
            child = subprocess.Popen(
                command, cwd=root, env=variables, stdin=subprocess.DEVNULL, stdout=output,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
            try:
                code = child.wait(self._timeout)
            except subprocess.TimeoutExpired:
                raise ConfigError(
                    f"{request['file']} did not end within {self._timeout:g} s while it was "
                    "imported and compiled",
                    cause="it waits for something or loops",
                    next="a definition only describes the pipeline: move the work into a step",
                    details=_tail(printed),
                ) from None
            finally:
                _kill_group(child)
        try:
            result: dict[str, Any] = json.loads(answered.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
            raise ConfigError(
                f"the process that compiles {request['file']} {how} without a result",
                cause="the definition ended it, or memory ran out",
                next="run `python " + request["file"] + "` by itself",
                details=_tail(printed),
            ) from None
        return result


@cache
def _own_kfp() -> str | None:
    """The running Python's kfp version where it fits; kfp itself is not imported."""
    import importlib.metadata
    import importlib.util
    import re

    if importlib.util.find_spec("kfp") is None:
        return None
    try:
        version = importlib.metadata.version("kfp")
    except importlib.metadata.PackageNotFoundError:
        return None
    numbers = tuple(int(one) for one in re.findall(r"\d+", version)[:3])
    return version if _FITS[0] <= numbers < _FITS[1] else None


def _check_file(root: Path, name: str) -> None:
    path = root / name
    if not path.resolve().is_relative_to(root):
        raise ConfigError(
            f"pipeline {name} is outside the project", next="name a file inside it in ctflow.yaml"
        )
    if path.is_file():
        return
    here = [os.path.relpath(one, root) for one in sorted(root.glob("*.py"))]
    near = difflib.get_close_matches(name, here, n=1)
    mend = f"did you mean {near[0]!r}?" if near else "correct `pipeline:` in ctflow.yaml"
    raise ConfigError(f"there is no pipeline file {name}", next=mend)


def _error(error: Mapping[str, Any], name: str, function: str) -> CtflowError:
    kind, message = str(error["kind"]), _clean(str(error["message"]))
    names = [str(one) for one in error.get("names") or ()]
    if kind == "kfp":
        return OutsideError(
            f"kfp cannot be imported to compile {name}: {message}",
            next="reinstall it: `python -m pip install 'ctflow[kfp]'`",
        )
    if kind == "function":
        near = difflib.get_close_matches(function, names, n=1, cutoff=0.3)
        known = f"; its pipelines: {', '.join(map(_clean, names))}" if names else ""
        mend = f"did you mean {near[0]!r}?" if near else "decorate one with @dsl.pipeline"
        return ConfigError(f"{name} {message}{known}", next=mend)
    if kind == "plain":
        return ConfigError(f"{name}: {message}", next=f"put @dsl.pipeline above `def {function}`")
    place = f"{_clean(str(error['file']))}:{error['line']}" if error.get("file") else name
    if kind == "SystemExit":
        return ConfigError(
            f"{place}: the definition calls sys.exit({message}) while it is imported",
            next="put such calls below `if __name__ == '__main__':`",
        )
    mend = "correct the definition there"
    if kind == "ModuleNotFoundError" and names:
        mend = f"install {_clean(names[0])!r} beside ctflow, or import it inside a step only"
    frames = tuple(
        _clean(f"{one['file']}:{one['line']}: {one['text']}") for one in error.get("frames") or ()
    )
    return ConfigError(f"{place}: {kind}: {message}", next=mend, details=frames)


def _kill_group(child: subprocess.Popen[bytes]) -> None:
    """End the child and whatever it started; nothing of a definition outlives its compilation."""
    with suppress(ProcessLookupError, PermissionError):  # all of it may have ended
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _tail(printed: Path) -> tuple[str, ...]:
    with printed.open("rb") as file:
        file.seek(max(0, printed.stat().st_size - _OUTPUT_MAX))
        text = file.read().decode(errors="replace")
    return tuple(_clean(line) for line in text.splitlines()[-10:])


def _clean(text: str) -> str:
    """Without control characters, for a terminal, and not too long for a line."""
    shown = "".join(c if c.isprintable() or c in "\n\t" else f"\\x{ord(c):02x}" for c in text)
    return shown if len(shown) <= _MESSAGE_MAX else f"{shown[:_MESSAGE_MAX]}..."
