"""Tasks of a warm interpreter are what tasks of a new one are: only the time differs."""

from __future__ import annotations

import json
import os
import select
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ctflow.runners.local import process
from ctflow.runners.local.process import Command, Exit, Launcher, Process

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="there are warm interpreters on Linux only"
)

PROBE = '''
"""What a process can know of how it was started, as JSON."""
import json, locale, os, random, resource, signal, sys, threading, warnings

def stream(one):
    return [one.encoding, one.errors, one.line_buffering, one.write_through, one.isatty()]

if __name__ == "__main__":
    main = sys.modules["__main__"]
    print(json.dumps({
        "argv": sys.argv, "path": sys.path, "flags": str(sys.flags), "warn": sys.warnoptions,
        "executable": sys.executable, "prefix": sys.prefix, "base": sys.base_prefix,
        "name": [main.__name__, main.__spec__.name, main.__file__],
        "cwd": os.getcwd(),
        "env": dict(os.environ), "leader": os.getsid(0) == os.getpid() == os.getpgid(0),
        "files": sorted(name for name in os.listdir("/proc/self/fd")
                        if os.path.exists("/proc/self/fd/" + name)),
        "signals": {number.name: str(signal.getsignal(number))
                    for number in signal.valid_signals() if isinstance(number, signal.Signals)},
        "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
        "wakeup": signal.set_wakeup_fd(-1), "threads": threading.active_count(),
        "main_thread": threading.current_thread() is threading.main_thread(),
        "limits": [resource.getrlimit(one) for one in (resource.RLIMIT_DATA, resource.RLIMIT_CORE)],
        "stdin": sys.stdin.read(), "stdout": stream(sys.stdout), "stderr": stream(sys.stderr),
        "umask": os.umask(0o22), "locale": locale.setlocale(locale.LC_ALL),
        "filters": len(warnings.filters), "fresh": "probe" in sys.modules,
        "random": random.random(), "pid": os.getpid(), "below": os.getppid(),
    }))
'''
#: What no two processes have in common.
OWN = ("random", "pid", "below")


@pytest.fixture
def launcher() -> Iterator[Launcher]:
    made = Launcher()
    yield made
    made.close()


def command(folder: Path, module: str, *args: str, **env: str) -> Command:
    """``python3 -m MODULE`` in a folder, where it may be warm."""
    variables = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "PYTHONUNBUFFERED": "1",
                 "HOME": str(folder), "CTFLOW_TASK": "one"}  # fmt: skip
    words = ["python3", "-m", module, *args]
    return Command(words, variables | env, str(folder), 0, module, str(folder))


def cold(warm: Command) -> Command:
    return replace(warm, module="")


def finish(task: Process) -> tuple[Exit, str]:
    """How a task ends, and all that it printed."""
    os.set_blocking(task.output, True)
    parts = []
    while part := os.read(task.output, 1 << 16):
        parts.append(part)
    select.select([task.control], [], [])
    ended = task.result()
    task.close()
    return ended, b"".join(parts).decode()


def run(launcher: Launcher, what: Command) -> tuple[Exit, str]:
    return finish(launcher.start(what))


def probe(launcher: Launcher, what: Command) -> dict[str, Any]:
    ended, text = run(launcher, what)
    assert ended.good, text
    found: dict[str, Any] = json.loads(text)
    return found


def parent_imported(folder: Path) -> int:
    """How many interpreters have imported the module that writes this down."""
    return len((folder / "imports").read_text().splitlines())


def counted(folder: Path, name: str, text: str) -> None:
    """A module that writes down each process that imports it not as its main program."""
    (folder / f"{name}.py").write_text(
        f"import os\nif __name__ != '__main__':\n    open({str(folder / 'imports')!r}, 'a')"
        f".write(f'{{os.getpid()}}\\n')\n{text}"
    )


