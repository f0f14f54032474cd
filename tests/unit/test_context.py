"""What goes into a step's image, and its digest."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctflow.config.project import StepConfig
from ctflow.errors import ConfigError
from ctflow.ports import StepSource
from ctflow.scm.git_folders import files_of_a_clone
from ctflow.steps.context import (
    CloneFiles,
    ContextFile,
    content_digest,
    context_files,
    discover_steps,
)
from ctflow.steps.ignore import IgnoreRules


def sha(one: ContextFile) -> str:
    return hashlib.sha256(Path(one.source).read_bytes()).hexdigest()


def write(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def step(root: Path, name: str = "train", **files: str) -> Path:
    return write(root / "steps" / name, **({"Dockerfile": "FROM base\n"} | files))


def paths(source: StepSource) -> list[str]:
    return [one.path for one in context_files(source)]


def digest(source: StepSource, base: str = "python:3.11-slim") -> str:
    return content_digest(context_files(source), base, sha)


# -- .dockerignore -----------------------------------------------------------------------------

IGNORED = [
    ("*.md", "README.md", True),
    ("*.md", "docs/README.md", False),
    ("**/*.md", "docs/README.md", True),
    ("**/*.md", "README.md", True),
    ("docs", "docs/a/b.txt", True),
    ("docs/", "docs/a.txt", True),
    ("/docs", "docs/a.txt", True),
    ("docs", "docs2", False),
    ("docs/*", "docs/a/b", True),
    ("*/temp*", "a/temporary.txt", True),
    ("*/temp*", "a/b/temporary.txt", False),
    ("*/*/temp*", "a/b/temporary.txt", True),
    ("temp?", "tempa", True),
    ("temp?", "temp", False),
    ("temp?", "temp/", False),
    ("a[0-2]c", "a1c", True),
    ("a[0-2]c", "a3c", False),
    ("a[^0-2]c", "a3c", True),
    ("a[^0-2]c", "a/c", False),
    ("a\\*b", "a*b", True),
    ("a\\*b", "axb", False),
    ("data/**", "data/x/y", True),
    ("data/**/raw", "data/raw", True),
    ("data/**/raw", "data/x/y/raw/z", True),
    ("**", "anything/at/all", True),
    ("a/../b", "b", True),
    ("./b", "b", True),
    ("b.txt", "bxtxt", False),
    ("a+b", "a+b", True),
    ("a+b", "aab", False),
    (".", "anything", False),
    ("# docs", "# docs", False),
    ("   docs   ", "docs", True),
    ("", "docs", False),
    ("*", "a/b", True),
]


@pytest.mark.parametrize(("pattern", "path", "expected"), IGNORED)
def test_pattern(pattern: str, path: str, expected: bool) -> None:
    assert IgnoreRules.parse(pattern).ignored(path) is expected


def test_last_match_decides() -> None:
    rules = IgnoreRules.parse("*.md\n!README*.md\nREADME-secret.md\n")
    assert rules.ignored("notes.md")
    assert not rules.ignored("README.md")
    assert rules.ignored("README-secret.md")


def test_exception_within_an_ignored_folder() -> None:
    rules = IgnoreRules.parse("data\n!data/keep.csv\n")
    assert rules.ignored("data/drop.csv")
    assert not rules.ignored("data/keep.csv")


@pytest.mark.parametrize("pattern", ["a[", "a[]", "tail\\", "!"])
def test_pattern_that_docker_refuses(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"line 2: "):
        IgnoreRules.parse(f"# fine\n{pattern}\n")


@given(st.text(alphabet="ab/*?[]^-\\!.#", max_size=12), st.text(alphabet="ab/.", max_size=8))
def test_any_pattern_is_answered_or_refused(pattern: str, path: str) -> None:
    try:
        rules = IgnoreRules.parse(pattern)
    except ValueError:
        return
    assert rules.ignored(path) in {True, False}


# -- the context -------------------------------------------------------------------------------


def test_files_and_default_ignores(tmp_path: Path) -> None:
    folder = step(
        tmp_path,
        **{"main.py": "1", "__pycache__/main.pyc": "x", "pkg/__pycache__/a.pyc": "x",
           "pkg/a.py": "", ".venv/bin/python": "x", ".git/HEAD": "x"},
    )  # fmt: skip
    assert paths(StepSource("train", folder)) == ["Dockerfile", "main.py", "pkg/a.py"]


def test_dockerignore_and_its_exceptions(tmp_path: Path) -> None:
    folder = step(
        tmp_path,
        **{".dockerignore": "*\n!src\nsrc/*.tmp\n", "src/a.py": "", "src/b.tmp": "", "c.txt": ""},
    )
    # The Dockerfile makes the image whatever the rules say.
    assert paths(StepSource("train", folder)) == ["Dockerfile", "src/a.py"]


def test_dockerignore_named_after_the_dockerfile_wins(tmp_path: Path) -> None:
    folder = step(
        tmp_path, **{".dockerignore": "a", "Dockerfile.dockerignore": "b", "a": "", "b": ""}
    )
    assert paths(StepSource("train", folder)) == [
        ".dockerignore", "Dockerfile", "Dockerfile.dockerignore", "a",
    ]  # fmt: skip


def test_default_ignores_can_be_brought_back(tmp_path: Path) -> None:
    folder = step(tmp_path, **{".dockerignore": "!**/*.pyc", "kept.pyc": ""})
    assert "kept.pyc" in paths(StepSource("train", folder))


def test_bad_dockerignore_names_file_and_line(tmp_path: Path) -> None:
    folder = step(tmp_path, **{".dockerignore": "ok\na[\n"})
    with pytest.raises(ConfigError, match=r"\.dockerignore: line 2"):
        context_files(StepSource("train", folder))


def test_includes_go_to_the_root(tmp_path: Path) -> None:
    write(
        tmp_path, **{"shared/common/a.py": "", "shared/common/__pycache__/a.pyc": "", "v.txt": ""}
    )
    folder = step(tmp_path)
    source = StepSource("train", folder, (tmp_path / "shared/common", tmp_path / "v.txt"))
    assert paths(source) == ["Dockerfile", "common/a.py", "v.txt"]


def test_include_that_collides(tmp_path: Path) -> None:
    write(tmp_path, **{"common/a.py": ""})
    folder = step(tmp_path, **{"common/b.py": ""})
    with pytest.raises(ConfigError, match="'common' collides"):
        context_files(StepSource("train", folder, (tmp_path / "common",)))


@pytest.mark.parametrize("target", ["/etc/passwd", "../../secret", "sub/../../x", ".."])
def test_link_out_of_the_context(tmp_path: Path, target: str) -> None:
    folder = step(tmp_path)
    (folder / "link").symlink_to(target)
    with pytest.raises(ConfigError, match="leads out of the context"):
        context_files(StepSource("train", folder))


def test_link_inside_is_kept_as_a_link(tmp_path: Path) -> None:
    folder = step(tmp_path, **{"sub/a": ""})
    (folder / "sub/link").symlink_to("../Dockerfile")
    entry = context_files(StepSource("train", folder))[-1]
    assert (entry.path, entry.kind, entry.target) == ("sub/link", "link", "../Dockerfile")


def test_pipe_is_refused(tmp_path: Path) -> None:
    folder = step(tmp_path)
    os.mkfifo(folder / "pipe")
    with pytest.raises(ConfigError, match="neither file, folder nor link"):
        context_files(StepSource("train", folder))


# -- empty folders -----------------------------------------------------------------------------


def folders(source: StepSource, in_clone: CloneFiles = lambda folder: None) -> list[str]:
    return [one.path for one in context_files(source, in_clone) if one.kind == "folder"]


def test_a_folder_in_which_nothing_is_left_is_an_entry(tmp_path: Path) -> None:
    """Docker's rules; tests/e2e compares them with the real builder."""
    folder = step(
        tmp_path,
        **{".dockerignore": "**/*.log\nkeep\n!keep/empty\nback\n!back/y\n*/tmp\n",
           "logs/a.log": "", "back/y": "", "back/x": "", "pkg/__pycache__/a.pyc": ""},
    )  # fmt: skip
    for name in ("out/deep", "keep/empty", "keep/other", "sub/tmp", "pkg/__pycache__", "back/z"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    assert folders(StepSource("train", folder)) == ["keep/empty", "logs", "out/deep", "pkg", "sub"]


def test_an_empty_folder_changes_the_digest(tmp_path: Path) -> None:
    folder = step(tmp_path)
    seen = {digest(StepSource("train", folder))}
    (folder / "out").mkdir()
    seen.add(digest(StepSource("train", folder)))
    (folder / "out/deep").mkdir()
    seen.add(digest(StepSource("train", folder)))
    (folder / "out/deep").chmod(0o700)
    assert digest(StepSource("train", folder)) in seen
    assert len(seen) == 3
    fields = ["ctflow-context", "1", "b", "Dockerfile", "file",
              hashlib.sha256(b"FROM base\n").hexdigest(), "out/deep", "folder", ""]  # fmt: skip
    expected = hashlib.sha256("".join(f"{one}\0" for one in fields).encode()).hexdigest()
    assert digest(StepSource("train", folder), "b") == f"sha256:{expected}"


def git(root: Path, *words: str) -> None:
    subprocess.run(["git", *words], cwd=root, check=True, capture_output=True)


def test_in_a_repository_only_folders_that_a_clone_has_count(tmp_path: Path) -> None:
    """The working tree and a clone of it have the same context, whatever lies about."""
    root = tmp_path / "project"
    folder = step(
        root,
        **{".dockerignore": "**/.gitkeep\n*.csv\ncache/*\n", "out/.gitkeep": "",
           "gone/.gitkeep": "", "pkg/a.py": ""},
    )  # fmt: skip
    write(root, **{".gitignore": "cache/\n", "common/empty/.gitkeep": "", "bare/.gitkeep": ""})
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "one"]):
        git(root, *words)
    write(folder, **{"pkg2/__pycache__/a.pyc": "", "cache/data": ""})
    (folder / "nothing/here").mkdir(parents=True)
    (root / "common/new").mkdir()
    (folder / "gone/.gitkeep").unlink()
    includes = (root / "common", root / "bare")

    def both(where: Path) -> list[str]:
        there = tuple(where / path.relative_to(root) for path in includes)
        source = StepSource("train", where / "steps/train", there)
        return folders(source, files_of_a_clone)

    assert both(root) == ["bare", "common/empty", "out"]
    assert "nothing/here" in folders(StepSource("train", folder))
    # What is not committed yet counts as it will when it is, and as files do.
    write(folder, **{"soon/.gitkeep": ""})
    assert both(root) == ["bare", "common/empty", "out", "soon"]
    git(root, "add", "-A")
    git(root, "commit", "-qm", "two")
    git(tmp_path, "clone", "-q", str(root), "clone")
    assert both(tmp_path / "clone") == both(root) == ["bare", "common/empty", "out", "soon"]


