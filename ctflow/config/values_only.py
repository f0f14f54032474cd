"""Sections of ``ctflow.yaml`` that were checked before: their values, without the models.

A ``ValuesOnly`` stands for a section's model and gives the same values. Whatever else it is asked
for (a method, a property, ``model_copy``), it makes the model and asks that; only then is pydantic
imported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from ctflow.config.section import Section


class ValuesOnly:
    """A section as its values. Its own names start with ``_``, for a key may be called ``model``.

    Args:
        name: the model's class.
        said: the keys that were set, and are not defaults.
        values: all values by key, sections in it as ``ValuesOnly``.
        dump: what ``model_dump(mode="json")`` returns, where it is known.
    """

    __slots__ = ("__dict__", "_dump", "_made", "_name", "_said")

    def __init__(
        self,
        name: str,
        said: frozenset[str],
        values: dict[str, Any],
        dump: dict[str, Any] | None = None,
    ) -> None:
        put = object.__setattr__
        put(self, "_name", name)
        put(self, "_said", said)
        put(self, "_made", None)
        put(self, "_dump", dump)
        self.__dict__.update(values)

    if TYPE_CHECKING:
        _name: str
        _said: frozenset[str]
        _made: Section | None
        _dump: dict[str, Any] | None

    def _model(self) -> Section:
        """The model with these values. They were checked: they are not checked again."""
        if self._made is None:
            from ctflow.config import project
            from ctflow.config.section import Section

            known = {one.__name__: one for one in Section.__subclasses__()}
            assert project.Project.__name__ in known  # noqa: S101 (importing it defined them all)
            values = {key: _modelled(value) for key, value in vars(self).items()}
            made = known[self._name].model_construct(set(self._said), **values)
            object.__setattr__(self, "_made", made)
        assert self._made is not None  # noqa: S101
        return self._made

    def model_dump(self, **how: Any) -> dict[str, Any]:
        """As the model's."""
        if how == {"mode": "json"} and self._dump is not None:
            return {**self._dump}
        return self._model().model_dump(**how)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what Python asks of any object: it has its own
            raise AttributeError(name)
        return getattr(self._model(), name)

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        setattr(self._model(), name, value)  # refuses: it is frozen
        raise AssertionError(name)

    def __delattr__(self, name: str) -> NoReturn:
        delattr(self._model(), name)
        raise AssertionError(name)

    def __eq__(self, other: object) -> bool:
        return self._model() == (other._model() if isinstance(other, ValuesOnly) else other)

    def __hash__(self) -> int:
        return hash(self._model())

    def __repr__(self) -> str:
        return repr(self._model())

    def __copy__(self) -> ValuesOnly:
        return self

    def __deepcopy__(self, memo: Any) -> Any:
        return self._model().__deepcopy__(memo)

    def __reduce__(self) -> tuple[Any, ...]:
        return _same, (self._model(),)


def _same(model: Any) -> Any:
    return model


def _modelled(value: Any) -> Any:
    if isinstance(value, ValuesOnly):
        return value._model()
    if isinstance(value, (tuple, list)):
        return type(value)(_modelled(one) for one in value)
    if isinstance(value, dict):
        return {key: _modelled(one) for key, one in value.items()}
    return value


def encoded(value: Any) -> Any:
    """A model, or a value of one, as JSON data that ``decoded`` turns back.

    Raises:
        TypeError: it holds something that JSON has no exact form for.
    """
    if value is None or type(value) in (str, int, float, bool):
        return value
    if type(value) is tuple:
        return {"tuple": [encoded(one) for one in value]}
    if type(value) is list:
        return [encoded(one) for one in value]
    if type(value) is dict:
        if any(type(key) is not str for key in value):
            raise TypeError("a key that is not text")
        return {"dict": {key: encoded(one) for key, one in value.items()}}
    from ctflow.config.section import Section

    if not isinstance(value, Section):
        raise TypeError(f"no plain value: {value!r}")
    values = {key: encoded(one) for key, one in vars(value).items()}
    return {"section": [type(value).__name__, sorted(value.model_fields_set), values]}


def decoded(data: Any, dump: dict[str, Any] | None = None) -> Any:
    """What ``encoded`` made JSON of; sections as ``ValuesOnly``, the outermost with its ``dump``.

    Raises:
        ValueError, LookupError, TypeError: it is not of that form.
    """
    if isinstance(data, list):
        return [decoded(one) for one in data]
    if not isinstance(data, dict):
        return data
    ((kind, inside),) = data.items()
    if kind == "tuple":
        return tuple(decoded(one) for one in inside)
    if kind == "dict":
        return {key: decoded(one) for key, one in inside.items()}
    if kind != "section":
        raise ValueError(kind)
    name, said, values = inside
    inner = {key: decoded(one) for key, one in values.items()}
    return ValuesOnly(name, frozenset(said), inner, dump)
