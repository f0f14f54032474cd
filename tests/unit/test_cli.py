"""The table of verbs, the exit codes and the error boundary."""

from __future__ import annotations

import argparse
import errno
import importlib
import io
import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from ctflow import __version__
from ctflow.cli import VERBS, main
from ctflow.cli.common import clean, sign
from ctflow.errors import (
    ConfigError,
    CtflowError,
    GateHeld,
    Interrupted,
    OutsideError,
    RunFailed,
    StateError,
    UsageError,
)


@pytest.fixture(autouse=True)
def _signals() -> object:
    kept = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, kept)


def verb(monkeypatch: pytest.MonkeyPatch, outcome: object) -> None:
    """Put a verb ``probe`` into the table that returns, or raises, ``outcome``."""
    module = ModuleType("ctflow.cli.probe", "Probe.")

    def run(args: argparse.Namespace) -> object:
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    module.add_arguments = lambda parser: None  # type: ignore[attr-defined]
    module.run = run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ctflow.cli.probe", module)
    monkeypatch.setitem(VERBS, "probe", ("probe", "a probe"))


def test_usage_lists_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(re.search(rf"^  {name} +\S", shown, re.M) for name in VERBS)
    assert main([]) == 2


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"ctflow {__version__}\n"


@pytest.mark.parametrize(
    ("word", "mend"), [("promot", "did you mean `promote`?"), ("xyz", "see `ctflow --help`")]
)
def test_unknown_verb(word: str, mend: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([word]) == 2
    assert capsys.readouterr().err == f"ctflow: there is no verb {word!r}; {mend}\n"


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: ctflow {name} ")
    assert importlib.import_module(f"ctflow.cli.{VERBS[name][0]}").__doc__


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_refuses_unknown_flags(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--no-such-flag"]) == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        (0, 0), (None, 0), (3, 3),
        (UsageError("x"), 2), (ConfigError("x"), 2), (StateError("x"), 2), (GateHeld("x"), 3),
        (RunFailed("x"), 4), (OutsideError("x"), 5), (Interrupted("x"), 130),
        (KeyboardInterrupt(), 130), (OSError(errno.ENOSPC, "no space", "/full"), 5),
        (PermissionError(errno.EACCES, "denied", "/locked"), 5), (CtflowError("x"), 1),
    ],
)  # fmt: skip
def test_exit_codes(
    outcome: object, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    verb(monkeypatch, outcome)
    assert main(["probe"]) == code
    shown = capsys.readouterr().err
    assert "Traceback" not in shown
    if isinstance(outcome, BaseException):
        assert shown.startswith("ctflow: ")
        assert shown.count("\n") == 1


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    verb(monkeypatch, ZeroDivisionError("a bug"))
    with pytest.raises(ZeroDivisionError):
        main(["probe"])


def test_message_is_one_line_with_details_below(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error = RunFailed("step train\nfailed.", cause="out of memory", next="use less", details=("a",))
    verb(monkeypatch, error)
    main(["probe"])
    expected = "ctflow: step train failed (out of memory); use less\n  a\n"
    assert capsys.readouterr().err == expected


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError(errno.ENOSPC, "No space left", "/d/x"), "the disk is full (/d/x)"),
        (OSError(errno.EACCES, "Permission denied", "/d/x"), "no permission (/d/x)"),
        (OSError(errno.EIO, "Input/output error"), "Input/output error"),
    ],
)
def test_the_system_s_errors(
    error: OSError, text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    verb(monkeypatch, error)
    assert main(["probe"]) == 5
    shown = capsys.readouterr().err
    assert shown == f"ctflow: {text}; fix that and run the same command again\n"


def test_verbose_shows_the_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    verb(monkeypatch, ConfigError("wrong"))
    assert main(["probe", "-v"]) == 2
    assert "Traceback" in capsys.readouterr().err


def run_ctflow(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ctflow", *words], cwd=folder, capture_output=True, text=True
    )


def test_outside_a_project(tmp_path: Path) -> None:
    done = run_ctflow("config", folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("ctflow: no ctflow.yaml in ")
    assert done.stderr.count("\n") == 1


def test_a_closed_pipe_is_no_error(tmp_path: Path) -> None:
    command = f"{sys.executable} -m ctflow schema | head -c 1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout == "{"
    assert done.stderr == ""


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys; from ctflow.cli import main; main(['--help']); "
        "heavy = {'pydantic', 'numpy', 'git', 'yaml', 'requests', 'cookiecutter', 'kfp', "
        "'obstore'}; "
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_config_shows_values_and_origins(tmp_path: Path) -> None:
    (tmp_path / "ctflow.yaml").write_text("project: digits\n")
    done = run_ctflow("config", "--json", "--set", "branch=main", folder=tmp_path)
    rows = json.loads(done.stdout)
    assert rows["project"] == {"value": "digits", "from": "ctflow.yaml:1"}
    assert rows["branch"] == {"value": "main", "from": "--set branch"}
    assert rows["runner"] == {"value": "local", "from": "default"}
    table = run_ctflow("config", folder=tmp_path).stdout.splitlines()
    assert table[0].split() == ["project", '"digits"', "ctflow.yaml:1"]


def test_schema_is_json(tmp_path: Path) -> None:
    assert json.loads(run_ctflow("schema", folder=tmp_path).stdout)["title"] == "ctflow.yaml"


def test_cache_lists_and_prunes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from ctflow.ports import ignore
    from ctflow.steps.environments import UvEnvironments

    monkeypatch.setenv("CTFLOW_CACHE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert main(["cache", "list"]) == 0
    assert capsys.readouterr().out == "0 environments, 0 B\n"
    made = UvEnvironments(tmp_path).ensure("", ignore)
    assert main(["cache", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["environments"][0]["key"] == made.key
    assert main(["cache", "prune", "--older", "30d"]) == 0
    assert main(["cache", "prune", "--dry-run"]) == 0
    assert made.path.exists()
    assert main(["cache", "prune"]) == 0
    assert not made.path.exists()
    assert capsys.readouterr().out.splitlines()[-1].startswith("removed 1 environment, ")


@pytest.mark.parametrize("age", ["", "d", "30", "-1d", "30x", "nand", "infd"])
def test_ages_that_are_none(age: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "prune", f"--older={age}", "--dry-run"]) == 2
    assert "is not an age" in capsys.readouterr().err


def test_clean() -> None:
    assert clean("a\x1b[31mb\tc\n\u202e") == "a\\x1b[31mb\tc\\x0a\\x202e"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_interrupted_while_python_executes_text(tmp_path: Path, number: signal.Signals) -> None:
    """As when a dataclass is being made: `python -m` then dies of SIGINT, whatever was caught."""
    (tmp_path / "program.py").write_text(
        "import os, sys\n"
        "from ctflow import cli\n"
        "from ctflow.cli import schema\n"
        f"schema.run = lambda args: exec('os.kill(os.getpid(), {int(number)})', {{'os': os}})\n"
        "sys.exit(cli.main(['schema']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "program"], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (
        130, "ctflow: interrupted; run the same command again to continue\n",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["runs", "shw"], "did you mean 'show'?"),
        (["promotions", "aprove", "staging"], "did you mean 'approve'?"),
        (["trigger", "instal"], "did you mean 'install'?"),
        (["ct", "--dryrun"], "did you mean '--dry-run'?"),
        (["compltion"], "did you mean `completion`?"),
    ],
)
def test_misspelt_words_are_answered_with_the_nearest(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["--set", "gate=[{metric: rmse, min: 3, max: 2}]"],
        ["--set", "gate=3"],
        ["--set", "environments.staging.port=1"],
    ],
)
def test_a_wrong_flag_is_named_and_no_line_of_the_file(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "ctflow.yaml").write_text(
        "project: tiny\ngate:\n  - {metric: accuracy, min: 0.5}\nenvironments: {staging: {}}\n"
    )
    assert main(["config", "-C", str(tmp_path), *words]) == 2
    said = capsys.readouterr().err
    assert f"ctflow: --set {words[1].partition('=')[0]}: " in said
    assert "ctflow.yaml:" not in said


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_every_verb(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    for verb in VERBS:
        assert verb in script
    assert "approve" in script
    assert "exit-code" in script


def test_completion_in_a_real_bash(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["completion", "bash"])
    (tmp_path / "script").write_text(capsys.readouterr().out)
    asked = {
        "ctflow depl": "deploy", "ctflow runs lo": "logs", "ctflow ct --exit": "--exit-code",
        "ctflow promotions reject --rea": "--reason", "ctflow completion fi": "fish",
    }  # fmt: skip
    for line, wanted in asked.items():
        words = line.split()
        script = (
            f"source {tmp_path}/script; COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _ctflow;"
            ' echo "${COMPREPLY[@]}"'
        )
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
        assert done.stdout.strip() == wanted, line


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_colour_where_there_is_a_terminal_that_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert sign("✓", Terminal()) == "\x1b[32m✓\x1b[0m"
    assert sign("✗", Terminal()) == "\x1b[31m✗\x1b[0m"
    assert sign("✓", io.StringIO()) == "✓"
    monkeypatch.setenv("TERM", "dumb")
    assert sign("✓", Terminal()) == "✓"
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    assert sign("✓", Terminal()) == "✓"