# -- the digest --------------------------------------------------------------------------------


def test_digest_is_that_of_the_documented_form(tmp_path: Path) -> None:
    folder = step(tmp_path, **{"main.py": "print(1)\n"})
    (folder / "run.sh").write_text("x")
    (folder / "run.sh").chmod(0o755)
    (folder / "link").symlink_to("main.py")
    fields = ["ctflow-context", "1", "base"]
    fields += ["Dockerfile", "file", hashlib.sha256(b"FROM base\n").hexdigest()]
    fields += ["link", "link", "main.py"]
    fields += ["main.py", "file", hashlib.sha256(b"print(1)\n").hexdigest()]
    fields += ["run.sh", "exec", hashlib.sha256(b"x").hexdigest()]
    expected = hashlib.sha256("".join(f"{one}\0" for one in fields).encode()).hexdigest()
    assert digest(StepSource("train", folder), "base") == f"sha256:{expected}"


def test_digest_does_not_depend_on_place_time_order_or_umask(tmp_path: Path) -> None:
    names = [f"{one}.py" for one in "abcdé"] + ["Z/z.py", "Z-a.py"]
    seen = set()
    for number in range(3):
        random.Random(number).shuffle(names)
        old = os.umask((0o022, 0o077, 0o002)[number])
        try:
            folder = step(tmp_path / str(number), **dict.fromkeys(names, "same"))
        finally:
            os.umask(old)
        for file in folder.rglob("*.py"):
            os.utime(file, (number * 1000, number * 1000))
        seen.add(digest(StepSource("train", folder)))
    assert len(seen) == 1


