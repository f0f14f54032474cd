"""Functions of the project, which the gate asks about predictions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

from ctflow.model import Run
from ctflow.ports.events import Watch

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Rows = npt.NDArray[np.int64]

#: A predictions file, row by row in id order: texts, or numbers where a whole column is.
Columns = Mapping[str, "Sequence[float] | Sequence[str]"]


class Calls(Protocol):
    """Asks functions of the project, in the step's environment that a run used."""

    def __call__(
        self, function: str, timeout: float, columns: Columns, draws: Sequence[Rows]
    ) -> list[float]:
        """What a function makes of some rows of ``columns``: one number for each of ``draws``.

        Nothing is started before the first call. The same ``columns`` (the object) are handed over
        once.

        Args:
            function: ``path/of/file.py:name``, the file relative to the project.
            timeout: seconds that the function has for all calls together.
            draws: the rows of each sample, which may be there several times; shape (rows,).

        Raises:
            ConfigError: there is no such function in a step of the run, it fails, or gives no
                number; a number that is NaN or infinite is one.
            StateError: the step is not here any more as the run used it.
            OutsideError: no process can be started.
        """
        ...


class Functions(Protocol):
    """The functions that one run is judged by, and what they are asked in."""

    @property
    def used(self) -> Mapping[str, str]:
        """The functions that were asked -> the digest of the step's image that they are of."""
        ...

    def of(self, output: str) -> Calls:
        """Asks functions about the predictions at ``task.output``."""
        ...


#: The functions of a run, whose processes end with the context.
OpenFunctions = Callable[[Run, Watch], AbstractContextManager[Functions]]
