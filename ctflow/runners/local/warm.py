"""A supervisor that has imported already what its tasks run; a script of its own, in any Python.

It runs in the Python of an environment and imports a module before the first task comes. A task
that is ``python -m`` of that module is then a fork of this interpreter, where a new one would have
to import it all again. It is as much a process of its own as any other: it runs as the main program
of its interpreter, and ends as one does. Any other task is started as ``supervisor`` does.
"""

from __future__ import annotations

import gc
import importlib.machinery
import importlib.util
import os
import runpy
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

#: What argparse imports in each task, which so is imported before, too.
_COMMON = ("locale", "shutil")


def preload(module: str) -> bool:
    """Import what the tasks run; whether this process may be forked then.

    What fails here fails again in each task, which then starts an interpreter and shows why.
    """
    try:
        for each in (*_COMMON, module):
            importlib.import_module(each)
    except BaseException:  # noqa: BLE001 (other people's code, and it may even exit)
        return False
    # It is run as the main program later, which must not find itself imported.
    parent, _, name = module.rpartition(".")
    del sys.modules[module]
    if parent:
        delattr(sys.modules[parent], name)
    if len(os.listdir("/proc/self/task")) > 1:  # noqa: PTH208 (a lock of theirs would stay locked)
        return False
    gc.freeze()
    return True


def run(message: dict[str, Any]) -> None:
    """Be the task: run its module as ``python -m`` does in a new interpreter."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    env: dict[str, str] = message["env"]
    for name in set(os.environ) - set(env):
        del os.environ[name]
    os.environ.update(env)
    if sys.path[:1] == [""]:  # what -c puts there; -m puts the folder that it starts in
        sys.path[0] = os.getcwd()  # noqa: PTH109 (as Python does)
    _, _, module, *arguments = message["argv"]
    sys.argv = ["-m", *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def main(module: str) -> Callable[[], None] | None:
    """Supervise with ``module`` imported.

    Returns in the supervisor None, when all is over, and in each forked task what runs it: to be
    called from the top level, so that nothing of the supervisor is left on the stack.
    """
    supervisor = _sibling("supervisor")
    supervisor.load_prctl()
    # An import may take for ever, and nothing is read from the socket meanwhile.
    supervisor.prctl(supervisor.PR_SET_PDEATHSIG, signal.SIGKILL)
    forkable = preload(module)
    supervisor.prctl(supervisor.PR_SET_PDEATHSIG, 0)
    try:
        supervisor.main(lambda message: forkable and message["argv"][1:3] == ["-m", module])
    except supervisor.Become as task:
        return partial(run, task.message)
    return None


def _sibling(name: str) -> ModuleType:
    """A script beside this one, wherever ctflow itself is installed.

    What it imports is Python's own, also where the tasks' folder has a module of that name: that
    one is for the tasks, which find it as if nothing had been imported before.
    """
    before, path = set(sys.modules), sys.path[:]
    library = os.path.dirname(os.__file__)  # noqa: PTH120
    sys.path.sort(key=lambda place: not place.startswith(library))
    try:
        made = _load(name)
    finally:
        sys.path[:] = path
    for imported in set(sys.modules) - before:
        if _shadowed(imported.partition(".")[0]):
            del sys.modules[imported]
    return made


def _shadowed(name: str) -> bool:
    """Whether ``import name`` would find another module than the one that is imported."""
    found = importlib.machinery.PathFinder.find_spec(name)
    own = getattr(sys.modules.get(name), "__spec__", None)
    return found is not None and (own is None or found.origin != own.origin)


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        f"ctflow_{name}", Path(__file__).with_name(f"{name}.py")
    )
    assert spec is not None  # noqa: S101 (it is a file that Python can read)
    assert spec.loader is not None  # noqa: S101
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made
