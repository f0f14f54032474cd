"""Secret values, kept out of whatever ctflow prints, logs or records: one masker for all ways out.

A value is known here once something was trusted with it: a build secret, a step's secret, a
registry's password, or a variable of the caller whose name says that it is one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, TextIO

#: A shorter value would be found in ordinary text everywhere: who names one as a secret is told.
LEAST = 4
#: The same for values that are only taken for secrets by their variable's name.
_GUESSED = 8
_SHOWN = "***"
_NAMES = re.compile(
    r"TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY|CREDENTIAL", re.IGNORECASE
)
#: Who logs in, in a URL. The name `git` alone is what every SSH remote has.
_LOGIN = re.compile(r"(?<=://)(?!git@)[^/@\s]+(?=@)")


def pieces(values: Iterable[str]) -> tuple[str, ...]:
    """What to look for, the longest first: each value, and each of its lines.

    A secret of several lines is often printed in part, and a shell drops its last newline.
    """
    found: set[str] = set()
    for value in values:
        found |= {value.strip(), *(line.strip() for line in value.splitlines())}
    return tuple(sorted((one for one in found if len(one) >= LEAST), key=len, reverse=True))


class Masker:
    """Replaces what it knows by ``***``."""

    def __init__(self) -> None:
        self._values: set[str] = set()
        self._pieces: tuple[str, ...] = ()

    def add(self, *values: str) -> None:
        """Know these from now on; values shorter than ``LEAST`` are not looked for."""
        fresh = {value for value in values if value} - self._values
        if fresh:
            self._values |= fresh
            self._pieces = pieces(self._values)

    def learn(self, environ: Mapping[str, str]) -> None:
        """Know the variables whose names say that they hold a secret, but for paths."""
        self.add(*(
            value
            for name, value in environ.items()
            if _NAMES.search(name) and len(value) >= _GUESSED and not value.startswith("/")
        ))  # fmt: skip

    def mask(self, text: str) -> str:
        """``text`` without secrets, and without logins in URLs."""
        for piece in self._pieces:
            if piece in text:
                text = text.replace(piece, _SHOWN)
        return _LOGIN.sub(_SHOWN, text) if "://" in text else text


#: What this process knows.
KNOWN = Masker()


class MaskedStream:
    """A text stream that masks what is written to it."""

    def __init__(self, stream: TextIO, masker: Masker) -> None:
        self._stream, self._masker = stream, masker

    def write(self, text: str) -> int:
        """Write, masked."""
        self._stream.write(self._masker.mask(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write each, masked."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
