"""What is cached of ctflow.yaml: the same as what is read, until anything of it changes."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import cast

import pytest

from ctflow.config import project_cache
from ctflow.config.policy import rules_digest
from ctflow.config.settings import Settings, flatten, load_settings
from ctflow.config.values_only import ValuesOnly
from ctflow.errors import ConfigError
from tests.unit.test_config import FULL


def load(root: Path, text: str | None = None, *flags: str, **environ: str) -> Settings:
    if text is not None:
        (root / "ctflow.yaml").write_text(text)
    return load_settings(root, environ, flags, cache=root / "cache")


def files(root: Path) -> list[Path]:
    folder = root / "cache" / project_cache.FOLDER
    return sorted(folder.iterdir()) if folder.is_dir() else []


def is_cached(settings: Settings) -> bool:
    return isinstance(cast("object", settings.project), ValuesOnly)


def test_the_second_time_is_as_the_first(tmp_path: Path) -> None:
    read, again = load(tmp_path, FULL), load(tmp_path)
    assert (is_cached(read), is_cached(again)) == (False, True)
    assert again.origins == read.origins
    assert list(again.origins) == list(read.origins)
    one, other = read.project, again.project
    assert flatten(other) == flatten(one)
    assert rules_digest(other) == rules_digest(one)
    assert (other.model.artifact, other.environments["production"].rollout.canary) == (
        "train.model", (10, 50, 100),
    )  # fmt: skip
    assert (other.gate[1].over, other.gate[1].is_sure, other.gate[0].falls) == (
        "champion", False, False,
    )  # fmt: skip
    assert other.first_environments() == ("staging",)
    assert other == one
    assert one == other
    assert other != one.model_copy(update={"branch": "b"})
    assert repr(other) == repr(one)
    assert other.gate[1].model_copy(update={"confidence": 0.9}).confidence == 0.9
    assert [rule.model_fields_set for rule in other.gate] == [
        rule.model_fields_set for rule in one.gate
    ]
    assert pickle.loads(pickle.dumps(other)) == one  # noqa: S301
    assert copy.deepcopy(other) == one


def test_what_is_cached_is_frozen(tmp_path: Path) -> None:
    load(tmp_path, FULL)
    project = load(tmp_path).project
    with pytest.raises(ValueError, match="frozen"):
        project.project = "other"  # type: ignore[misc]
    with pytest.raises(ValueError, match="frozen"):
        del project.images.base
    with pytest.raises(AttributeError, match="nothing"):
        _ = project.nothing  # type: ignore[attr-defined]


def test_another_text_is_read(tmp_path: Path) -> None:
    load(tmp_path, "project: one\n")
    assert load(tmp_path, "project: two\n").project.project == "two"
    with pytest.raises(ConfigError, match=r"ctflow\.yaml:2: unknown key 'gates'"):
        load(tmp_path, "project: one\ngates: []\n")
    assert is_cached(load(tmp_path, "project: one\n"))


def test_another_ctflow_reads_it_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load(tmp_path, FULL)
    monkeypatch.setattr(project_cache, "__version__", "0.0.0")
    assert not is_cached(load(tmp_path))
    monkeypatch.undo()
    assert is_cached(load(tmp_path))
    code = project_cache._code()
    monkeypatch.setattr(project_cache, "_code", lambda: [*code, ["new.py", 1, 1]])
    assert not is_cached(load(tmp_path))


@pytest.mark.parametrize("damage", ["empty", "cut", "changed", "other", "folder"])
def test_what_is_not_whole_counts_as_none(tmp_path: Path, damage: str) -> None:
    read = load(tmp_path, FULL)
    (file,) = files(tmp_path)
    data = file.read_bytes()
    if damage == "folder":
        file.unlink()
        file.mkdir()
    else:
        file.write_bytes({
            "empty": b"", "cut": data[:-9], "other": b"[]",
            "changed": data.replace(b"ghcr.io", b"evil.io"),
        }[damage])  # fmt: skip
    found = load(tmp_path)
    assert not is_cached(found)
    assert found == read
    if damage != "folder":
        assert is_cached(load(tmp_path))


def test_what_flags_and_variables_say_is_not_cached(tmp_path: Path) -> None:
    load(tmp_path, FULL, "branch=hidden")
    load(tmp_path, FULL, CTFLOW_BRANCH="hidden")
    assert files(tmp_path) == []
    assert not is_cached(load(tmp_path, FULL))
    assert load(tmp_path, None, "branch=b").project.branch == "b"
    assert load(tmp_path, None, CTFLOW_BRANCH="c").project.branch == "c"
    assert is_cached(load(tmp_path))


def test_nothing_is_cached_where_it_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    for _ in range(2):
        assert load(tmp_path, FULL).project.project == "digits"


def test_what_is_no_plain_data_is_read_each_time(tmp_path: Path) -> None:
    # A date that comes by a merge is no text, as parameters otherwise are.
    text = "<<: {parameters: {day: 2026-01-02}}\nproject: digits\n"
    for _ in range(2):
        assert not is_cached(load(tmp_path, text))


def test_old_ones_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(project_cache, "MOST", 4)
    for number in range(12):
        load(tmp_path, f"project: p{number}\n")
    assert len(files(tmp_path)) <= 4
    assert is_cached(load(tmp_path))
