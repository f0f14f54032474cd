"""A metric that is a function of the project: one number, made of the columns of some examples.

The function sees plain data: a dict of column -> list of values, ``id`` among them, one place for
each example. What it computes is not known here, so all that can be done is to ask it about other
examples than all: resamples, all but a few, or some of the other model's answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ctflow.errors import ConfigError, UsageError
from ctflow.gate.files.predictions import Floats, Ints, Predictions, shown
from ctflow.gate.intervals.significance import bootstrap_rows
from ctflow.gate.metrics.measures import Bools
from ctflow.lib.durations import seconds

if TYPE_CHECKING:
    from ctflow.config.gate_metric import MetricOf
    from ctflow.ports import Calls, Columns

#: Rows that are asked about at once; bounds the memory of a message to some MB.
BATCH = 1_000_000


class Function:
    """A function of one or two models' predictions; see ``Measure``. It is asked when it must be.

    Raises:
        ConfigError: there is nobody to ask it.
    """

    def __init__(self, of: MetricOf, models: Sequence[Predictions]) -> None:
        calls = models[0].calls
        self.name = of.function or ""
        if calls is None:
            raise ConfigError(
                f"{shown(self.name)} is asked in the environment of a run's step, and here is none",
                next="judge a run: `ctflow gate RUN`",
            )
        self._calls: Calls = calls
        self._timeout = seconds(of.timeout)
        self._models = models
        self.examples = len(models[0])

    @property
    def is_joined(self) -> bool:
        """Whether both models' files have the same columns, so that rows of them can be mixed."""
        return len(self._models) == 2 and set(self._models[0].columns) == set(
            self._models[1].columns
        )

    def ask(self, model: int, draws: Iterable[Ints]) -> Floats:
        """The function of that model's answers to the examples of each draw; shape (draws,).

        With ``is_joined``, positions from n on are those of the second model's answers.

        Raises:
            CtflowError: as ``Calls`` does.
        """
        if self.is_joined:
            columns, add = self._table((0, 1)), model * self.examples
        else:
            columns, add = self._table((model,)), 0
        found: list[float] = []
        batch: list[Ints] = []
        size = 0
        for rows in draws:
            if size + len(rows) > BATCH and batch:
                found += self._calls(self.name, self._timeout, columns, batch)
                batch, size = [], 0
            batch.append(rows + add)
            size += len(rows)
        if batch:
            found += self._calls(self.name, self._timeout, columns, batch)
        return np.array(found, np.float64)

    def all(self, rows: Ints | None) -> Ints:
        """Those examples: all of them where ``rows`` is None."""
        return np.arange(self.examples) if rows is None else rows

    def values(self, rows: Ints | None = None) -> Floats:
        """See ``Measure``."""
        some = self.all(rows)
        return np.concatenate([self.ask(model, [some]) for model in range(len(self._models))])

    def resample(self, rows: Ints | None, count: int, rng: np.random.Generator) -> Floats:
        """See ``Measure``."""
        some = self.all(rows)
        models = range(len(self._models))
        return bootstrap_rows(
            len(some),
            lambda drawn: np.stack([self.ask(m, list(some[drawn])) for m in models], axis=1),
            count,
            rng,
        )

    def differs(self, rows: Ints | None) -> Bools:
        """See ``Measure``: on all of them, as what it sees is not known."""
        return np.ones(len(self.all(rows)), np.bool_)

    def slack(self, rows: Ints | None, confidence: float) -> float:
        """See ``Measure``: there is no telling."""
        return float("inf")

    def _table(self, models: tuple[int, ...]) -> Columns:
        """The columns of one model, or of both one below the other; made once for the files."""
        chosen = [self._models[model] for model in models]
        all_of_them = self._models
        key = " ".join(str(id(one)) for one in (*chosen, *all_of_them))
        # The models are kept beside it: an id is nobody else's as long as they are there.
        found = all_of_them[0].cached("table", key, lambda: (self._columns(chosen), all_of_them))
        return found[0]

    def _columns(self, chosen: Sequence[Predictions]) -> Columns:
        found: dict[str, Sequence[float] | Sequence[str]] = {
            "id": [model.ids[row] for model in chosen for row in model.order.tolist()]
        }
        for name in chosen[0].columns:
            having = [model for model in self._models if name in model.columns]
            numbers = _numbers(having, name)
            if numbers is not None:
                places = [having.index(model) for model in chosen]
                found[name] = np.concatenate([numbers[place] for place in places]).tolist()
            else:
                found[name] = [text for model in chosen for text in model.texts(name)]
        return found


def _numbers(models: Sequence[Predictions], column: str) -> list[Floats] | None:
    """The column of each model as numbers; None unless all of its values are."""
    try:
        return [model.numbers(column) for model in models]
    except UsageError:
        return None
