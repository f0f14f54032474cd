"""Quick dataclasses are as those of the standard library."""

from __future__ import annotations

import copy
import dataclasses
import importlib
import inspect
import pickle
from dataclasses import FrozenInstanceError, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, cast

import pytest
from pydantic import TypeAdapter

import ctflow
from ctflow.lib import quick


class _Body:
    kind: ClassVar[str] = "body"
    name: str
    size: int = 3
    names: tuple[str, ...] = ()
    more: dict[str, Any] = field(default_factory=dict)
    hidden: str = field(default="h", repr=False, compare=False)
    later: str = field(default="made", init=False)
    only: str = field(default="o", kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "seen", self.name)


def _double(self: Any) -> Any:
    return self.size * 2


def _made(decorator: Any) -> Any:
    space = {key: value for key, value in vars(_Body).items() if key not in _DROPPED}
    space["__annotations__"] = dict(_Body.__annotations__)
    space["double"] = cached_property(_double)
    space["double"].__set_name__(None, "double")
    made = type("One", (), space)
    made.__qualname__ = "One"
    return decorator(frozen=True)(made)


_DROPPED = ("__dict__", "__weakref__", "__annotate_func__", "__annotate__")
Ours, Theirs = _made(quick.dataclass), _made(dataclasses.dataclass)
CALLS: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    (("a",), {}),
    (("a", 4, ("x",), {"k": 1}), {}),
    ((), {"name": "a", "only": "x", "hidden": "z"}),
]


@pytest.mark.parametrize(("given", "named"), CALLS)
def test_objects_are_the_same(given: Any, named: Any) -> None:
    ours, theirs = Ours(*given, **named), Theirs(*given, **named)
    assert vars(ours) == vars(theirs)
    assert repr(ours) == repr(theirs)
    assert dataclasses.asdict(ours) == dataclasses.asdict(theirs)
    assert vars(dataclasses.replace(ours, size=9)) == vars(dataclasses.replace(theirs, size=9))
    assert ours.double == theirs.double
    assert vars(copy.deepcopy(ours)) == vars(theirs)


@pytest.mark.parametrize(("given", "named"), [((), {}), (("a",), {"no": 1}), (("a",) * 9, {})])
def test_wrong_arguments_are_refused_in_the_same_words(given: Any, named: Any) -> None:
    with pytest.raises(TypeError) as wanted:
        Theirs(*given, **named)
    with pytest.raises(TypeError) as found:
        Ours(*given, **named)
    assert str(found.value) == str(wanted.value)


_POINT = {"__annotations__": {"x": int}, "x": 1}


def test_equality_and_hash() -> None:
    assert Ours("a") == Ours("a", hidden="other")
    assert Ours("a") != Ours("b")
    assert Ours("a") != Theirs("a")
    with pytest.raises(TypeError, match="unhashable"):  # as its dict is
        hash(Ours("a"))
    point: Any = quick.dataclass(frozen=True)(
        type("P", (), {"__annotations__": {"x": int}, "x": 1})
    )
    assert hash(point(3)) == hash(point(3))
    assert len({point(3), point(3), point(4)}) == 2


def test_it_is_frozen() -> None:
    for one in (Ours("a"), Theirs("a")):
        for name in ("name", "new"):
            with pytest.raises(FrozenInstanceError, match="cannot assign to field"):
                setattr(one, name, "b")
        with pytest.raises(FrozenInstanceError, match="cannot delete field"):
            del one.name


def test_factories_make_a_value_for_each() -> None:
    assert Ours("a").more is not Ours("a").more


def test_what_a_class_says_itself_stays() -> None:
    @quick.dataclass(frozen=True)
    class Own:
        x: int = 0

        def __repr__(self) -> str:
            return "own"

        def __eq__(self, other: object) -> bool:
            return True

        def __hash__(self) -> int:
            return 7

    assert (repr(Own()), Own(1) == Own(2), hash(Own(3))) == ("own", True, 7)


def test_a_subclass_has_the_fields_of_both() -> None:
    @quick.dataclass(frozen=True)
    class Base:
        x: int

    @quick.dataclass(frozen=True)
    class More(Base):
        y: int = 2

    assert More(1) == More(x=1, y=2)
    assert repr(Base(5)).endswith("Base(x=5)")


def test_every_quick_class_of_ctflow_has_the_signature_of_the_standard_one() -> None:
    seen = 0
    root = Path(ctflow.__file__).parent
    files = [one for one in root.rglob("*.py") if "ctflow.lib.quick" in one.read_text()]
    for file in files:
        name = ".".join(("ctflow", *file.relative_to(root).with_suffix("").parts))
        module = importlib.import_module(name.removesuffix(".__init__"))
        one: Any
        for one in vars(module).values():
            if not (inspect.isclass(one) and one.__module__ == module.__name__):
                continue
            if vars(one).get("__eq__") is not quick._eq or "__dataclass_fields__" not in vars(one):
                continue
            made: Any = quick._init(one)
            fields = [each for each in cast("Any", dataclasses.fields)(one) if each.init]
            parameters = list(inspect.signature(made).parameters.values())[1:]
            assert [field.name for field in fields] == [each.name for each in parameters], one
            for field_, each in zip(fields, parameters, strict=True):
                has = (field_.default, field_.default_factory) != (dataclasses.MISSING,) * 2
                assert has == (each.default is not inspect.Parameter.empty), one
            seen += 1
    assert seen > 20


@quick.dataclass(frozen=True)
class Pickled:
    """Pickled, and validated by pydantic."""

    x: int
    y: tuple[str, ...] = ()


def test_pickle_and_pydantic_take_them() -> None:
    assert pickle.loads(pickle.dumps(Pickled(1, ("a",)))) == Pickled(1, ("a",))  # noqa: S301
    assert TypeAdapter(Pickled).validate_python({"x": 1, "y": ["a"]}) == Pickled(1, ("a",))
