"""Secret values, kept out of whatever ctflow prints, logs or records: one masker for all ways out.

A value is known here once something was trusted with it: a build secret, a step's secret, a
registry's password, or a variable of the caller whose name says that it is one.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass, replace
from typing import Any, TextIO, TypeVar

T = TypeVar("T")

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
    """What to look for, the longest first: each value and each of its lines, however written.

    A secret of several lines is often printed in part, and a shell drops its last newline.
    """
    found: set[str] = set()
    for value in values:
        for one in {value.strip(), *(line.strip() for line in value.splitlines())}:
            if len(one) >= LEAST:
                found |= {one, *_written(one)}
    return tuple(sorted(found, key=len, reverse=True))


def _written(value: str) -> Iterator[str]:
    """A value as JSON and Python write it: what was quoted first shows no quote or ``ä``."""
    yield json.dumps(value)[1:-1]
    yield json.dumps(value, ensure_ascii=False)[1:-1]
    yield repr(value)[1:-1]


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

    def masked(self, data: T) -> T:
        """Data with each of its texts masked: in lists, in mappings' values, in dataclasses.

        To be called before data is written in a format of its own (YAML, markdown), which may
        break a secret's text with escapes, quotes and new lines.
        """
        given: Any = data
        return self._masked(given)  # type: ignore[no-any-return]

    def _masked(self, data: Any) -> Any:
        if isinstance(data, str):
            return self.mask(data)
        if isinstance(data, Mapping):
            return {key: self._masked(value) for key, value in data.items()}
        if type(data) is list:
            return [self._masked(one) for one in data]
        if type(data) is tuple:
            return tuple(self._masked(one) for one in data)
        if is_dataclass(data) and not isinstance(data, type):
            names = (field.name for field in fields(data) if field.init)
            return replace(data, **{name: self._masked(getattr(data, name)) for name in names})
        return data


#: What this process knows.
KNOWN = Masker()


class MaskedStream:
    """A text stream that masks what is written to it, line by line.

    The beginning of a line is held back until its end, or until somebody wants to see it
    (``flush``): what is written in parts is masked whole. ``buffer`` is the stream's own: bytes
    are for who writes them to mask.
    """

    def __init__(self, stream: TextIO, masker: Masker) -> None:
        self._stream, self._masker = stream, masker
        self._held = ""
        self._lock = threading.RLock()  # a signal's handler may write while a write is interrupted

    def write(self, text: str) -> int:
        """Write, masked, up to the last end of a line."""
        with self._lock:
            whole = self._held + text
            end = max(whole.rfind("\n"), whole.rfind("\r")) + 1
            self._held = whole[end:]
            if end:
                self._stream.write(self._masker.mask(whole[:end]))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write each, masked."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Write what is held back too, and flush the stream."""
        with self._lock:
            self._let_go()
            self._stream.flush()

    def close(self) -> None:
        """Write what is held back. The stream stays open, and its reader may be gone."""
        with self._lock, suppress(OSError, ValueError):
            self._let_go()

    def _let_go(self) -> None:
        held, self._held = self._held, ""
        if held:
            self._stream.write(self._masker.mask(held))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
