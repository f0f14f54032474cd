"""NDCG: how well scores rank the rows of each query by their relevance.

The gain of a row is its relevance and its discount 1 / log2(rank + 1) (Jarvelin and Kekalainen, ACM
Transactions on Information Systems 20, 2002), as scikit-learn has it. Rows whose scores tie share
their discounts evenly (McSherry and Najork, ECIR 2008). The metric is the mean over the queries, so
a query is what an example is elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ctflow.config.metric_names import NDCG
from ctflow.errors import ConfigError, UsageError
from ctflow.gate.files.predictions import Floats, Ints, Predictions, codes, shown
from ctflow.gate.metrics.measures import Means

#: Sums in another order give other last digits; two models differ from here on.
_DIGITS = 12


class Ndcg(Means):
    """The mean over queries of one value each; everything it is asked of ``rows`` is of queries.

    ``of`` says which queries those are.
    """

    def __init__(self, names: Sequence[str], queries: Ints, features: Sequence[Floats]) -> None:
        super().__init__("ndcg", features, worst=1.0)
        self._names = names
        self._queries = queries
        self._sizes = np.bincount(queries, minlength=len(names))

    def of(self, rows: Ints | None) -> Ints | None:
        """The queries that those rows are, sorted; all: None.

        Raises:
            ConfigError: they hold a part of a query.
        """
        if rows is None:
            return None
        counts = np.bincount(self._queries[rows], minlength=len(self._sizes))
        parted = np.flatnonzero((counts > 0) & (counts < self._sizes))
        if len(parted):
            raise ConfigError(
                f"a slice holds a part of the rows of query {shown(self._names[parted[0]])}",
                next="slice ndcg by a column that is the same for all rows of a query",
            )
        return np.asarray(np.flatnonzero(counts))

    def count(self, queries: Ints | None) -> int:
        """How many queries those are (all: None)."""
        return len(self._names) if queries is None else len(queries)


def ndcg(name: str, models: Sequence[Predictions], group: str | None) -> Ndcg:
    """``ndcg``, or ``ndcg_<k>`` of the first k ranks, for models that rank the same rows.

    Args:
        group: the column that says which query a row is of.

    Raises:
        ConfigError: no such column, or one that differs between models; no score; a label that is
            no relevance, a number of 0 or more.
    """
    match = NDCG.fullmatch(name)
    if group is None:
        raise ConfigError(
            f"{name} ranks the rows of each query",
            next="say 'group: column', the column that names the query",
        )
    names, (queries, *others) = codes(*(_queries(model, group) for model in models))
    if not all(np.array_equal(queries, other) for other in others):
        raise ConfigError(f"the rows are of other queries in {shown(group)}")
    k = int(match[1]) if match and match[1] else None
    relevance = relevances(models[0])
    values = [by_query(queries, relevance, _scores(model), k) for model in models]
    return Ndcg(names, queries, [value[None, :] for value in values])


def by_query(queries: Ints, relevance: Floats, scores: Floats, k: int | None = None) -> Floats:
    """NDCG of each query, shape (queries,); 0 where no row is relevant.

    Args:
        queries: the query of each row, 0 and up, shape (n,); likewise relevance and scores.
        k: ranks beyond it do not count.
    """
    best = _gain(queries, relevance, relevance, k)
    found = _gain(queries, relevance, scores, k)
    return np.asarray(
        np.round(np.divide(found, best, out=np.zeros_like(best), where=best > 0), _DIGITS)
    )


def relevances(model: Predictions) -> Floats:
    """The labels as relevance, shape (n,).

    Raises:
        ConfigError: one is no number, or below 0.
    """
    try:
        found = model.numbers("label")
    except UsageError as error:
        raise ConfigError(f"a label is no relevance: {error}") from None
    below = np.flatnonzero(found < 0)
    if len(below):
        row = int(model.order[below[0]])
        raise ConfigError(f"the label of id {shown(model.ids[row])} is below 0, and no relevance")
    return found


def _gain(queries: Ints, relevance: Floats, scores: Floats, k: int | None) -> Floats:
    """The discounted cumulative gain of each query, shape (queries,)."""
    order = np.lexsort((-scores, queries))
    of, scores = queries[order], scores[order]
    count = int(of[-1]) + 1
    starts = np.searchsorted(of, np.arange(count))
    ranks = np.arange(len(of)) - starts[of]
    discounts = 1 / np.log2(ranks + 2.0)
    if k is not None:
        discounts[ranks >= k] = 0
    is_new = np.ones(len(of), dtype=np.bool_)
    is_new[1:] = (of[1:] != of[:-1]) | (scores[1:] != scores[:-1])
    tie = np.cumsum(is_new) - 1
    means = np.bincount(tie, weights=relevance[order]) / np.bincount(tie)
    gains = means * np.bincount(tie, weights=discounts)
    return np.asarray(np.bincount(of[is_new], weights=gains, minlength=count), np.float64)


def _queries(model: Predictions, group: str) -> Sequence[str]:
    if group not in model.columns:
        raise ConfigError(f"there is no column {shown(group)!r} that names the query")
    return model.texts(group)


def _scores(model: Predictions) -> Floats:
    if "score" not in model.columns:
        raise ConfigError("there is no column score to rank by")
    return model.numbers("score")