def test_everything_that_counts_changes_it(tmp_path: Path) -> None:
    folder = step(tmp_path, **{"main.py": "1"})
    source = StepSource("train", folder)
    seen = [digest(source), digest(source, "python:3.12-slim")]
    (folder / "main.py").write_text("2")
    seen.append(digest(source))
    (folder / "main.py").chmod(0o755)
    seen.append(digest(source))
    (folder / "main.py").rename(folder / "other.py")
    seen.append(digest(source))
    write(tmp_path, **{"common/a.py": ""})
    seen.append(digest(StepSource("train", folder, (tmp_path / "common",))))
    (folder / "Dockerfile").write_text("FROM other\n")
    seen.append(digest(source))
    assert len(set(seen)) == len(seen)


# -- finding steps -----------------------------------------------------------------------------


def test_discovers_folders_with_a_dockerfile_sorted(tmp_path: Path) -> None:
    step(tmp_path, "train")
    step(tmp_path, "collect")
    write(
        tmp_path,
        **{"steps/notes/readme": "", "steps/file": "", "elsewhere/Dockerfile": "", "c": ""},
    )
    configured = {"extra": StepConfig(folder="elsewhere"), "train": StepConfig(include=("c",))}
    found = discover_steps(tmp_path, configured)
    assert [one.name for one in found] == ["collect", "extra", "train"]
    assert found[1].folder == tmp_path / "elsewhere"
    assert found[2].include == (tmp_path / "c",)