def test_a_task_cannot_tell_that_it_is_warm(tmp_path: Path, launcher: Launcher) -> None:
    (tmp_path / "probe.py").write_text(PROBE)
    what = command(tmp_path, "probe", "a b", "--c=é", LANG="C.UTF-8", PYTHONHASHSEED="7")
    fresh, warm, again = (probe(launcher, each) for each in (cold(what), what, what))
    for own in OWN:
        assert len({fresh[own], warm[own], again[own]}) == 3
    assert {key: value for key, value in warm.items() if key not in OWN} == {
        key: value for key, value in fresh.items() if key not in OWN
    }
    assert fresh["argv"] == [str(tmp_path / "probe.py"), "a b", "--c=é"]


def test_the_module_is_imported_once_for_all_tasks(tmp_path: Path, launcher: Launcher) -> None:
    counted(tmp_path, "slow", "print('ran', __name__)\n")
    for task in ("one", "two", "three"):
        ended, text = run(launcher, command(tmp_path, "slow", CTFLOW_TASK=task))
        assert (ended.good, text) == (True, "ran __main__\n")
    assert parent_imported(tmp_path) == 1


def test_each_task_has_its_own_variables_and_folder(tmp_path: Path, launcher: Launcher) -> None:
    (tmp_path / "probe.py").write_text(PROBE)
    other = tmp_path / "other"
    other.mkdir()
    env = {"PYTHONPATH": str(tmp_path)}
    here = probe(launcher, command(tmp_path, "probe", **env, CTFLOW_TASK="one"))
    what = replace(command(tmp_path, "probe", **env, CTFLOW_TASK="two"), cwd=str(other))
    there = probe(launcher, what)
    assert (here["env"]["CTFLOW_TASK"], there["env"]["CTFLOW_TASK"]) == ("one", "two")
    assert (here["cwd"], there["cwd"]) == (str(tmp_path), str(other))
    assert there["path"][0] == str(other)


def test_variables_that_only_a_start_heeds_are_heeded(tmp_path: Path, launcher: Launcher) -> None:
    """One interpreter for each set of variables, and the oldest go when there are too many."""
    counted(tmp_path, "hashes", "print(hash('text'))\n")
    seeds = [str(seed) for seed in range(1, Launcher.WARM + 3)]
    commands = [command(tmp_path, "hashes", PYTHONHASHSEED=seed) for seed in seeds]
    expected = [run(launcher, cold(each))[1] for each in commands]
    assert len(set(expected)) == len(seeds)
    assert [run(launcher, each)[1] for each in commands] == expected
    assert parent_imported(tmp_path) == len(seeds)
    assert run(launcher, commands[-1])[1] == expected[-1]
    assert parent_imported(tmp_path) == len(seeds)  # the newest is still there
    assert run(launcher, commands[0])[1] == expected[0]
    assert parent_imported(tmp_path) == len(seeds) + 1  # the oldest was let go


