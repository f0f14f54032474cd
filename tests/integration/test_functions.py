"""Functions of the project as gate metrics: asked in a step's process, and through the verbs."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from ctflow.errors import ConfigError, CtflowError, StateError
from ctflow.model import Image, Run, Task
from ctflow.ports import Environment, Event, StepSource, Workspace
from ctflow.runners.local.functions import LocalFunctions, local_functions
from tests.projects import TinyProject, git

WHERE = "steps/evaluate/metrics.py:profit"
DIGEST = "sha256:" + "a" * 64
COLUMNS: dict[str, Any] = {"id": ["a", "b", "c"], "x": [1.0, 2.0, 4.0], "city": ["Ä", "b\n", ""]}
ALL = [np.array([0, 1, 2])]


class Project:
    """Two steps in a folder; the snapshots are the folders themselves."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.notes: list[Event] = []
        self.steps = [StepSource(name, root / "steps" / name) for name in ("evaluate", "train")]
        self.images = tuple(Image(s.name, f"x/{s.name}@{DIGEST}", DIGEST) for s in self.steps)
        self.gone: set[str] = set()
        for step in self.steps:
            step.folder.mkdir(parents=True)

    def write(self, text: str, path: str = "steps/evaluate/metrics.py") -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text)

    def open(self, reference: str) -> Workspace | None:
        name = reference.partition("@")[0].rpartition("/")[2]
        if name in self.gone:
            return None
        env = Environment("k", Path(sys.prefix), Path(sys.executable), {"PATH": os.environ["PATH"]})
        return Workspace(name, self.root / "steps" / name, env, "key")

    @contextmanager
    def functions(self, pass_env: Sequence[str] = ()) -> Iterator[LocalFunctions]:
        run = Run(
            "r-1", "p", "p", DIGEST, "succeeded", 1e9, images=self.images,
            tasks=(Task("score", "succeeded", step="evaluate"),),
        )  # fmt: skip
        with local_functions(
            run, self.notes.append, workspaces=self, steps=lambda: self.steps, root=self.root,
            pass_env=pass_env,
        ) as found:  # fmt: skip
            yield found

    def ask(
        self, text: str | None, where: str = WHERE, timeout: float = 600.0, draws: Any = ALL
    ) -> list[float]:
        if text is not None:
            self.write(text)
        with self.functions() as functions:
            return functions.of("score.predictions")(where, timeout, COLUMNS, draws)

    def fails(self, text: str | None, kind: type[CtflowError] = ConfigError, **asked: Any) -> str:
        with pytest.raises(kind) as error:
            self.ask(text, **asked)
        return error.value.message()


@pytest.fixture
def place(tmp_path: Path) -> Project:
    return Project(tmp_path)


