"""Frozen dataclasses that are made quickly.

The standard library compiles six methods for each class, half a millisecond or so, whether they
are called or not; a command imports dozens of classes, and makes objects of a few. Here
``__init__`` is compiled when the first object is made, and the other methods are the same functions
for all classes. What one sees is the same: ``fields``, ``asdict``, ``replace``, equality, hash,
``repr`` and FrozenInstanceError.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

__all__ = ["dataclass"]


def _init(cls: Any) -> Any:
    """The ``__init__`` that the fields ask for."""
    space: dict[str, Any] = {"_set": object.__setattr__, "_unset": _UNSET}
    plain: list[str] = []
    named: list[str] = []
    body: list[str] = []
    for field in dataclasses.fields(cls):
        name, value = field.name, field.name
        parameter = f"{name}: _t_{name}"
        space[f"_t_{name}"] = field.type
        if field.default is not dataclasses.MISSING:
            space[f"_d_{name}"] = field.default
            parameter += f" = _d_{name}"
            if not field.init:
                continue  # the class has it
        elif field.default_factory is not dataclasses.MISSING:
            space[f"_f_{name}"] = field.default_factory
            parameter += " = _unset"
            value = f"_f_{name}() if {name} is _unset else {name}" if field.init else f"_f_{name}()"
        elif not field.init:
            continue
        if field.init:
            (named if field.kw_only else plain).append(parameter)
        body.append(f"_set(_self, {name!r}, {value})")
    if hasattr(cls, "__post_init__"):
        body.append("_self.__post_init__()")
    parameters = ", ".join(["_self", *plain, *(["*", *named] if named else [])])
    lines = "".join(f"\n  {line}" for line in body or ["pass"])
    exec(f"def __init__({parameters}) -> None:{lines}", space)  # noqa: S102 (as dataclasses does)
    made = space["__init__"]
    made.__qualname__ = f"{cls.__qualname__}.__init__"
    return made


class _Unset:
    def __repr__(self) -> str:
        return "<factory>"


_UNSET = _Unset()


def _first_init(cls: Any) -> Any:
    def __init__(self: Any, *args: Any, **named: Any) -> None:  # noqa: N807
        cls.__init__ = _init(cls)
        cls.__init__(self, *args, **named)

    return __init__


def _values(self: Any, used: str) -> tuple[Any, ...]:
    found = dataclasses.fields(self)
    return tuple(getattr(self, one.name) for one in found if getattr(one, used))


def _repr(self: Any) -> str:
    shown = (f"{one.name}={getattr(self, one.name)!r}" for one in dataclasses.fields(self)
             if one.repr)  # fmt: skip
    return f"{type(self).__qualname__}({', '.join(shown)})"


def _eq(self: Any, other: object) -> Any:
    if type(other) is not type(self):
        return NotImplemented
    return _values(self, "compare") == _values(other, "compare")


def _hash(self: Any) -> int:
    return hash(_values(self, "compare"))


def _refuse_set(self: Any, name: str, value: Any) -> None:
    _check(self, name, "assign to")
    object.__setattr__(self, name, value)


def _refuse_delete(self: Any, name: str) -> None:
    _check(self, name, "delete")
    object.__delattr__(self, name)


def _check(self: Any, name: str, verb: str) -> None:
    if "__dataclass_fields__" in vars(type(self)) or name in self.__dataclass_fields__:
        raise dataclasses.FrozenInstanceError(f"cannot {verb} field {name!r}")


_SHARED = {"__repr__": _repr, "__eq__": _eq, "__setattr__": _refuse_set,
           "__delattr__": _refuse_delete}  # fmt: skip


def _quick(cls: Any) -> Any:
    own = vars(cls)
    is_hashed = "__hash__" in own and not (own["__hash__"] is None and "__eq__" in own)
    cls = dataclasses.dataclass(init=False, repr=False, eq=False)(cls)
    for name, method in _SHARED.items():
        if name not in own:
            setattr(cls, name, method)
    if not is_hashed:
        cls.__hash__ = _hash
    if "__init__" not in own:
        cls.__init__ = _first_init(cls)
    return cls


if TYPE_CHECKING:
    from dataclasses import dataclass
else:

    def dataclass(cls: Any = None, **how: Any) -> Any:
        """``dataclasses.dataclass``; quick where it is asked for ``frozen=True`` and no more."""
        if cls is None and how == {"frozen": True}:
            return _quick
        return dataclasses.dataclass(cls, **how)