@pytest.mark.parametrize(
    ("body", "code", "number", "prints"),
    [
        ("sys.exit(3)", 3, 0, ""),
        ("raise ValueError('no')", 1, 0, "ValueError: no"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", None, signal.SIGSEGV, ""),
        ("os.kill(os.getpid(), signal.SIGTERM)", None, signal.SIGTERM, ""),
        ("os.kill(os.getpid(), signal.SIGINT)", None, signal.SIGINT, "KeyboardInterrupt"),
        ("os._exit(9)", 9, 0, ""),
        ("atexit.register(print, 'at the end')", 0, 0, "at the end"),
        ("threading.Timer(0.05, print, ['a thread']).start()", 0, 0, "a thread"),
        ("kept = open('kept', 'w'); kept.write('x')", 0, 0, ""),
        ("print(subprocess.run(['sh', '-c', 'echo $CTFLOW_TASK'], capture_output=True).stdout)",
         0, 0, "b'one\\n'"),
        ("print(multiprocessing.get_context('spawn').Pool(1).map(math.sqrt, [9]))", 0, 0, "[3.0]"),
        ("print(multiprocessing.get_context('fork').Pool(1).map(math.sqrt, [9]))", 0, 0, "[3.0]"),
    ],
)  # fmt: skip
def test_it_ends_as_any_program_does(
    tmp_path: Path, launcher: Launcher, body: str, code: int | None, number: int, prints: str
) -> None:
    counted(
        tmp_path, "program",
        "import atexit, math, multiprocessing, os, signal, subprocess, sys, threading\n"
        f"if __name__ == '__main__':\n    {body}\n",
    )  # fmt: skip
    for each in (cold(command(tmp_path, "program")), command(tmp_path, "program")):
        ended, text = run(launcher, each)
        assert (ended.code, ended.signal, ended.lost) == (code, number, False), text
        assert prints in text
        if "kept" in body:  # written when the interpreter ends, and not before
            assert (tmp_path / "kept").read_text() == "x"
            (tmp_path / "kept").unlink()


@pytest.mark.parametrize(
    "text",
    [
        "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n",
        "if __name__ != '__main__':\n    raise SystemExit('not to be imported')\n",
    ],
    ids=["leaves a thread", "cannot be imported"],
)
def test_what_cannot_be_forked_is_started_anew(
    tmp_path: Path, launcher: Launcher, text: str
) -> None:
    counted(tmp_path, "odd", f"{text}import sys\nprint(sys.orig_argv[1:])\n")
    ended, printed = run(launcher, command(tmp_path, "odd", "x"))
    assert ended.good, printed
    assert printed == "['-m', 'odd', 'x']\n"
    assert parent_imported(tmp_path) == 1  # it was tried


def test_python_that_is_not_there(tmp_path: Path, launcher: Launcher) -> None:
    what = replace(command(tmp_path, "probe"), argv=["python9.9", "-m", "probe"])
    ended, text = run(launcher, what)
    assert ended.code == 127
    assert "cannot start python9.9" in text


def test_python_that_cannot_start_says_why(tmp_path: Path, launcher: Launcher) -> None:
    (tmp_path / "probe.py").write_text(PROBE)
    ended, text = run(launcher, command(tmp_path, "probe", PYTHONHOME=str(tmp_path / "none")))
    assert (ended.code, ended.lost) == (1, False)
    assert "No module named 'encodings'" in text


def test_killed_interpreter_is_replaced(tmp_path: Path, launcher: Launcher) -> None:
    counted(tmp_path, "who", "print(os.getpid())\n")
    what = command(tmp_path, "who")
    assert run(launcher, what)[0].good
    (warm,) = (tmp_path / "imports").read_text().split()
    killed = os.pidfd_open(int(warm))
    os.kill(int(warm), signal.SIGKILL)
    select.select([killed], [], [])
    os.close(killed)
    assert run(launcher, what)[0].good
    assert run(launcher, what)[0].good
    assert parent_imported(tmp_path) == 2


def test_modules_of_the_task_may_be_named_like_pythons_own(
    tmp_path: Path, launcher: Launcher
) -> None:
    """The supervisor needs Python's ``resource`` and ``select``; the task means its own."""
    (tmp_path / "resource.py").write_text("MINE = 'resource'\n")
    (tmp_path / "select.py").write_text("MINE = 'select'\n")
    (tmp_path / "uses.py").write_text(
        "import resource, select\nprint(resource.MINE, select.MINE)\n"
    )
    what = command(tmp_path, "uses")
    for each in (cold(what), what):
        ended, text = run(launcher, each)
        assert (ended.code, text) == (0, "resource select\n")


def test_nothing_of_the_supervisor_is_said_in_developers_mode(
    tmp_path: Path, launcher: Launcher
) -> None:
    (tmp_path / "quiet.py").write_text("print('ready')\n")
    what = command(tmp_path, "quiet", PYTHONDEVMODE="1", PYTHONWARNINGS="always")
    assert run(launcher, what)[1] == "ready\n"


def test_interpreters_that_were_let_go_leave_no_zombies(tmp_path: Path, launcher: Launcher) -> None:
    counted(tmp_path, "who", "")
    for number in range(Launcher.WARM + 1):
        assert run(launcher, command(tmp_path, "who", VALUE=str(number)))[0].good
    oldest = int((tmp_path / "imports").read_text().split()[0])
    handle = os.pidfd_open(oldest)
    select.select([handle], [], [])  # it has ended
    os.close(handle)
    assert run(launcher, command(tmp_path, "who", VALUE="another"))[0].good
    assert not Path(f"/proc/{oldest}").exists()


def test_interrupted_start_leaves_no_task(
    tmp_path: Path, launcher: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C may come when the task has just been handed over."""
    send = process._Supervisor.send

    def interrupted(*words: Any) -> None:
        send(*words)
        raise KeyboardInterrupt

    monkeypatch.setattr(process._Supervisor, "send", interrupted)
    with pytest.raises(KeyboardInterrupt) as raised:
        launcher.start(Command(["/bin/sleep", "1000"], {}, str(tmp_path)))
    launcher.close()  # which waits for the task's end: it was told to end
    assert raised.tb is not None  # and so all that the interrupted code held is still there


def test_supervisor_that_was_out_of_turn_keeps_one_in_waiting(
    tmp_path: Path, launcher: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task may come and end between its look at what is ready and its look at what has ended."""
    slow = tmp_path / "slow.py"
    slow.write_text(
        "import os, pathlib, select, sys, time\n"
        f"sys.path.insert(0, {str(process._SUPERVISOR.parent)!r})\n"
        "import supervisor\n"
        "first = os.getpid()\n"
        "def over(pid):\n"
        "    stat = pathlib.Path(f'/proc/{pid}/stat').read_text()\n"
        "    return stat.rpartition(')')[2].split()[0] == 'Z'\n"
        "class Slow:\n"
        "    def select(self, reading, *words):\n"
        "        ready = select.select(reading, *words)\n"
        # Told of a keeper's end only: it looks on when the one in waiting has ended too, with the
        # next task or, at the very end, without one.
        "        if os.getpid() == first and reading[0] not in ready[0]:\n"
        "            while not all(map(over, supervisor._children(first))): time.sleep(0.001)\n"
        "        return ready\n"
        "supervisor.select = Slow()\n"
        "supervisor.main()\n"
    )
    monkeypatch.setattr(process, "_SUPERVISOR", slow)
    for number in range(8):
        assert run(launcher, Command(["/bin/sleep", "0.1"], {}, "/"))[0].good
        said = run(launcher, Command(["/bin/echo", str(number)], {}, "/"))
        assert (said[0].code, said[1]) == (0, f"{number}\n")


def test_nothing_is_left_of_a_stopped_task(tmp_path: Path, launcher: Launcher) -> None:
    """Its children are not either, with and without a program of their own."""
    (tmp_path / "family.py").write_text(
        "import os, signal, subprocess, time\n"
        "if __name__ == '__main__':\n"
        "    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "    own = subprocess.Popen(['sleep', '1000'], start_new_session=True).pid\n"
        "    forked = os.fork()\n"
        "    if forked: print(os.getpid(), own, forked, flush=True)\n"
        "    while True: time.sleep(1000)\n"
    )
    running = launcher.start(command(tmp_path, "family"))
    os.set_blocking(running.output, True)
    line = b""
    while not line.endswith(b"\n"):
        line += os.read(running.output, 100)
    handles = [os.pidfd_open(int(word)) for word in line.split()]
    assert len(handles) == 3
    running.stop(0.05)
    ended, _ = finish(running)
    assert (ended.code, ended.signal) == (None, signal.SIGKILL)
    for handle in handles:
        assert select.select([handle], [], [], 0)[0] == [handle]  # it has ended
        os.close(handle)


def test_memory_limit_holds(tmp_path: Path, launcher: Launcher) -> None:
    (tmp_path / "large.py").write_text("if __name__ == '__main__':\n    bytearray(1 << 30)\n")
    what = replace(command(tmp_path, "large"), memory=256 << 20)
    ended, text = run(launcher, what)
    assert ended.code == 1
    assert "MemoryError" in text
