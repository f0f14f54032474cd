"""Metrics by class: precision, recall, F1, balanced accuracy.

Formulas: see ``ctflow.gate.metrics.scores``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ctflow.errors import ConfigError
from ctflow.gate.files.predictions import Floats, Ints, Predictions, shown
from ctflow.gate.intervals.significance import unseen
from ctflow.gate.metrics.confusion import Confusion
from ctflow.gate.metrics.measures import Bools, pick

AVERAGES = ("macro", "weighted")


class ByClass(Confusion):
    """Metrics of single classes, or their averages."""

    def __init__(self, base: str, wanted: str, models: Sequence[Predictions]) -> None:
        super().__init__(models)
        self._base, self._wanted = base, wanted
        if wanted not in AVERAGES and wanted not in models[0].classes("label").distinct:
            raise ConfigError(f"no example has the label {shown(wanted)!r}")
        self._target = self._names.index(wanted) if wanted not in AVERAGES else -1

    def differs(self, rows: Ints | None) -> Bools:
        """See ``Measure``."""
        label, first, second = (pick(column, rows) for column in self._columns[:3])
        recall = self._base in ("recall", "balanced_accuracy")
        seen = (first == label) != (second == label) if recall else first != second
        if self._target >= 0:
            t = self._target
            seen &= label == t if recall else (label == t) | (first == t) | (second == t)
        return np.asarray(seen)

    def slack(self, rows: Ints | None, confidence: float) -> float:
        """See ``Measure``: as many examples as the rarest class has, or the only one, can tell."""
        label = pick(self._columns[0], rows)
        if self._target >= 0:
            rarest = int((label == self._target).sum())
        else:
            rarest = int(np.unique(label, return_counts=True)[1].min())
        differ = int(self.differs(rows).sum())
        return unseen(differ, max(rarest, differ), confidence)

    def _statistic(self, cells: list[Ints], counts: Floats | Ints) -> Floats:
        label = cells[0]
        actual = self._sums(counts, label)
        values = []
        for answer in cells[1:]:
            hit = answer == label
            hits = self._sums(counts[:, hit], label[hit])
            values.append(self._score(hits, self._sums(counts, answer), actual))
        return np.stack(values, axis=1)

    def _score(self, hits: Floats, predicted: Floats, actual: Floats) -> Floats:
        part, whole = {
            "precision": (hits, predicted),
            "recall": (hits, actual),
            "f1": (2 * hits, predicted + actual),
            "balanced_accuracy": (hits, actual),
        }[self._base]
        each = np.divide(part, whole, out=np.zeros_like(hits), where=whole > 0)
        if self._target >= 0:
            occurs = actual[:, self._target] > 0
            return np.where(occurs, each[:, self._target], np.nan)
        if self._wanted == "weighted":
            return np.asarray((each * actual).sum(axis=1) / actual.sum(axis=1))
        seen = actual > 0 if self._base == "balanced_accuracy" else predicted + actual > 0
        count = seen.sum(axis=1)
        least = 2 if self._base == "balanced_accuracy" else 1
        mean: Floats = np.divide(
            (each * seen).sum(axis=1), count, out=np.full(len(each), np.nan), where=count >= least
        )
        return mean

    def pairs(self, rows: Ints | None) -> list[tuple[int, int, int]] | None:
        """Where the metric is the mean of the classes' recalls: each class's right answers.

        (only the first model right, only the second, examples) of each; None for other metrics.
        """
        found = self._recalled(rows)
        if found is None:
            return None
        label, first, second = (pick(column, rows) for column in self._columns[:3])
        parts = []
        for name in found.tolist():
            of = label == name
            ours, theirs = first[of] == name, second[of] == name
            parts.append((int((ours > theirs).sum()), int((ours < theirs).sum()), int(of.sum())))
        return parts

    def influence(self, rows: Ints | None) -> Floats | None:
        """Each example's part in the first model's value less the second's, shape (n,).

        Its mean is that difference; of one model alone, its value. None where the metric is not a
        mean of recalls.
        """
        found = self._recalled(rows)
        if found is None:
            return None
        label, first, *others = (pick(column, rows) for column in self._columns[:3])
        differ = (first == label).astype(np.float64)
        if others:
            differ -= others[0] == label
        parts = np.zeros(len(label))
        total = 0.0
        for name in found.tolist():
            of = label == name
            mean = float(differ[of].mean())
            total += mean / len(found)
            parts[of] = (differ[of] - mean) * len(label) / of.sum() / len(found)
        return np.asarray(parts + total)

    def _recalled(self, rows: Ints | None) -> Ints | None:
        """The classes whose recalls' mean the metric is; None for other metrics."""
        if self._base not in ("recall", "balanced_accuracy") or self._wanted == "weighted":
            return None
        if self._target >= 0:
            return np.array([self._target])
        label, *answers = (pick(column, rows) for column in self._columns[:3])
        found = np.unique(label)
        if self._base == "recall" and not np.isin(np.concatenate(answers), found).all():
            return None  # see ``unlabelled``
        return np.asarray(found)

    def unlabelled(self, rows: Ints | None) -> tuple[str, int] | None:
        """A class that some model answers (its number from 0), and no example has; or None.

        Only for means over classes, where such a class counts as 0 however seldom it is answered:
        its whole part in the gain hangs on single answers, and no interval holds that.
        """
        if self._wanted != "macro" or self._base == "balanced_accuracy":
            return None
        label, *answers = (pick(column, rows) for column in self._columns)
        found = np.unique(label)
        for model, answer in enumerate(answers):
            if len(stray := np.setdiff1d(answer, found)):
                return self._names[int(stray[0])], model
        return None

    def shares(self, rows: Ints | None) -> list[tuple[int, int, float]]:
        """The first model's metric as a weighted sum of shares: (hits, of how many, weight).

        Of F1, the share f of hits among hits, false positives and false negatives: a class's F1 is
        2f / (1 + f). Classes that are nobody's label or answer are left out.
        """
        label, answer = (pick(column, rows) for column in self._columns[:2])
        size = len(self._names)
        hits = np.bincount(label[answer == label], minlength=size)
        actual, predicted = (np.bincount(x, minlength=size) for x in (label, answer))
        if self._base == "recall" and self._wanted == "weighted":
            return [(int(hits.sum()), len(label), 1.0)]
        whole = {"precision": predicted, "f1": predicted + actual - hits}.get(self._base, actual)
        if self._target >= 0:
            return [(int(hits[self._target]), int(whole[self._target]), 1.0)]
        seen = actual > 0 if self._base == "balanced_accuracy" else predicted + actual > 0
        weights = actual / len(label) if self._wanted == "weighted" else seen / seen.sum()
        return [(int(hits[j]), int(whole[j]), float(weights[j])) for j in np.flatnonzero(seen)]

    def wrong(self, rows: Ints | None) -> int:
        """On how many examples the first model is wrong."""
        label, answer = (pick(column, rows) for column in self._columns[:2])
        return int((label != answer).sum())

    @property
    def is_f1(self) -> bool:
        """Whether the metric is an F1."""
        return self._base == "f1"

    @property
    def is_of_disjoint(self) -> bool:
        """Whether ``shares`` are of disjoint examples, with weights that are not chance."""
        return not self.is_f1 and (self._base != "precision" or self._wanted != "weighted")
