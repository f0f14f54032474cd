"""`ctflow new`: answers, messages, and that a project comes to be whole or not at all."""

from __future__ import annotations

import builtins
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from ctflow.cli import main
from ctflow.errors import OutsideError, StateError, UsageError
from ctflow.scaffold import cookiecutter as adapter
from ctflow.stages import new

BAD = [
    ("project", "", "KServe"),
    ("project", "Digits", "write project=digits"),
    ("project", "my_model", "write project=my-model"),
    ("project", "9lives", "write project=lives"),
    ("project", "ends-", "write project=ends"),
    ("project", "a" * 41, "at most 40"),
    ("project", "été", "KServe"),
    ("project", "a\n", "KServe"),
    ("description", "", "one line"),
    ("description", "two\nlines", "one line"),
    ("description", "\x1b[31mred", "one line"),
    ("description", "x" * 201, "200 characters"),
    ("repository", "acme", "owner/name"),
    ("repository", "https://github.com/acme/digits", "owner/name"),
    ("repository", "acme/..", "owner/name"),
    ("repository", "-acme/digits", "owner/name"),
    ("registry", "GHCR.io/Acme", "lower case"),
    ("registry", "https://ghcr.io/acme", "host/path"),
    ("registry", "ghcr.io/acme/", "host/path"),
    ("branch", "", "branch name"),
    ("branch", "-x", "branch name"),
    ("branch", "a b", "branch name"),
    ("branch", "a..b", "branch name"),
    ("branch", "a.lock", "branch name"),
    ("branch", "a/", "branch name"),
    ("branch", "a/.b", "branch name"),
    ("branch", "HEAD", "branch name"),
    ("branch", "ctflow/staging", "branch name"),
    ("branch", "$(touch x)", "branch name"),
]
GOOD = [
    ("project", "a"),
    ("project", "a" * 40),
    ("project", "on"),
    ("project", "class"),
    ("description", "Say \"7\", 'é' or \\ \u2028: {anything} #1"),
    ("repository", ""),
    ("repository", "Acme-Labs/digits.v2_x"),
    ("registry", "localhost:5000/digits"),
    ("registry", "ghcr.io/acme/digits"),
    ("registry", ""),
    ("branch", "master"),
    ("branch", "release/2.0"),
]


def hook(answers: Mapping[str, str]) -> str | None:
    """What the template's own hook says to these answers; None where it lets them through."""
    from cookiecutter.environment import StrictEnvironment

    source = (adapter.template_folder() / "hooks" / "pre_gen_project.py").read_text("utf-8")
    environment = StrictEnvironment(context={"cookiecutter": {}})
    code = environment.from_string(source).render(cookiecutter=dict(answers))
    try:
        exec(compile(code, "hook", "exec"), {})  # noqa: S102 (our own file)
    except SystemExit as stop:
        return str(stop.code)
    return None


