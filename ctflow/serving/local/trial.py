"""A model tried once with its serving code, on its own: started, asked the golden requests, ended.

No environment's servers, ports or files are touched. The model server is the one that serves
(``backend.py``); it ends with this process, however that ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from ctflow.errors import ConfigError, RunFailed
from ctflow.ports import Environments, Event, GoldenRequest, Trial, Watch
from ctflow.serving import golden as g
from ctflow.serving.local.code import left_out, write_code
from ctflow.serving.local.control import last_lines, variables
from ctflow.serving.local.layout import model_folder, requirements_of
from ctflow.serving.local.pool import not_ready
from ctflow.serving.local.rollout import LOG_LINES
from ctflow.serving.local.timing import timed, worth_timing

#: Seconds between two looks at a starting server.
_LOOK = 0.02


def try_model(
    request: GoldenRequest,
    environments: Environments,
    watch: Watch,
    timeout: float,
    pass_env: tuple[str, ...] = (),
) -> Trial:
    """The golden requests' answers, and the times they take where the request asks for them.

    Args:
        timeout: seconds that the model server has until it must answer.
        pass_env: names of the caller's variables that it gets besides the usual ones.

    Raises:
        ConfigError: the golden requests or requirements.txt are missing or wrong, or none of the
            requests can be timed.
        RunFailed: the model server does not start; with the last lines of its log.
        OutsideError: its environment cannot be made.
    """
    golden = g.golden_in(request.code, request.golden)
    timeable = worth_timing(golden)
    if request.more is not None and not timeable:
        lacks = f"{request.golden} has no request that the model answers"
        raise ConfigError(
            f"{lacks if request.golden else 'there are no golden requests'}, so nothing can be"
            " timed",
            next="add one that expects a part of the answer and no status code",
        )
    with tempfile.TemporaryDirectory(prefix="ctflow-try-") as folder:
        place = Path(folder)
        code = place / "code"
        predictor = write_code(request, code)
        environment = environments.ensure(requirements_of(code), watch)
        aim = "to send the golden requests" if request.golden else "to see that it loads"
        watch(Event("note", "gate", f"starting the model {aim}"))
        spec = {
            "name": request.project,
            "code": str(code),
            "predictor": predictor,
            "model_dir": str(model_folder(request.path, place / "model")),
            "ready": str(place / "ready"),
            "parent": os.getpid(),
        }
        program = Path(__file__).with_name("backend.py")
        words = [str(environment.python), str(program), json.dumps(spec)]
        try:
            with _started(words, variables(environment, pass_env), place, timeout) as port:
                return _asked(request, port, golden, timeable, watch)
        except RunFailed as error:
            if not (names := left_out(request)):
                raise
            said = f"{error.fact} (.dockerignore leaves out {', '.join(names[:3])})"
            raise RunFailed(said, details=error.details) from None


def _asked(
    request: GoldenRequest,
    port: int,
    golden: tuple[g.Golden, ...],
    timeable: list[g.Golden],
    watch: Watch,
) -> Trial:
    """What the model server on a port answers, and how fast."""
    checks = g.send_all(f"http://127.0.0.1:{port}", request.project, golden)
    if request.more is None or not all(check.passed for check in checks):
        return Trial(checks)
    watch(Event("note", "gate", "timing its answers, one request at a time"))
    return Trial(checks, timed(port, request.project, timeable, request.more))


@contextlib.contextmanager
def _started(
    words: list[str], environ: dict[str, str], place: Path, timeout: float
) -> Iterator[int]:
    """The port of a model server while it runs."""
    log = place / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=output, stderr=output, cwd=place, env=environ,
            start_new_session=True,
        )  # fmt: skip
    try:
        yield _wait(process, place / "ready", log, timeout)
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process.stdin is not None:
            process.stdin.close()


def _wait(process: subprocess.Popen[bytes], ready: Path, log: Path, timeout: float) -> int:
    deadline = time.monotonic() + timeout
    while not ready.exists():
        if process.poll() is not None:
            why = f"it ended with exit code {process.returncode} before it was ready"
        elif time.monotonic() > deadline:
            why = not_ready(timeout)
        else:
            time.sleep(_LOOK)
            continue
        lines = tuple(last_lines(log, LOG_LINES))
        said = f": {lines[-1]}" if lines else ""
        raise RunFailed(f"the model server did not start: {why}{said}", details=lines)
    return int(json.loads(ready.read_text(encoding="utf-8"))["port"])
