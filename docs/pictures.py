"""Draws the pictures of the documentation: ``python docs/pictures.py``.

They are SVG, written here as text. ``python docs/pushes.py`` measures what one of them shows. A
test fails while a picture is not what this writes.
"""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np

from ctflow.gate.intervals.midp import right_wrong
from ctflow.gate.planning import least_gain

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
PUSHES = IMAGES / "pushes.csv"

WIDTH = 720
# Dark on white, also on a dark page. No colour has to be told from another: each line has a name.
INK, FAINT, GRID = "#1f2328", "#59636e", "#d1d9e0"
BLUE, ORANGE, RED, GREEN = "#0550ae", "#bc4c00", "#cf222e", "#1a7f37"

#: The challengers of docs/gate-example.md: how many of its examples only the challenger answers
#: right, and how many only the champion.
EXAMPLES = 432
CHALLENGERS = {"wider": (14, 2), "another seed": (2, 1), "fewer epochs": (0, 9)}
MARGIN = 0.02

#: The columns of the simulation, and how the picture names them.
RULES = {
    "naive": "no test: a higher accuracy",
    "neither": "the gate",
    "confirm": "with confirm",
    "looks: auto": "with looks: auto",
    "looks: 100": "with looks: 100",
}


@dataclass
class Drawing:
    """An SVG that grows; places are in pixels, from the upper left."""

    height: int
    title: str
    about: str
    parts: list[str] = field(default_factory=list)

    def line(
        self, points: Sequence[tuple[float, float]], colour: str, width: float = 1, dash: str = ""
    ) -> None:
        """A line through the points."""
        through = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        dashed = f' stroke-dasharray="{dash}"' if dash else ""
        self.parts.append(
            f'<polyline points="{through}" fill="none" stroke="{colour}" stroke-width="{width:g}"'
            f'{dashed} stroke-linejoin="round"/>'
        )

    def dot(self, x: float, y: float, colour: str) -> None:
        """A filled circle."""
        self.parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{colour}"/>')

    def text(
        self,
        x: float,
        y: float,
        words: str,
        colour: str = INK,
        anchor: str = "start",
        bold: bool = False,
    ) -> None:
        """One line of text; ``anchor``: start, middle or end."""
        weight = ' font-weight="600"' if bold else ""
        self.parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}" text-anchor="{anchor}"{weight} '
            'stroke="#ffffff" stroke-width="4" stroke-linejoin="round" paint-order="stroke">'
            f"{escape(words)}</text>"
        )

    def svg(self) -> str:
        """The whole file."""
        inside = "\n".join(self.parts)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {self.height}" '
            f'width="{WIDTH}" height="{self.height}" role="img" font-size="14" '
            'font-family="system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif">\n'
            f"<title>{escape(self.title)}</title>\n<desc>{escape(self.about)}</desc>\n"
            f'<rect width="{WIDTH}" height="{self.height}" rx="6" fill="#ffffff"/>\n'
            f"{inside}\n</svg>\n"
        )


def intervals() -> str:
    """Three challengers' gains against 0 and against a margin."""
    done = Drawing(
        330,
        "Three challengers: promote, hold, reject",
        "The 95% interval of each gain in accuracy, with 0 and a margin of 0.02 below it.",
    )
    left, right, low, high = 206.0, 516.0, -0.06, 0.06
    top, bottom = 62.0, 262.0

    def at(gain: float) -> float:
        return left + (right - left) * (gain - low) / (high - low)

    for tick in np.arange(-0.06, 0.061, 0.02):
        done.line([(at(tick), top), (at(tick), bottom)], GRID)
        done.text(at(tick), bottom + 20, f"{tick:.2f}" if round(tick, 2) else "0", FAINT, "middle")
    done.line([(at(0), top - 10), (at(0), bottom)], INK, 2)
    done.line([(at(-MARGIN), top - 10), (at(-MARGIN), bottom)], ORANGE, 2, "6 4")
    done.text(at(0) + 4, top - 16, "no gain")
    done.text(at(-MARGIN) - 4, top - 16, f"margin: {MARGIN}", ORANGE, "end")
    done.text(
        (left + right) / 2, bottom + 46, "gain in accuracy over the champion", FAINT, "middle"
    )
    done.text(right + 40, top - 28, "a gain", bold=True)
    done.text(right + 40, top - 12, "is asked", bold=True)
    done.text(right + 130, top - 28, "margin", ORANGE, bold=True)
    done.text(right + 130, top - 12, f"{MARGIN}", ORANGE, bold=True)
    for row, (name, (better, worse)) in enumerate(CHALLENGERS.items()):
        gain = (better - worse) / EXAMPLES
        _, start, end, _ = right_wrong(better, worse, EXAMPLES, 0.95)
        y = top + 34 + 66 * row
        asked, allowed = decision(start, end, 0.0), decision(start, end, -MARGIN)
        done.text(left - 18, y - 4, name, anchor="end", bold=True)
        done.text(left - 18, y + 16, f"{gain:+.3f} ({start:.3f} to {end:.3f})", FAINT, "end")
        colour = {"promote": GREEN, "hold": FAINT, "reject": RED}[asked]
        done.line([(at(start), y), (at(end), y)], colour, 4)
        for place in (start, end):
            done.line([(at(place), y - 8), (at(place), y + 8)], colour, 3)
        done.dot(at(gain), y, colour)
        done.text(right + 40, y + 5, asked)
        done.text(right + 130, y + 5, allowed, ORANGE)
    return done.svg()


def decision(low: float, high: float, limit: float) -> str:
    """What the gate says of a gain with that interval."""
    return "promote" if low > limit else "reject" if high < limit else "hold"