@pytest.mark.parametrize(("key", "answer", "told"), BAD)
def test_a_bad_answer_is_refused_in_one_line_by_both(key: str, answer: str, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        new.complete({key: answer})
    assert told in caught.value.message()
    assert "\n" not in caught.value.message()
    by_hook = hook({**new.complete({}), key: answer})
    assert by_hook is not None
    assert key in by_hook
    assert "\n" not in by_hook


@pytest.mark.parametrize(("key", "answer"), GOOD)
def test_a_good_answer_passes_both(key: str, answer: str) -> None:
    answers = new.complete({key: answer})
    assert answers[key] == answer
    assert hook(answers) is None


@pytest.mark.parametrize("braces", ["{{ cookiecutter }}", "{% raw %}", "{# x #}"])
def test_an_answer_cannot_be_template_code(braces: str) -> None:
    with pytest.raises(UsageError, match="braces"):
        new.check("description", braces)


@pytest.mark.parametrize(
    ("name", "near"),
    [("My Model!", "my-model"), ("Été", "t"), ("123", ""), ("a" * 39 + "--b", "a" * 39)],
)
def test_suggestions_are_valid_names(name: str, near: str) -> None:
    assert new.suggest(name) == near
    if near:
        new.check("project", near)


def test_the_registry_follows_from_the_repository() -> None:
    assert new.complete({"repository": "Acme/Digits"})["registry"] == "ghcr.io/acme/digits"
    assert new.complete({})["registry"] == ""
    assert new.complete({"repository": "a/b", "registry": ""})["registry"] == ""


def test_a_template_says_what_it_is_about() -> None:
    own = {"project": "churn", "description": "Foresee {{ x }}", "registry": "", "branch": "main"}
    answers = new.complete({"repository": "a/b"}, own)
    assert (answers["project"], answers["branch"]) == ("churn", "main")
    assert answers["description"] == new.complete({})["description"]  # theirs is not valid
    assert answers["registry"] == "ghcr.io/a/b"


def test_unknown_and_repeated_keys_are_refused() -> None:
    with pytest.raises(UsageError, match="did you mean 'project'"):
        new.parse(["projet=x"])
    with pytest.raises(UsageError, match="known keys: project, description"):
        new.parse(["zzzz=x"])
    with pytest.raises(UsageError, match="given twice"):
        new.parse(["branch=a", "branch=b"])
    assert new.parse(["description=a=b"]) == {"description": "a=b"}


class FakeScaffold:
    """Writes one file; fails where it is told to."""

    def __init__(self, fail: str = "") -> None:
        self.fail = fail

    def defaults(self) -> dict[str, str]:
        return {}

    def require_identity(self) -> None:
        if self.fail == "identity":
            raise StateError("no identity")

    def render(self, answers: Mapping[str, str], folder: Path) -> Path:
        project = folder / answers["project"]
        project.mkdir()
        (project / "one").write_text("1")
        if self.fail == "render":
            raise KeyboardInterrupt
        return project

    def first_commit(self, folder: Path, branch: str, message: str) -> str:
        if self.fail == "commit":
            raise OutsideError("git is broken")
        if self.fail == "race":
            (folder.parents[1] / "digits").mkdir()
        return "c" * 40


@pytest.mark.parametrize("fail", ["identity", "render", "commit"])
def test_what_fails_leaves_nothing(tmp_path: Path, fail: str) -> None:
    with pytest.raises((StateError, OutsideError, KeyboardInterrupt)):
        new.create(tmp_path / "digits", new.complete({}), FakeScaffold(fail))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_appears_meanwhile_is_not_touched(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="already exists"):
        new.create(tmp_path / "digits", new.complete({}), FakeScaffold("race"))
    assert [path.name for path in tmp_path.iterdir()] == ["digits"]
    assert list((tmp_path / "digits").iterdir()) == []


@pytest.mark.parametrize("kind", ["file", "folder", "dangling link"])
def test_nothing_is_overwritten(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "digits"
    if kind == "file":
        target.write_text("mine")
    elif kind == "folder":
        target.mkdir()
    else:
        target.symlink_to(tmp_path / "nowhere")
    with pytest.raises(StateError, match="ctflow overwrites nothing"):
        new.create(target, new.complete({}), FakeScaffold())
    assert [path.name for path in tmp_path.iterdir()] == ["digits"]


def test_a_missing_parent_is_named(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="there is no folder"):
        new.create(tmp_path / "no" / "digits", new.complete({}), FakeScaffold())


def test_leftovers_of_a_killed_call_are_removed_and_others_stay(tmp_path: Path) -> None:
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"],
                          capture_output=True, text=True, check=True).stdout.strip()  # fmt: skip
    (tmp_path / f".digits.new-{gone}-abc").mkdir()
    running = tmp_path / ".digits.new-1-abc"
    running.mkdir()
    (tmp_path / ".digits.new-mine").mkdir()
    made = new.create(tmp_path / "digits", new.complete({}), FakeScaffold())
    assert made.folder == tmp_path / "digits"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".digits.new-1-abc", ".digits.new-mine", "digits",
    ]  # fmt: skip


