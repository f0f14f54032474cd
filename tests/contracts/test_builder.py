"""The contract of the ``Builder`` port: which images the steps have, and what had to be built."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ctflow.config.settings import load_settings
from ctflow.errors import CtflowError
from ctflow.images.registry import OciRegistry
from ctflow.model import Image
from ctflow.ports import Builder, Event, ignore
from ctflow.wiring import ProjectTools, wire
from tests.contracts.small_registry import push_base, small_registry

DOCKERFILE = """\
ARG BASE
FROM ${BASE}
WORKDIR /step
COPY . ./
CMD ["python", "main.py"]
"""


class Local:
    """Folders of the steps, for runs on this machine."""

    settings = ""

    def builder(self, tools: ProjectTools) -> Builder:
        return tools.workspaces

    def has(self, tools: ProjectTools, reference: str) -> bool:
        return tools.workspaces.open(reference) is not None


class Layers:
    """Real images in a registry, made without an engine."""

    def __init__(self, address: str) -> None:
        base = push_base(address)
        self.settings = f"images: {{registry: {address}/acme, base: '{base}', builder: layers}}\n"

    def builder(self, tools: ProjectTools) -> Builder:
        return tools.image_builder(push=True)

    def has(self, tools: ProjectTools, reference: str) -> bool:
        digest = OciRegistry({}).digest(reference)
        return digest is not None and reference.endswith(f"@{digest}")


class World:
    """A project of two steps, built by as many machines' processes as a test asks for."""

    def __init__(self, root: Path, kind: Local | Layers) -> None:
        self.root, self._kind = root, kind
        self.write("ctflow.yaml", f"project: digits\n{kind.settings}"
                   "steps: {train: {include: [common]}}\n")  # fmt: skip
        self.write("common/shared.py", "VALUE = 1\n")
        for step in ("collect", "train"):
            self.write(f"steps/{step}/main.py", f"# {step}\n")
            self.write(f"steps/{step}/Dockerfile", DOCKERFILE)
            self.write(f"steps/{step}/.dockerignore", "*.md\n")

    def write(self, path: str, text: str) -> None:
        place = self.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)

    def build(
        self, names: Sequence[str] = (), events: list[Event] | None = None
    ) -> tuple[Image, ...]:
        """By a new process of the project: nothing is remembered but what is on disk."""
        tools = wire(load_settings(self.root, {}))
        steps = {one.name: one for one in tools.steps()}
        watch = ignore if events is None else events.append
        builder = self._kind.builder(tools)
        return builder.build([steps[name] for name in names or steps], watch)

    def has(self, image: Image) -> bool:
        return self._kind.has(wire(load_settings(self.root, {})), image.reference)


@pytest.fixture(params=["local", "layers"])
def world(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[World]:
    monkeypatch.setenv("CTFLOW_CACHE", str(tmp_path / "cache"))
    if request.param == "local":
        yield World(tmp_path / "project", Local())
        return
    with small_registry() as server:
        yield World(tmp_path / "project", Layers(server.address))


def references(images: Sequence[Image]) -> list[str]:
    return [one.reference for one in images]


def test_each_step_has_an_image_that_is_pinned_by_digest(world: World) -> None:
    images = world.build()
    assert [(one.step, one.built) for one in images] == [("collect", True), ("train", True)]
    for one in images:
        name, _, digest = one.reference.partition("@")
        assert name.endswith(f"/{one.step}")
        assert digest.startswith("sha256:")
        assert len(digest) == len(one.digest) == 71
        assert world.has(one)
    assert images[0].reference != images[1].reference


def test_what_was_built_before_is_not_built_again(world: World) -> None:
    first = world.build()
    events: list[Event] = []
    again = world.build(events=events)
    assert references(again) == references(first)
    assert [one.digest for one in again] == [one.digest for one in first]
    assert [one.built for one in again] == [False, False]
    assert events == []


def test_images_come_in_the_order_that_is_asked_for(world: World) -> None:
    assert [one.step for one in world.build(["train", "collect"])] == ["train", "collect"]
    assert [one.step for one in world.build(["collect"])] == ["collect"]


def test_only_the_step_that_changed_is_built_and_said(world: World) -> None:
    first = world.build()
    world.write("steps/train/main.py", "# other\n")
    events: list[Event] = []
    changed = world.build(events=events)
    assert [one.built for one in changed] == [False, True]
    assert changed[0].reference == first[0].reference
    assert changed[1].reference != first[1].reference
    assert changed[1].digest != first[1].digest
    assert {one.name for one in events if one.kind == "note"} == {"train"}
    assert world.has(first[1])  # a release may name it


def test_content_that_comes_back_is_the_same_image(world: World) -> None:
    first = world.build()
    world.write("steps/train/main.py", "# other\n")
    world.build()
    world.write("steps/train/main.py", "# train\n")
    back = world.build()
    assert references(back) == references(first)
    assert [one.built for one in back] == [False, False]


def test_what_is_included_counts_and_what_is_ignored_does_not(world: World) -> None:
    first = world.build()
    world.write("steps/collect/notes.md", "x")
    assert references(world.build()) == references(first)
    world.write("common/shared.py", "VALUE = 2\n")
    changed = world.build()
    assert [one.built for one in changed] == [False, True]
    assert changed[1].digest != first[1].digest


def test_two_processes_at_once_have_the_same_images(world: World) -> None:
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(lambda _: world.build(), range(2))
    assert references(one) == references(other)
    # Who waited for the other may say that it built, too.
    assert all(a.built or b.built for a, b in zip(one, other, strict=True))
    assert all(world.has(image) for image in one)


def test_a_step_that_cannot_be_built_is_an_error_of_ours_and_no_image(world: World) -> None:
    first = world.build()
    world.write("steps/train/requirements.txt", "there is no such requirement\n")
    dockerfile = DOCKERFILE.replace("CMD", "RUN pip install -r requirements.txt\nCMD")
    world.write("steps/train/Dockerfile", dockerfile)
    with pytest.raises(CtflowError) as caught:
        world.build()
    assert "train" in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(CtflowError):  # nothing half built is taken for an image
        world.build(["train"])
    (world.root / "steps/train/requirements.txt").unlink()
    world.write("steps/train/Dockerfile", DOCKERFILE)
    assert references(world.build()) == references(first)
