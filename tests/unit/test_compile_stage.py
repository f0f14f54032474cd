"""The compile stage: a package is made again only if something that goes into it changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from ctflow.errors import ConfigError
from ctflow.model import Image, Images, Package
from ctflow.ports import Watch, ignore
from ctflow.stages.train.packages import compile_package, unpack, with_content


class Copier:
    """A compiler whose package is what it was given, and that counts its calls."""

    def __init__(self) -> None:
        self.calls = 0
        self.version = "1"

    def fingerprint(self) -> str:
        return self.version

    def compile(
        self,
        root: Path,
        pipeline: str,
        images: Mapping[str, str],
        output: Path,
        watch: Watch = ignore,
    ) -> tuple[Path, ...]:
        self.calls += 1
        text = (root / "pipeline.py").read_text() + (root / "sub" / "helper.py").read_text()
        output.write_text(f"{text}{pipeline}{sorted(images.items())}")
        return (Path("pipeline.py"), Path("sub/helper.py"))


IMAGES = Images("p", (Image("train", "r/train@sha256:1", "sha256:1"),))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    (folder / "sub").mkdir(parents=True)
    (folder / "pipeline.py").write_text("a")
    (folder / "sub" / "helper.py").write_text("b")
    return folder


def made(
    root: Path, compiler: Copier, images: Images = IMAGES, name: str = "pipeline.py:f"
) -> Package:
    return compile_package(root, name, images, compiler, root / ".ctflow" / "packages")


def test_unchanged_is_not_compiled_again_wherever_the_command_stands(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = Copier()
    first = made(root, compiler)
    for folder in (root, root / "sub", Path("/")):
        monkeypatch.chdir(folder)
        assert made(root, compiler) == replace(first, built=False)
    assert (compiler.calls, first.built) == (1, True)


def test_whatever_goes_in_makes_it_anew(root: Path) -> None:
    compiler = Copier()
    digests = {made(root, compiler).digest}
    (root / "sub" / "helper.py").write_text("c")
    digests.add(made(root, compiler).digest)
    moved = Images("p", (Image("train", "r/train@sha256:2", "sha256:2"),))
    digests.add(made(root, compiler, moved).digest)
    digests.add(made(root, compiler, name="pipeline.py:g").digest)
    compiler.version = "2"
    made(root, compiler)
    assert (compiler.calls, len(digests)) == (5, 4)


@pytest.mark.parametrize("damage", [b"", b"{", b"{}", b'{"package": "sha256:1", "files": {}}'])
def test_a_damaged_index_or_package_is_made_good(root: Path, damage: bytes) -> None:
    compiler = Copier()
    package = made(root, compiler)
    (index,) = (root / ".ctflow" / "packages").glob("index-*")
    index.write_bytes(damage)
    assert made(root, compiler).digest == package.digest
    Path(package.path).write_bytes(damage)
    assert made(root, compiler).digest == package.digest
    assert compiler.calls == 3
    assert not list((root / ".ctflow" / "packages").glob(".new-*"))


def test_a_package_travels_with_its_content_and_is_checked(root: Path, tmp_path: Path) -> None:
    package = made(root, Copier())
    carried = with_content(package)
    here = unpack(replace(carried, path="/elsewhere"), tmp_path / "other")
    assert Path(here.path).read_bytes() == Path(package.path).read_bytes()
    with pytest.raises(ConfigError, match="does not match its digest"):
        unpack(replace(carried, content="evil"), tmp_path / "third")
    with pytest.raises(ConfigError, match="does not carry it"):
        unpack(package, tmp_path / "fourth")
