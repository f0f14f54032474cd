"""The copy of the serving code that a model server runs on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ctflow.errors import ConfigError
from ctflow.ports import GoldenRequest
from ctflow.serving.local.code import left_out, write_code

IMAGE = "ctflow.local/tiny/predictor@sha256:" + "1" * 64


@pytest.fixture
def request_(tmp_path: Path) -> GoldenRequest:
    code = tmp_path / "code"
    (code / "sub").mkdir(parents=True)
    for name in ("predictor.py", "golden.json", "requirements.txt", "helper.py", "sub/more.py",
                 "Dockerfile", "notes.md"):  # fmt: skip
        (code / name).write_text(name)
    (code / ".dockerignore").write_text("golden.json\nrequirements.txt\nhelper.py\n*.md\n")
    (code / "run.sh").write_text("")
    (code / "run.sh").chmod(0o755)
    (code / "link.py").symlink_to("helper.py")
    return GoldenRequest("tiny", tmp_path, code, "predictor.py", "golden.json")


def there(folder: Path) -> list[str]:
    found = (one for one in folder.rglob("*") if not one.is_dir())
    return sorted(one.relative_to(folder).as_posix() for one in found)


def test_without_an_image_it_is_the_whole_folder(request_: GoldenRequest, tmp_path: Path) -> None:
    assert write_code(request_, tmp_path / "out") == "predictor.py"
    assert there(tmp_path / "out") == there(request_.code)
    assert left_out(request_) == []


def test_with_an_image_it_is_what_the_image_holds(request_: GoldenRequest, tmp_path: Path) -> None:
    """And, for whoever starts and asks it, requirements and golden requests."""
    request = replace(request_, image=IMAGE)
    assert write_code(request, tmp_path / "out") == "predictor.py"
    assert there(tmp_path / "out") == [
        ".dockerignore", "Dockerfile", "golden.json", "link.py", "predictor.py",
        "requirements.txt", "run.sh", "sub/more.py",
    ]  # fmt: skip
    assert (tmp_path / "out" / "run.sh").stat().st_mode & 0o100
    assert (tmp_path / "out" / "link.py").is_symlink()
    assert left_out(request) == ["helper.py"]


def test_a_standard_runtime_gets_nothing_of_the_folder(
    request_: GoldenRequest, tmp_path: Path
) -> None:
    request = replace(request_, runtime="sklearn", requirements=("scikit-learn==1.7.2",))
    assert write_code(request, tmp_path / "out") == "predictor.py"
    assert there(tmp_path / "out") == [
        "golden.json", "predictor.py", "requirements.txt", "standard_models.py",
    ]  # fmt: skip
    assert (tmp_path / "out" / "predictor.py").read_text() != "predictor.py"


def test_there_is_no_folder(request_: GoldenRequest, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no serving folder"):
        write_code(replace(request_, code=tmp_path / "gone"), tmp_path / "out")