def test_a_project_without_steps(tmp_path: Path) -> None:
    assert discover_steps(tmp_path, {}) == ()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (StepConfig(folder="gone"), "no folder gone"),
        (StepConfig(folder="bare"), "bare has no Dockerfile"),
        (StepConfig(folder="../out"), "outside the project"),
        (StepConfig(include=("../out",)), "'../out' is not inside the project"),
        (StepConfig(include=(".",)), "'.' is not inside the project"),
        (StepConfig(include=("/etc",)), "'/etc' is not inside the project"),
        (StepConfig(include=("link",)), "'link' is not inside the project"),
        (StepConfig(include=("gone.py",)), "'gone.py' does not exist"),
        (StepConfig(include=("a/x", "b/x")), "two includes are called 'x'"),
    ],
)
def test_wrong_configuration(tmp_path: Path, config: StepConfig, message: str) -> None:
    root = tmp_path / "project"
    step(root, "train")
    write(root, **{"bare/main.py": "", "a/x": "", "b/x": ""})
    write(tmp_path, **{"out/Dockerfile": ""})
    (root / "link").symlink_to(tmp_path / "out")
    with pytest.raises(ConfigError) as raised:
        discover_steps(root, {"train": config})
    assert message in str(raised.value)
    assert str(raised.value).startswith("step train: ")


@pytest.mark.parametrize("name", ["Train", "a--_b", "-a", "a.", "ü", "a b"])
def test_names_that_no_image_can_have(tmp_path: Path, name: str) -> None:
    step(tmp_path, name)
    with pytest.raises(ConfigError, match="no image can have that name"):
        discover_steps(tmp_path, {})