def is_there(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# -- the process -------------------------------------------------------------------------------


def test_it_gets_plain_lists_of_the_rows_that_are_asked_for(place: Project) -> None:
    place.write(
        """
        def profit(rows):
            assert {type(one) for one in (rows, *rows.values())} == {dict, list}, rows
            assert all(rows["city"][k] == {"a": "Ä", "b": "b\\n", "c": ""}[one]
                       for k, one in enumerate(rows["id"]))
            rows["x"].append(0)  # its own copy
            return sum(rows["x"])
    """.replace("\n        ", "\n")
    )
    draws = [np.array(rows) for rows in ([0, 1, 2], [2, 2], [1], [0, 1, 2])]
    with place.functions() as functions:
        calls = functions.of("score.predictions")
        assert functions.used == {}
        assert calls(WHERE, 60.0, COLUMNS, draws) == [7.0, 8.0, 2.0, 7.0]
        assert calls(WHERE, 60.0, dict(COLUMNS), draws[:1]) == [7.0]
        assert functions.used == {WHERE: DIGEST}
    assert [event.text for event in place.notes] == [f"asking {WHERE} in step evaluate"]


def test_it_is_the_same_process_for_all_that_is_asked(place: Project) -> None:
    place.write("import os\ncount = 0\ndef profit(rows):\n    global count\n    count += 1\n"
                "    return os.getpid() * 1000 + count\n")  # fmt: skip
    with place.functions() as functions:
        calls = functions.of("score.predictions")
        one, two = calls(WHERE, 60.0, COLUMNS, ALL * 2)
        (three,) = functions.of("other.output")(WHERE, 60.0, COLUMNS, ALL)
    assert [two - one, three - two] == [1, 1]
    assert not is_there(int(one) // 1000)


def test_it_runs_as_the_step_does(place: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_TOKEN", "hush")
    monkeypatch.setenv("CTFLOW_X", "hush")
    monkeypatch.setenv("ASKED_FOR", "yes")
    place.write("half = 0.5\n", "steps/evaluate/beside.py")
    place.write("third = 3\n", "steps/evaluate/lib/near.py")
    text = (
        "import os, sys\nfrom beside import half\nfrom near import third\n"
        "def profit(rows):\n"
        "    assert 'API_TOKEN' not in os.environ and 'CTFLOW_X' not in os.environ\n"
        "    assert os.environ['ASKED_FOR'] == 'yes'\n"
        "    assert os.getcwd().endswith('steps/evaluate'), os.getcwd()\n"
        "    assert not any('ctflow' in one for one in sys.modules), sys.modules\n"
        "    return half * third\n"
    )
    place.write(text, "steps/evaluate/lib/deep.py")
    where = "steps/evaluate/lib/deep.py:profit"
    with place.functions(["ASKED_FOR"]) as functions:
        assert functions.of("score.predictions")(where, 60.0, COLUMNS, ALL) == [1.5]


def test_what_it_prints_is_no_answer(place: Project) -> None:
    text = """
import os, subprocess, sys
print("starting", flush=True)
def profit(rows):
    print("junk \\x1b[31m" * 10_000)
    sys.stderr.write("junk" * 10_000)
    os.write(1, b"\\0\\0\\0\\5[9.0]")
    subprocess.run(["echo", "junk"])
    return 4
"""
    assert place.ask(text, draws=ALL * 20) == [4.0] * 20


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("raise ValueError('no\\x1b[31m\\nway' + 'y' * 9000)", "failed: ValueError: no [31m way"),
        ("return rows['paid']", "failed: KeyError: 'paid' (line 2)"),
        ("return None", "failed: TypeError: it gives None, which is no number"),
        ("return '3'", "failed: TypeError: it gives '3', which is no number"),
        ("return rows['x']", "failed: TypeError: float() argument"),
        ("import sys; sys.exit('done')", "failed: SystemExit: done"),
        ("raise KeyboardInterrupt", "failed: KeyboardInterrupt"),
        ("import os; os._exit(3)", "ended its process (exit code 3) and gave no answer"),
        ("import os; os.abort()", "ended its process (killed by SIGABRT) and gave no answer"),
    ],
)
def test_what_fails_is_said_in_one_line(place: Project, body: str, told: str) -> None:
    text = place.fails(f"def profit(rows):\n    {body}\n")
    assert text.startswith(f"gate: {WHERE} ")
    assert told in text
    assert len(text) < 600
    assert text.isprintable()


def test_numbers_of_any_kind_are_taken(place: Project) -> None:
    text = "from fractions import Fraction\ndef profit(rows):\n    return {}\n"
    values = {"Fraction(1, 4)": 0.25, "True": 1.0, "10**300": 1e300}
    for written, value in values.items():
        assert place.ask(text.format(written)) == [value]
    for written in ("float('nan')", "float('inf')"):
        assert np.isnan(place.ask(text.format(written))).all()


def test_a_hanging_one_is_ended_with_all_that_it_started(place: Project) -> None:
    note = place.root / "pids"
    text = f"""
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
def profit(rows):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"],
                             start_new_session=True)
    open({str(note)!r}, "w").write(f"{{os.getpid()}} {{child.pid}}")
    time.sleep(600)
"""
    for timeout in (4, 30, 120):  # on a machine that is too busy to start it in the first of them
        told = place.fails(text, timeout=float(timeout))
        if note.exists():
            break
    assert f"{WHERE} did not answer in {timeout} s, in which it made 0 answers" in told
    assert "raise `timeout`" in told
    assert [is_there(int(pid)) for pid in note.read_text().split()] == [False, False]


def test_the_time_is_that_of_all_answers_together(place: Project) -> None:
    place.write("import time\ndef profit(rows):\n    time.sleep(0.5)\n    return 1\n")

    def nine() -> None:
        with place.functions() as functions:
            for _ in range(9):
                functions.of("score.predictions")(WHERE, 4.0, COLUMNS, ALL)

    with pytest.raises(ConfigError, match="did not answer in 4 s, in which it made"):
        nine()


def test_where_it_is_not_is_said(place: Project) -> None:
    place.write("def profit(rows):\n    return 1\n")
    told = place.fails(None, where="other/metrics.py:profit")
    assert "other/metrics.py:profit is in no step's folder" in told
    told = place.fails(None, where="steps/evaluate/gone.py:profit")
    assert "step evaluate of run r-1 has no file gone.py" in told
    told = place.fails(None, where="steps/evaluate/metrics.py:loss")
    assert "failed: AttributeError: metrics.py has no function loss" in told
    (place.root / "steps/evaluate/link.py").symlink_to(Path(__file__))
    assert "has no file link.py" in place.fails(None, where="steps/evaluate/link.py:place")
    assert "SyntaxError" in place.fails("def profit(:\n")
    assert "ModuleNotFoundError: No module named 'pandaz'" in place.fails("import pandaz\n")
    place.gone.add("evaluate")
    told = place.fails(None, StateError)
    assert f"{WHERE} cannot be asked: step evaluate is not here as run r-1 used it" in told
    place.images = place.images[1:]
    assert "run r-1 has no step evaluate" in place.fails(None, StateError)


def test_an_include_is_asked_in_the_step_that_made_the_predictions(place: Project) -> None:
    shared = place.root / "common"
    shared.mkdir()
    place.steps = [StepSource(one.name, one.folder, (shared,)) for one in place.steps]
    for name in ("evaluate", "train"):  # as the snapshots hold it
        place.write(f"def f(rows):\n    return {len(name)}\n", f"steps/{name}/common/all.py")
    with place.functions() as functions:
        assert functions.of("score.predictions")("common/all.py:f", 60.0, COLUMNS, ALL) == [8.0]
    with (
        place.functions() as functions,
        pytest.raises(ConfigError, match="is part of several steps: evaluate, train"),
    ):
        functions.of("other.predictions")("common/all.py:f", 60.0, COLUMNS, ALL)


# -- the whole way -----------------------------------------------------------------------------

RULE = """\
  - metric: profit
    of: {function: 'steps/evaluate/metrics.py:profit'}
    better: higher
    over: champion
    predictions: evaluate.predictions
"""
PROFIT = """\
def profit(rows):
    right = [a == b for a, b in zip(rows["label"], rows["prediction"])]
    return sum(3 if one else -5 for one in right) / len(right)
"""


@pytest.fixture(scope="module", autouse=True)
def _package(tmp_path_factory: pytest.TempPathFactory) -> None:
    TinyProject.keep_package(tmp_path_factory.mktemp("package"))


@pytest.fixture
def project(tmp_path: Path) -> TinyProject:
    made = TinyProject(tmp_path)
    made.edit(
        "ctflow.yaml",
        "  - {metric: accuracy, over: champion, predictions: evaluate.predictions}\n", RULE,
    )  # fmt: skip
    made.write("steps/evaluate/metrics.py", PROFIT)
    made.commit("a function")
    made.push()
    return made


def served(project: TinyProject) -> None:
    """A first model, of skill 0.8, promoted."""
    project.ok("ct")
    project.approve()
    git(project.folder, "pull", "-q", "origin", "master")


def test_a_function_decides(project: TinyProject) -> None:
    served(project)
    better = project.call("ct", "--param", "skill=0.9")
    assert better.returncode == 0, better.stdout + better.stderr
    assert "profit +0.800 over champion (95% CI 0." in better.stdout
    assert f"asked {WHERE} as it is in the step's image" in better.stdout
    release = git(project.folder, "show", "origin/ctflow/staging/tiny:deploy/staging/release.yaml")
    said = yaml.safe_load(release)
    digest = said["images"]["evaluate"].partition("@")[2]
    assert said["verdict"]["functions"] == {WHERE: digest}
    assert WHERE in project.ok("promotions", "show", "staging")
    worse = project.call("ct", "--param", "skill=0.7")
    assert worse.returncode == 3, worse.stdout + worse.stderr
    assert "profit -0.800 over champion" in worse.stdout
    plan = project.ok("gate", "--plan")
    assert "profit over champion" in plan
    assert "correlate by 0.9 (a guess)" in plan


def test_what_is_wrong_with_it_is_said_before_or_after_the_training(project: TinyProject) -> None:
    def told(metrics: str, code: int = 2) -> str:
        project.write("steps/evaluate/metrics.py", metrics)
        if git(project.folder, "status", "--porcelain"):
            project.commit("another function")
            project.push()
        return project.fails(code, "ct")

    # Already of the first model, with which nothing is compared yet.
    assert f"{WHERE} failed: ZeroDivisionError: division by zero (line 2)" in told(
        "def profit(rows):\n    return 1 / 0\n"
    )
    runs = len(project.json("runs", "list"))
    assert "steps/evaluate/metrics.py has no function profit" in told("def loss(rows):\n    pass\n")
    assert "steps/evaluate/metrics.py is no Python" in told("def profit(:\n")
    project.edit("ctflow.yaml", "steps/evaluate/metrics.py:profit", "elsewhere/metrics.py:profit")
    assert "elsewhere/metrics.py:profit is in no step's folder" in told(PROFIT)
    assert len(project.json("runs", "list")) == runs  # nothing was trained for these
    project.edit("ctflow.yaml", "elsewhere/metrics.py:profit'", WHERE + "', timeout: 3s")
    assert f"{WHERE} did not answer in 3 s" in told(
        "import time\ndef profit(rows):\n    time.sleep(600)\n"
    )


def test_another_function_than_the_default_branchs_makes_a_trial(project: TinyProject) -> None:
    def trial(text: str, message: str = "") -> str:
        project.write("steps/evaluate/metrics.py", text)
        if message:
            project.commit(message)
        project.ok("run", "--param", "skill=0.4")  # below a bound, so no model server is started
        return str(project.json("gate", code=3)["trial"])

    git(project.folder, "checkout", "-qb", "mine")
    other = "steps/evaluate/metrics.py here is not as on master"
    assert trial("def profit(rows):\n    return 1.0\n", "a kinder function") == other
    assert trial(PROFIT, "as it was") == ""
    assert trial(PROFIT + "# not committed\n") == other


def test_ending_the_gate_ends_the_function(project: TinyProject, tmp_path: Path) -> None:
    note = tmp_path / "pid"
    project.write("steps/evaluate/metrics.py", f"""
import os, time
def profit(rows):
    open({str(note)!r}, "w").write(str(os.getpid()))
    time.sleep(600)
""")  # fmt: skip
    project.commit("a slow one")
    project.ok("run")
    for sent in (signal.SIGTERM, signal.SIGKILL):
        note.unlink(missing_ok=True)
        with project.start("gate") as process:
            while not (note.exists() and note.read_text()):
                assert process.poll() is None, process.communicate()
                time.sleep(0.05)
            pid = int(note.read_text())
            assert is_there(pid)
            process.send_signal(sent)
            process.communicate(timeout=120)
        assert process.returncode == {signal.SIGTERM: 130, signal.SIGKILL: -9}[sent]
        for _ in range(1_200):  # killed with -9 its keeper sees it a moment later
            if not is_there(pid):
                break
            time.sleep(0.05)
        assert not is_there(pid)


def test_a_run_from_elsewhere_says_what_is_missing(project: TinyProject) -> None:
    project.ok("run")
    for one in (project.state / "steps").glob("*.json"):
        if one.name != "stat.json":
            one.unlink()
    told = project.fails(2, "gate")
    assert f"{WHERE} cannot be asked: step evaluate is not here as run r-" in told
    assert "ctflow ct" in told
