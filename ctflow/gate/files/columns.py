"""Columns of a model's training data: what kind of values they hold, and the values for a drift.

What is missing is an empty text, or a number that is NaN. A column is of numbers where every other
value is one. Infinite numbers are held as the largest ones that there are.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from ctflow.gate.files.texts import PART, Floats, Numbers, Texts

NUMBER, TEXT, EMPTY, OTHER = "number", "text", "empty", "other"
#: A text that is longer is known by its beginning and its digest.
MAX_CATEGORY = 100
#: So many different texts are counted exactly; of more, the common ones nearly so.
MAX_COUNTED = 20_000
_LARGEST = np.finfo(np.float64).max


@dataclass(frozen=True, eq=False)
class DataColumn:
    """A column of training data.

    Attributes:
        kind: ``number``, ``text``, ``empty`` (all is missing) or ``other`` (lists, objects).
        missing: how many of the rows have no value.
        numbers: in rising order, where they are numbers, shape (rows - missing,).
        counts: how often each text is there, where they are texts.
        example: one of the texts.
    """

    kind: str
    rows: int
    missing: int = 0
    numbers: Floats = field(default_factory=lambda: np.zeros(0))
    counts: Mapping[str, int] = field(default_factory=dict)
    example: str = ""


def column_of_texts(values: Sequence[str], as_text: bool = False) -> DataColumn:
    """The column of these values, as a CSV has them; ``as_text``: its type says that it is text."""
    if not as_text:
        numbers = _numbers(values)
        if numbers is not None:
            known = numbers[~np.isnan(numbers)]
            known.sort()
            missing = len(numbers) - len(known)
            kind = NUMBER if len(known) else EMPTY
            return DataColumn(kind, len(numbers), missing, known)
    if isinstance(values, Texts):
        often = np.bincount(values.codes, minlength=len(values.distinct)).tolist()
        tally = Tally()
        tally.add(dict(zip(values.distinct, often, strict=True)))
    else:
        tally = Tally()
        for part in _parts(values):
            tally.add(Counter(part))
    kind = TEXT if tally.missing < len(values) else EMPTY
    return DataColumn(kind, len(values), tally.missing, counts=tally.counts, example=tally.example)


class Tally:
    """Counts of texts in bounded memory.

    Beyond ``MAX_COUNTED`` different ones the count of each is short by n / MAX_COUNTED at most
    (Misra and Gries, Science of Computer Programming 2, 1982; merged as by Agarwal and others, PODS
    2012): the rare ones go.
    """

    def __init__(self) -> None:
        self.missing = 0
        self.counts: dict[str, int] = {}
        #: One of the texts that are no numbers, if there is one.
        self.example = ""

    def add(self, counts: Mapping[str, int]) -> None:
        """Count more texts, those that are blank as missing."""
        mine = self.counts
        for text, count in counts.items():
            if text.strip():
                if not self.example and parsed([text]) is None:
                    self.example = category(text)
                name = category(text)
                mine[name] = mine.get(name, 0) + count
            else:
                self.missing += count
        if len(mine) > 2 * MAX_COUNTED:
            level = sorted(mine.values(), reverse=True)[MAX_COUNTED]
            self.counts = {name: count - level for name, count in mine.items() if count > level}


def category(text: str) -> str:
    """A text as it is counted: itself, or where it is long or no Unicode, what stands for it."""
    if len(text) <= MAX_CATEGORY and text.isprintable():
        return text
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    start = "".join(c if c.isprintable() else " " for c in text[:40])
    return f"{start}... sha256:{digest[:24]}"


class Kind:
    """What kind a column is, found part by part; its values are not held."""

    def __init__(self) -> None:
        self.kind = EMPTY

    def add(self, values: Sequence[str] | Floats) -> None:
        """Look at a part: texts, or numbers."""
        if self.kind in (TEXT, OTHER):
            return
        numbers = values if isinstance(values, np.ndarray) else parsed(values)
        if numbers is None:
            self.kind = TEXT
        elif not np.isnan(numbers).all():
            self.kind = NUMBER


def _numbers(values: Sequence[str]) -> Floats | None:
    """Shape (n,), NaN where a value is missing; None if some value is no number."""
    if isinstance(values, Numbers):
        return values.values
    if isinstance(values, Texts):
        numbers = parsed(values.distinct)
        return None if numbers is None else numbers[values.codes]
    found = []
    for part in _parts(values):
        numbers = parsed(part)
        if numbers is None:
            return None
        found.append(numbers)
    return np.concatenate(found) if found else np.zeros(0)


def parsed(texts: Sequence[str]) -> Floats | None:
    """Texts as numbers, shape (n,), NaN where they are blank; None if one is neither."""
    try:
        numbers = np.fromiter(map(float, texts), np.float64, len(texts))
    except ValueError:
        try:
            known = (float(text) if text.strip() else np.nan for text in texts)
            numbers = np.fromiter(known, np.float64, len(texts))
        except ValueError:
            return None
    # To Python 1_000 is a number. To others it is not.
    if "_" in "".join(texts):
        return None
    return np.clip(numbers, -_LARGEST, _LARGEST)


def _parts(values: Iterable[str]) -> Iterable[list[str]]:
    rest = iter(values)
    while part := list(islice(rest, PART)):
        yield part