def pushes() -> str:
    """How many chains had an equal model promoted by then, by rule."""
    found = measured()
    chains = len(found["naive"])
    shares = {
        rule: [sum(0 < one <= push for one in firsts) / chains for push in range(101)]
        for rule, firsts in found.items()
    }
    done = Drawing(
        390,
        "A hundred pushes of models that are no better",
        f"The share of {chains} simulated chains in which one got through, by push and rule.",
    )
    left, right, top, bottom = 70.0, 450.0, 40.0, 320.0

    def at(push: float, share: float) -> tuple[float, float]:
        return left + (right - left) * push / 100, bottom - (bottom - top) * share

    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        done.line([at(0, share), at(100, share)], GRID)
        x, y = at(0, share)
        done.text(x - 8, y + 5, f"{share:.0%}", FAINT, "end")
    for push in (0, 20, 40, 60, 80, 100):
        x, y = at(push, 0)
        done.text(x, y + 22, f"{push}", FAINT, "middle")
    done.text(
        (left + right) / 2,
        bottom + 48,
        "models that are no better, one after the other",
        FAINT,
        "middle",
    )
    done.text(left, top - 16, "at least one got through", FAINT)
    colours = dict(zip(RULES, (RED, ORANGE, GREEN, BLUE, INK), strict=True))
    places = apart([at(100, shares[rule][100])[1] for rule in RULES], 20, bottom + 5)
    for (rule, name), y in zip(RULES.items(), places, strict=True):
        dash = {"looks: auto": "7 4", "looks: 100": "2 3"}.get(rule, "")
        done.line(
            [at(push, share) for push, share in enumerate(shares[rule])], colours[rule], 2.5, dash
        )
        done.line([at(100, shares[rule][100]), (right + 14, y - 5)], colours[rule], 1)
        last = shares[rule][100]
        percent = f"{last:.0%}" if 0.1 < last < 0.99 else f"{last:.1%}"
        done.text(right + 18, y, f"{percent} {name}", colours[rule])
    return done.svg()


def apart(places: Sequence[float], least: float, lowest: float) -> list[float]:
    """Heights of labels, from the top down: as given, moved up to be ``least`` apart."""
    moved = []
    limit = lowest
    for place in reversed(places):
        moved.append(min(place + 5, limit))
        limit = moved[-1] - least
    return moved[::-1]


def examples() -> str:
    """The smallest gain that shows, by the number of examples."""
    done = Drawing(
        400,
        "How many examples a gain needs",
        "The smallest gain in accuracy that is shown with 80% power, by the number of examples.",
    )
    left, right, top, bottom = 76.0, 520.0, 40.0, 320.0

    def at(count: float, gain: float) -> tuple[float, float]:
        x = (math.log10(count) - 2) / 3
        y = (math.log10(gain) - math.log10(0.002)) / (math.log10(0.2) - math.log10(0.002))
        return left + (right - left) * x, bottom - (bottom - top) * y

    for gain in (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2):
        done.line([at(100, gain), at(100_000, gain)], GRID)
        x, y = at(100, gain)
        done.text(x - 8, y + 5, f"{gain:g}", FAINT, "end")
    for count in (100, 300, 1_000, 3_000, 10_000, 30_000, 100_000):
        done.line([at(count, 0.002), at(count, 0.2)], GRID)
        x, y = at(count, 0.002)
        done.text(x, y + 22, f"{count:,}", FAINT, "middle")
    done.text((left + right) / 2, bottom + 48, "examples", FAINT, "middle")
    done.text(left, top - 16, "smallest gain in accuracy that shows with 80% power", FAINT)
    for differ, colour, dash in ((0.20, RED, "2 3"), (0.10, ORANGE, "7 4"), (0.05, BLUE, "")):
        counts = [
            count for count in np.logspace(2, 5, 61) if least_gain(differ, count, 0.95) <= 0.2
        ]
        # A gain cannot be above the share of examples on which the two differ.
        shown = [(count, least_gain(differ, count, 0.95)) for count in counts]
        line = [at(count, gain) for count, gain in shown if gain <= differ]
        done.line(line, colour, 2.5, dash)
        done.text(line[-1][0] + 10, line[-1][1] + 5, f"differ on {differ:.0%}", colour)
    least = least_gain(0.05, EXAMPLES, 0.95)
    x, y = at(EXAMPLES, least)
    done.dot(x, y, BLUE)
    done.line([(x, y), (x, bottom)], BLUE, 1)
    done.text(x + 8, bottom - 48, f"{EXAMPLES} examples", BLUE)
    done.text(x + 8, bottom - 30, f"show {least:.3f}", BLUE)
    return done.svg()


PICTURES: dict[str, Callable[[], str]] = {
    "gate-intervals.svg": intervals,
    "gate-pushes.svg": pushes,
    "gate-examples.svg": examples,
}


def measured() -> dict[str, list[int]]:
    """For each rule, and each chain, the push at which an equal model got through; 0: none did."""
    with PUSHES.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {rule: [int(row[rule]) for row in rows] for rule in RULES}


def stale() -> list[str]:
    """The pictures that are not what this writes."""
    return [
        name
        for name, draw in PICTURES.items()
        if not (IMAGES / name).is_file() or (IMAGES / name).read_text(encoding="utf-8") != draw()
    ]


def main() -> int:
    """Write what is stale."""
    IMAGES.mkdir(exist_ok=True)
    for name in stale():
        (IMAGES / name).write_text(PICTURES[name](), encoding="utf-8")
        print(f"wrote {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