# -- the command -------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working folder, a home of its own, and an identity for git."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / ".config"))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "Ada")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "ada@example.com")
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    yield work
    assert list(home.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--no-input", "project=My Model"], "write project=my-model"),
        (["--no-input", "projct=x"], "did you mean 'project'"),
        (["one", "two", "--no-input"], "cannot both be the folder"),
        (["--no-input", "branch=a", "--branch", "b"], "branch is given twice"),
        (["--branch", "a b", "--no-input"], "branch 'a b' is not valid"),
        (["Not_Valid", "--no-input"], "write project=not-valid"),
        (["no/where", "--no-input"], "there is no folder"),
    ],
)
def test_bad_words_are_one_line_and_exit_code_2(
    place: Path, capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    assert main(["new", *words]) == 2
    errors = capsys.readouterr().err
    assert told in errors
    assert errors.count("\n") == 1
    assert list(place.iterdir()) == []


def test_without_a_terminal_it_says_how_to_answer(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    assert main(["new"]) == 2
    assert "--no-input" in capsys.readouterr().err


def test_without_an_identity_nothing_is_written(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.delenv(f"GIT_{who}_NAME")
        monkeypatch.delenv(f"GIT_{who}_EMAIL")
    assert main(["new", "--no-input"]) == 2
    errors = capsys.readouterr().err
    assert "git config --global user.name" in errors
    assert "git config --global user.email" in errors
    assert list(place.iterdir()) == []


def test_it_asks_again_after_a_bad_answer(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter(["Bad Name", "letters", "", "acme/letters", "", "main", "cluster", "kubeflow"])
    asked: list[str] = []

    def answer(prompt: str = "") -> str:
        asked.append(prompt)
        return next(answers)

    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(builtins, "input", answer)
    assert main(["new", "My_Folder"]) == 0
    assert "write project=bad-name" in capsys.readouterr().err
    assert asked[0] == "Project name [my-folder]: "
    assert "[ghcr.io/acme/letters]" in asked[4]
    text = (place / "My_Folder" / ".ctflow-template.yaml").read_text()
    assert 'project: "letters"' in text
    assert 'registry: "ghcr.io/acme/letters"' in text
    assert 'branch: "main"' in text
    assert asked[-1] == asked[-2] == "Where pipelines run: local, or kubeflow [local]: "
    assert "runner: kubeflow" in (place / "My_Folder" / "ctflow.yaml").read_text()


def test_a_cluster_needs_a_registry(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new", "--no-input", "runner=kubeflow"]) == 2
    assert "give registry=host/path" in capsys.readouterr().err
    assert list(place.iterdir()) == []


def test_a_given_answer_is_not_asked_and_the_end_of_input_is_no_crash(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def answer(prompt: str = "") -> str:
        asked.append(prompt)
        raise EOFError

    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(builtins, "input", answer)
    assert main(["new", "project=letters"]) == 2
    assert [prompt.split(" [")[0] for prompt in asked] == ["What it does, in one line"]
    assert "the input ended" in capsys.readouterr().err
    assert list(place.iterdir()) == []


def test_a_failing_git_is_an_outside_error_and_leaves_nothing(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CONFIG_COUNT", "2")
    for index, (key, value) in enumerate([("commit.gpgsign", "true"), ("gpg.program", "false")]):
        monkeypatch.setenv(f"GIT_CONFIG_KEY_{index}", key)
        monkeypatch.setenv(f"GIT_CONFIG_VALUE_{index}", value)
    assert main(["new", "--no-input"]) == 5
    errors = capsys.readouterr().err
    assert "first commit" in errors
    assert errors.count("\n") == 1
    assert list(place.iterdir()) == []


def test_a_broken_template_is_an_outside_error(tmp_path: Path) -> None:
    template = tmp_path / "template"
    (template / "{{cookiecutter.project}}").mkdir(parents=True)
    (template / "{{cookiecutter.project}}" / "a").write_text("{{ cookiecutter.missing }}")
    (template / "cookiecutter.json").write_text(json.dumps({"project": "x"}))
    with pytest.raises(OutsideError, match="does not render"):
        adapter.TemplateScaffold(template).render({"project": "x"}, tmp_path)


def test_a_missing_template_is_an_outside_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package: Any = type("Package", (), {"__file__": str(tmp_path / "ctflow" / "__init__.py")})
    monkeypatch.setattr(adapter, "ctflow", package)
    with pytest.raises(OutsideError, match="template is missing"):
        adapter.template_folder()
    wheel = tmp_path / "ctflow" / "templates" / "project"
    wheel.mkdir(parents=True)
    (wheel / "cookiecutter.json").write_text("{}")
    assert adapter.template_folder() == wheel
