"""Python environments made with the real uv, offline, from its cache."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from ctflow.errors import ConfigError, OutsideError
from ctflow.lib.requirements import normalise
from ctflow.lib.user_cache import cache_root
from ctflow.ports import Event, ignore
from ctflow.steps.cached_environment import marker_of
from ctflow.steps.environments import UvEnvironments
from ctflow.steps.uv_tool import find_python
from tests.work import counted

NUMPY = "numpy==2.2.6\n"
MAKER = (
    "import sys; from pathlib import Path; "
    "from ctflow.steps.environments import UvEnvironments; from ctflow.ports import ignore; "
    "print(UvEnvironments(Path(sys.argv[1])).ensure(sys.argv[2], ignore).path)"
)


@pytest.fixture
def cache(tmp_path: Path) -> UvEnvironments:
    return UvEnvironments(tmp_path / "cache")


def fake_uv(folder: Path, script: str) -> Mapping[str, str]:
    """Variables under which ``uv`` is a shell script, to see what is made of its answers."""
    folder.mkdir(exist_ok=True)
    file = folder / "uv"
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    return {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}


@pytest.fixture
def no_own_uv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uv", None)


def maker(root: Path, requirements: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", MAKER, str(root), requirements],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def version_of_numpy(python: Path) -> str:
    code = "import numpy; print(numpy.__version__)"
    return subprocess.check_output([python, "-c", code], text=True).strip()


def test_makes_once_and_finds_again(cache: UvEnvironments) -> None:
    events: list[Event] = []
    assert cache.find(NUMPY) is None
    made = cache.ensure(NUMPY, events.append)
    assert [event.kind for event in events] == ["note"]
    assert version_of_numpy(made.python) == "2.2.6"
    assert cache.ensure(NUMPY, events.append) == made == cache.find(NUMPY)
    assert len(events) == 1
    assert made.variables["PATH"] == f"{made.path}/bin{os.pathsep}{os.environ['PATH']}"


def test_comments_and_blank_lines_do_not_count(cache: UvEnvironments) -> None:
    made = cache.ensure("", ignore)
    assert cache.find("# a comment\n\n   \r\n") == made
    assert cache.key("a==1 # why\n\nb") == cache.key("a==1\nb\n")
    assert cache.key("a==1\nb") != cache.key("a==2\nb")


def test_normalise_joins_continuations_and_keeps_fragments() -> None:
    text = "a==1 \\\n  --hash=sha256:00\nb @ https://x.test/b.zip#sha256=1  # why\n"
    assert normalise(text) == ("a==1 --hash=sha256:00", "b @ https://x.test/b.zip#sha256=1")


def test_empty_requirements_have_their_own_environment(cache: UvEnvironments) -> None:
    made = cache.ensure("", ignore)
    code = "import importlib.util as u; print(u.find_spec('numpy'), u.find_spec('ctflow'))"
    assert subprocess.check_output([made.python, "-I", "-c", code], text=True) == "None None\n"


def test_find_is_quick(cache: UvEnvironments) -> None:
    cache.ensure("", ignore)
    with counted() as work:
        for _ in range(100):
            cache.find("")
    assert (work.opened, work.processes) == (0, 0)


def test_lost_interpreter_is_made_again(cache: UvEnvironments) -> None:
    made = cache.ensure("", ignore)
    made.python.unlink()
    made.python.symlink_to("/nonexistent/python")
    assert cache.find("") is None
    assert subprocess.run([cache.ensure("", ignore).python, "-c", ""]).returncode == 0


def test_half_made_environment_is_wiped(cache: UvEnvironments) -> None:
    made = cache.ensure("", ignore)
    marker_of(made.path).unlink()
    (made.path / "rubbish").write_text("x")
    assert cache.find("") is None
    cache.ensure("", ignore)
    assert not (made.path / "rubbish").exists()


def test_several_processes_make_it_once(cache: UvEnvironments, tmp_path: Path) -> None:
    running = [maker(tmp_path / "cache", NUMPY) for _ in range(4)]
    printed = {one.communicate(timeout=120)[0] for one in running}
    assert [one.returncode for one in running] == [0] * 4
    assert len(printed) == 1
    assert cache.find(NUMPY) is not None
    assert len(cache.entries()) == 1


def test_killed_at_any_point_the_next_one_succeeds(cache: UvEnvironments, tmp_path: Path) -> None:
    chance = random.Random(2)
    for _ in range(12):
        cache.release()
        cache.prune()
        running = maker(tmp_path / "cache", NUMPY)
        try:
            running.wait(chance.uniform(0.05, 0.8))
        except subprocess.TimeoutExpired:
            running.send_signal(signal.SIGKILL)
        running.communicate(timeout=60)
        found = cache.find(NUMPY)
        made = cache.ensure(NUMPY, ignore)
        assert found is None or found == made
        assert version_of_numpy(made.python) == "2.2.6"


def test_uv_that_outlives_a_killed_ctflow_keeps_the_lock(
    cache: UvEnvironments, tmp_path: Path, no_own_uv: None
) -> None:
    """Otherwise the next ctflow would wipe the folder that uv still writes to."""
    started, go_on = tmp_path / "started", tmp_path / "go-on"
    os.mkfifo(go_on)
    variables = fake_uv(tmp_path / "bin", f"touch {started}; read line < {go_on}; exit 1")
    code = "import sys; sys.modules['uv'] = None\n" + MAKER.replace("; ", "\n")
    running = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "cache"), ""],
        env={**os.environ, **variables}, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    while not started.exists():
        assert running.poll() is None
        threading.Event().wait(0.01)
    running.kill()
    running.wait()
    waiting = threading.Event()
    done = threading.Event()
    real = UvEnvironments(tmp_path / "cache")

    def next_one() -> None:
        real.ensure("", lambda event: waiting.set() if "waiting" in event.text else None)
        done.set()

    sys.modules.pop("uv")
    thread = threading.Thread(target=next_one)
    thread.start()
    assert waiting.wait(30)
    assert not done.is_set()
    go_on.write_text("\n")
    thread.join(60)
    assert done.is_set()


@pytest.mark.parametrize(
    "line",
    ["-r other.txt", "-rother.txt", "--requirement=o.txt", "-c c.txt", "-e .", "./local",
     "../local", "a @ file:///x", "a @ ./x"],
)  # fmt: skip
def test_other_files_are_refused(cache: UvEnvironments, line: str) -> None:
    with pytest.raises(ConfigError, match="names another file"):
        cache.ensure(f"numpy\n{line}\n", ignore)
    assert cache.entries() == []


def test_conflict_is_said_in_the_resolver_s_words(cache: UvEnvironments) -> None:
    with pytest.raises(ConfigError) as raised:
        cache.ensure("numpy==2.2.6\nnumpy==2.2.5\n", ignore)
    assert any("numpy==2.2.5" in line for line in raised.value.details)
    assert cache.entries() == []


def test_what_is_no_requirement(cache: UvEnvironments) -> None:
    with pytest.raises(ConfigError):
        cache.ensure("this is == no requirement\n", ignore)


def test_index_out_of_reach_says_what_to_do(cache: UvEnvironments) -> None:
    with pytest.raises(OutsideError, match="UV_OFFLINE"):
        cache.ensure("ctflow-has-no-such-requirement==1\n", ignore)


@pytest.mark.parametrize(
    ("script", "kind", "message"),
    [
        ("echo 'error: failed to write: No space left on device (os error 28)'; exit 2",
         OutsideError, "the disk is full"),
        ("echo 'error: error sending request for url (https://i.test)'; exit 2",
         OutsideError, "cannot be reached"),
        ("echo 'HTTP status client error (401 Unauthorized)'; exit 2", OutsideError, "refuses"),
        ("echo 'error: Failed to build x==1'; exit 1", ConfigError, "cannot be installed"),
        ("echo 'something odd'; exit 7", OutsideError, "exit code 7"),
        ("kill -9 $$", OutsideError, "killed by signal 9"),
    ],
)  # fmt: skip
def test_each_way_to_fail(
    tmp_path: Path, no_own_uv: None, script: str, kind: type[Exception], message: str
) -> None:
    cache = UvEnvironments(tmp_path / "cache", fake_uv(tmp_path / "bin", script))
    with pytest.raises(kind, match=message) as raised:
        cache.ensure("x\n", ignore)
    assert type(raised.value) is kind
    assert all(not entry.complete for entry in cache.entries())


def test_no_uv(tmp_path: Path, no_own_uv: None) -> None:
    cache = UvEnvironments(tmp_path / "cache", {"PATH": str(tmp_path)})
    with pytest.raises(OutsideError, match="pip install uv"):
        cache.ensure("", ignore)


def test_cache_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")
    with pytest.raises(OutsideError, match="CTFLOW_CACHE"):
        UvEnvironments(tmp_path / "cache").ensure("", ignore)


def test_uv_gets_the_user_s_settings_and_pip_s(tmp_path: Path, no_own_uv: None) -> None:
    seen = tmp_path / "seen"
    variables = {
        **fake_uv(tmp_path / "bin", f"env > {seen}; exit 1"),
        "UV_HTTP_TIMEOUT": "7",
        "PIP_INDEX_URL": "https://index.test/simple",
        "VIRTUAL_ENV": "/elsewhere",
        "PYTHONPATH": "/elsewhere",
    }
    with pytest.raises(OutsideError):
        UvEnvironments(tmp_path / "cache", variables).ensure("", ignore)
    lines = seen.read_text().splitlines()
    assert "UV_HTTP_TIMEOUT=7" in lines
    assert "UV_DEFAULT_INDEX=https://index.test/simple" in lines
    assert not any(line.startswith(("VIRTUAL_ENV=", "PYTHONPATH=")) for line in lines)
    variables["UV_INDEX_URL"] = "https://own.test/simple"
    with pytest.raises(OutsideError):
        UvEnvironments(tmp_path / "cache", variables).ensure("", ignore)
    assert "UV_DEFAULT_INDEX" not in seen.read_text()


def test_prune_by_last_use(cache: UvEnvironments) -> None:
    old, new = cache.ensure("", ignore), cache.ensure(NUMPY, ignore)
    month_ago = time.time() - 30 * 86400
    os.utime(marker_of(old.path), (month_ago, month_ago))
    cache.release()
    assert [Path(one.path) for one in cache.pruned(86400, dry_run=True)] == [old.path]
    assert old.path.exists()
    assert cache.prune(86400) > 0
    assert not old.path.exists()
    assert new.path.exists()
    cache.prune()
    assert cache.entries() == []


def test_use_is_marked(cache: UvEnvironments) -> None:
    made = cache.ensure("", ignore)
    month_ago = time.time() - 30 * 86400
    os.utime(marker_of(made.path), (month_ago, month_ago))
    cache.find("")
    assert cache.pruned(86400) == []


def test_prune_leaves_what_is_being_made(cache: UvEnvironments, tmp_path: Path) -> None:
    import fcntl

    made = cache.ensure("", ignore)
    cache.release()
    with (tmp_path / "cache" / "locks" / made.key).open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert cache.prune() == 0
        assert made.path.exists()
    assert cache.prune() > 0


def test_cache_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_root({}) == tmp_path / ".cache/ctflow"
    assert cache_root({"XDG_CACHE_HOME": "/x"}) == Path("/x/ctflow")
    assert cache_root({"XDG_CACHE_HOME": "relative"}) == tmp_path / ".cache/ctflow"
    assert cache_root({"XDG_CACHE_HOME": "/x", "CTFLOW_CACHE": "/y"}) == Path("/y")


def test_base_interpreter_not_the_virtual_environment(cache: UvEnvironments) -> None:
    made = cache.ensure("", ignore)
    home = (made.path / "pyvenv.cfg").read_text()
    assert str(Path(sys.prefix) / "bin") not in home


def test_prune_leaves_what_another_process_has_asked_for(
    cache: UvEnvironments, tmp_path: Path
) -> None:
    """Also one that it found, and did not make itself; until that process ends."""
    made = cache.ensure("", ignore)
    cache.release()
    code = (
        "import sys; from pathlib import Path; "
        "from ctflow.steps.environments import UvEnvironments; "
        "found = UvEnvironments(Path(sys.argv[1])); "
        "print(found.find(sys.argv[2]).path, flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "cache"), ""],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as other:  # fmt: skip
        assert other.stdout is not None
        assert other.stdout.readline() == f"{made.path}\n"
        assert cache.pruned() == cache.pruned(dry_run=True) == []
        assert made.python.exists()
        other.kill()
    assert [entry.key for entry in cache.pruned(dry_run=True)] == [made.key]
    assert [entry.key for entry in cache.pruned()] == [made.key]
    assert list((tmp_path / "cache" / "environments").iterdir()) == []
    assert list((tmp_path / "cache" / "locks").iterdir()) == []


def test_prune_leaves_what_a_model_server_runs_in(cache: UvEnvironments, tmp_path: Path) -> None:
    from ctflow.serving.local.pool import hold

    made = cache.ensure("", ignore)
    cache.release()
    held = hold(made.variables)
    assert held is not None
    assert cache.pruned() == []
    os.close(held)
    assert len(cache.pruned()) == 1
    assert hold({"VIRTUAL_ENV": str(tmp_path)}) is None
    assert hold({}) is None


def test_pruned_between_the_look_and_the_lock(
    cache: UvEnvironments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ctflow.lib import locks

    cache.ensure("", ignore)
    cache.release()
    real, name = locks.lock, "ctflow.steps.environments.lock"

    def lock(path: Path, **options: bool) -> int | None:
        monkeypatch.setattr(name, real)
        assert len(UvEnvironments(tmp_path / "cache").pruned()) == 1
        return real(path, **options)

    monkeypatch.setattr(name, lock)
    assert cache.find("") is None
    assert subprocess.run([cache.ensure("", ignore).python, "-c", ""]).returncode == 0


def test_another_python_where_there_is_one(cache: UvEnvironments) -> None:
    own = f"3.{sys.version_info[1]}"
    others = [version for version in ("3.13", "3.12", "3.11", "3.10") if version != own]
    found = next((version for version in others if find_python(version, os.environ)), None)
    notes: list[Event] = []
    made = cache.ensure("", notes.append, python=found or others[0])
    script = "import sys; print(f'{sys.version_info[0]}.{sys.version_info[1]}')"
    done = subprocess.run([made.python, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == (found or own)
    said = any("is not available" in note.text for note in notes)
    assert said is (found is None)
    if found:
        assert made.key != cache.ensure("", ignore).key
        assert cache.find("", found) == made
