"""The pictures of the documentation are what their scripts draw and measure."""

from __future__ import annotations

import importlib.util
import re
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from types import ModuleType

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
EXAMPLE = (DOCS / "gate-example.md").read_text(encoding="utf-8")


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


pictures = load("pictures")


def texts(name: str) -> list[str]:
    drawn = ET.fromstring(pictures.PICTURES[name]())  # noqa: S314 - our own
    return [one.text or "" for one in drawn.iter("{http://www.w3.org/2000/svg}text")]


def test_the_pictures_are_up_to_date() -> None:
    assert pictures.stale() == [], "run `python docs/pictures.py`"


@pytest.mark.parametrize("name", pictures.PICTURES)
def test_each_is_shown_with_a_text_in_its_place(name: str) -> None:
    (alternative,) = re.findall(rf"!\[([^\]]+)\]\(images/{name}\)", EXAMPLE)
    assert len(alternative) > 80
    drawn = ET.fromstring(pictures.PICTURES[name]())  # noqa: S314 - our own
    background = next(iter(drawn.iter("{http://www.w3.org/2000/svg}rect")))
    assert (background.get("width"), background.get("height")) == (
        drawn.get("width"),
        drawn.get("height"),
    )
    assert background.get("fill") == "#ffffff"
    assert drawn[0].tag.endswith("title")


def test_the_intervals_are_those_that_the_example_prints() -> None:
    printed = re.findall(r"accuracy ([+-]\S+) over champion \(95% CI (\S+) to (\S+)\)", EXAMPLE)
    drawn = re.findall(r"([+-]\S+) \((\S+) to (\S+)\)", "\n".join(texts("gate-intervals.svg")))
    assert len(drawn) == 3
    assert set(drawn) <= set(printed)


def test_the_decisions_are_the_gates() -> None:
    assert [pictures.decision(0.01, 0.05, limit) for limit in (0.0, 0.02, 0.06)] == [
        "promote",
        "hold",
        "reject",
    ]


def test_the_first_chains_are_measured_again() -> None:
    measured = load("pushes").measure(8).splitlines()
    kept = (DOCS / "images" / "pushes.csv").read_text(encoding="utf-8").splitlines()
    assert measured == kept[:9]
    assert len(kept) == 301


def test_the_pushes_are_counted() -> None:
    found = pictures.measured()
    shown = "\n".join(texts("gate-pushes.svg"))
    for rule, name in pictures.RULES.items():
        share = sum(one > 0 for one in found[rule]) / 300
        (percent,) = re.findall(rf"([\d.]+)% {re.escape(name)}", shown)
        assert float(percent) / 100 == pytest.approx(share, abs=0.006)
