"""Objects of data classes from their stored fields.

Where the stored fields are the class's own, the object is made of them as copy and pickle do
it, without running any code of the class: no checks, no `__post_init__`. The class's own code
is asked only for what isn't stored: private attributes and excluded fields of a model, and
attributes beside a dataclass's fields; whatever it does, the stored fields then stand as they
were stored. And where the class has changed since, it is the class that says what becomes of
a name it doesn't have: by a validation alias, a "before" validator or an `__init__` that takes
it. Where it says nothing, fields that were only added get their defaults, and those that were
only taken away are dropped with a warning. Everything else is a ChangedClassError.

What LangGraph's serializer wrote of a model is a dump, so it is validated, or, where that
refuses what was once valid, taken as it is.
"""

from __future__ import annotations

import dataclasses
import dis
import inspect
import logging
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from types import FunctionType
from typing import Any, NamedTuple, TypeAlias

from pydantic import BaseModel, RootModel
from pydantic.fields import FieldInfo, ModelPrivateAttr
from pydantic_core import PydanticUndefined

from langgraph_pgsaga.errors import ChangedClassError
from langgraph_pgsaga.serde.type_rules import is_named_tuple, key_of
from langgraph_pgsaga.serde.unchanged import unchanged

_logger = logging.getLogger("langgraph_pgsaga.serde")

Fields: TypeAlias = dict[str, Any]

_set = object.__setattr__
_LONGEST_NAME = 40


class About(NamedTuple):
    """What is stored with an object's fields: which of them have no value, which of a model's
    were given rather than left to their defaults (None where all were), whether it had
    attributes beside them, and the mark of a class that is found by it."""

    unset: frozenset[str] = frozenset()
    given: frozenset[str] | None = None
    has_more: bool = False
    mark: bytes | None = None


WHOLE = About()


class Builder:
    """Makes objects of one class."""

    # The fields that are stored.
    names: frozenset[str] = frozenset()
    # Objects may have any other fields, too.
    is_open = False
    # The class says that it ignores what it doesn't know.
    ignores_unknown = False
    # The class has parts that aren't stored, which its own code makes.
    hides = False
    # The class's own code may turn old fields into new ones.
    migrates = False
    # Where objects keep the names of the fields that they were given.
    given_attribute = ""

    def __init__(self, cls: type[Any]) -> None:
        self.cls: Any = cls
        self._told: set[frozenset[str]] = set()

    def build(self, fields: Fields, about: About) -> Any:
        """The object of these fields, as they were when it was stored."""
        if fields.keys() == self.names:
            if not about.has_more and not self.hides:
                return self.raw(fields)
        else:
            if not all(type(name) is str for name in fields):
                raise self.changed("its fields aren't named by text")
            unknown = frozenset() if self.is_open else frozenset(fields.keys() - self.names)
            absent = self.names.difference(fields, about.unset)
            if unknown or absent:
                return self._of_another_time(fields, unknown, absent, about)
        return self._whole(fields, about)

    def build_given(self, fields: Fields, about: About) -> Any:
        """`build` for a model of which not all fields were given."""
        made = self.build(fields, about)
        if self.given_attribute and (self.is_open or self.names >= fields.keys()):
            _set(made, self.given_attribute, set(about.given or ()))
        return made

    def from_dump(self, fields: Fields) -> Any:
        """The object of fields that may have lost their types."""
        try:
            return self.construct(fields)
        except Exception:  # noqa: S110 - whatever it was, the fields may do as they are
            pass
        return self.build(fields, WHOLE)

    def construct(self, fields: Fields) -> Any:
        """By the class's own code, which may refuse."""
        return self.cls(**fields)

    def raw(self, fields: Fields) -> Any:
        """Of these fields, without any code of the class."""
        raise NotImplementedError

    def with_fields(self, made: Any, fields: Fields) -> Any:
        """An object that the class made, but with these fields."""
        return made

    def default(self, name: str, fields: Fields) -> Any:
        """The field's default; PydanticUndefined where it has none."""
        return PydanticUndefined

    def takes(self, unknown: frozenset[str]) -> bool:
        """Whether the class's own code knows what to do with these names."""
        return self.migrates

    def _whole(self, fields: Fields, about: About) -> Any:
        if about.has_more or self.hides:
            try:
                return self._made_and_filled(fields)
            except Exception:  # noqa: S110 - a check that is new: the fields stand all the same
                pass
        return self.raw(fields)

    def _of_another_time(
        self, fields: Fields, unknown: frozenset[str], absent: frozenset[str], about: About
    ) -> Any:
        known = {name: value for name, value in fields.items() if name not in unknown}
        added = {name: self.default(name, known) for name in sorted(absent)}
        lacking = [name for name, value in added.items() if value is PydanticUndefined]
        takes = bool(unknown) and self.takes(unknown)
        is_renamed = bool(unknown and absent) and not self.ignores_unknown
        if lacking or is_renamed or takes:
            made = self._migrated(fields, takes=takes) if takes or not is_renamed else None
            if made is None:
                raise self.changed(self._difference(unknown, lacking or absent))
            return made
        if unknown and not self.ignores_unknown:
            self._tell_of(unknown)
        return self._whole(known | added, about)

    def _migrated(self, fields: Fields, *, takes: bool) -> Any:
        if takes or self.migrates:
            with suppress(Exception):
                return self.construct(fields)
            return None
        with suppress(Exception):
            return self._made_and_filled(fields)
        return None

    def _made_and_filled(self, fields: Fields) -> Any:
        """Made by the class's own code, but the fields are as they were stored."""
        with unchanged(fields):
            made = self.construct(fields)
        return self.with_fields(made, fields)

    def changed(self, problem: str) -> ChangedClassError:
        """The error for an object of the class that can't be built."""
        module, name = key_of(self.cls)
        return ChangedClassError(module=module, name=name, problem=problem)

    def _difference(self, unknown: frozenset[str], absent: Iterable[str]) -> str:
        new = _listed(absent)
        if not unknown:
            return f"the class needs {new}, which wasn't stored. Give it a default"
        advice = "accept the old name in the class (a validation alias, or __init__)"
        if not absent:
            return f"it was stored with {_listed(unknown)}. If that was renamed, {advice}"
        return (
            f"it was stored with {_listed(unknown)}, which the class lacks, and without {new}. "
            f"If that is a new name, {advice}; else keep the old field, too"
        )

    def _tell_of(self, dropped: frozenset[str]) -> None:
        if dropped not in self._told and len(self._told) < 100:
            self._told.add(dropped)
            _logger.warning(
                "%s.%s has changed since values of it were stored: %s is left out when they "
                "are loaded, and gone once they are stored again (earlier checkpoints keep it)",
                *key_of(self.cls),
                _listed(dropped),
            )


def _listed(names: Iterable[str]) -> str:
    """Names of fields for people; others than names aren't shown."""
    shown = sorted(n for n in names if n.isidentifier() and len(n) <= _LONGEST_NAME)
    return ", ".join(map(repr, shown[:5])) + (", ..." if len(shown) > 5 else "") or "other fields"


class _CallBuilder(Builder):
    """Of a class that is known, or was allowed, and no data class."""

    def build(self, fields: Fields, about: About) -> Any:
        return self.cls(**fields)

    from_dump = Builder.construct


class _ModelBuilder(Builder):
    given_attribute = "__pydantic_fields_set__"

    def __init__(self, cls: type[BaseModel]) -> None:
        super().__init__(cls)
        self._fields: Mapping[str, FieldInfo] = cls.model_fields
        self._excluded = [n for n, field in self._fields.items() if field.exclude is True]
        self.names = frozenset(self._fields).difference(self._excluded)
        self.is_open = cls.model_config.get("extra") == "allow"
        self.ignores_unknown = cls.model_config.get("extra") == "ignore"
        self._private = cls.__private_attributes__
        self.hides = bool(self._private or self._excluded)
        self.migrates = _has_before_validators(cls)
        self._aliases = _aliases(self._fields.values())
        self._given = {name: _given_name(name, field) for name, field in self._fields.items()}
        self._own_init = bool(getattr(cls, "__pydantic_custom_init__", False))

    def construct(self, fields: Fields) -> Any:
        if not self._own_init:
            by_alias = not fields.keys() <= self._fields.keys()
            return self.cls.model_validate(fields, by_name=True, by_alias=by_alias)
        # An __init__ of its own knows the names by which fields are given, and no others.
        return self.cls(**{self._given.get(name, name): fields[name] for name in fields})

    def from_dump(self, fields: Fields) -> Any:
        known = fields
        if not self.is_open:
            # Computed fields of the dump, or fields the class no longer has.
            names = self._aliases.union(self._fields)
            known = {name: value for name, value in fields.items() if name in names}
        try:
            return self.construct(known)
        except Exception:  # noqa: S110 - what was once valid
            pass
        lacking = [n for n in self.names.difference(known) if self._fields[n].is_required()]
        if lacking and self._aliases.isdisjoint(known):
            raise self.changed(self._difference(frozenset(), lacking))
        return self.cls.model_construct(**known)

    def raw(self, fields: Fields) -> Any:
        made = self.cls.__new__(self.cls)
        extra: Fields | None = None
        if self.is_open:
            extra = {}
            if fields.keys() != self.names:
                extra = {name: fields[name] for name in fields if name not in self.names}
                fields = {name: fields[name] for name in fields if name in self.names}
        _set(made, "__pydantic_fields_set__", {*fields, *extra} if extra else set(fields))
        _set(made, "__dict__", fields)
        self._set_rest(made, extra)
        if self._excluded:
            fields.update(self._defaults(fields))
        return made

    def _set_rest(self, made: Any, extra: Fields | None) -> None:
        _set(made, "__pydantic_extra__", extra)
        values: Fields = {}
        for name, private in self._private.items():
            value = _private_default(private, {**made.__dict__, **values})
            if value is not PydanticUndefined:
                values[name] = value
        _set(made, "__pydantic_private__", values if self._private else None)

    def _defaults(self, fields: Fields) -> Fields:
        found = {name: self.default(name, fields) for name in self._excluded}
        return {name: value for name, value in found.items() if value is not PydanticUndefined}

    def with_fields(self, made: Any, fields: Fields) -> Any:
        extra = made.__pydantic_extra__
        for name, value in fields.items():
            (made.__dict__ if name in self.names or extra is None else extra)[name] = value
        return made

    def default(self, name: str, fields: Fields) -> Any:
        field = self._fields[name]
        return field.get_default(call_default_factory=True, validated_data=fields)

    def takes(self, unknown: frozenset[str]) -> bool:
        return self.migrates or not self._aliases.isdisjoint(unknown)


class _RootModelBuilder(_ModelBuilder):
    def from_dump(self, fields: Fields) -> Any:
        # A dumped root model is its root.
        return super().from_dump({"root": fields})

    def _set_rest(self, made: Any, extra: Fields | None) -> None:
        """It has neither extra fields nor private attributes."""


class _OldModelBuilder(Builder):
    """Of a model of pydantic's first version."""

    given_attribute = "__fields_set__"

    def __init__(self, cls: type[Any]) -> None:
        super().__init__(cls)
        self._fields: Mapping[str, Any] = cls.__fields__
        self.names = frozenset(self._fields)
        self.is_open = getattr(cls.__config__.extra, "value", None) == "allow"
        self.hides = bool(cls.__private_attributes__)
        self.migrates = bool(cls.__pre_root_validators__)
        self._aliases = frozenset(field.alias for field in self._fields.values())

    def raw(self, fields: Fields) -> Any:
        made = self.cls.__new__(self.cls)
        _set(made, "__dict__", fields)
        _set(made, "__fields_set__", set(fields))
        made._init_private_attributes()
        return made

    def with_fields(self, made: Any, fields: Fields) -> Any:
        made.__dict__.update(fields)
        return made

    def default(self, name: str, fields: Fields) -> Any:
        field = self._fields[name]
        return PydanticUndefined if field.required else field.get_default()

    def takes(self, unknown: frozenset[str]) -> bool:
        return self.migrates or not self._aliases.isdisjoint(unknown)


class _DataclassBuilder(Builder):
    def __init__(self, cls: type[Any]) -> None:
        super().__init__(cls)
        self._fields = {field.name: field for field in dataclasses.fields(cls)}
        self.names = frozenset(self._fields)
        self._late = frozenset(name for name, field in self._fields.items() if not field.init)
        self._in_dict = keeps_in_dict(cls, self._fields)
        self.hides = _sets_more(cls, self.names)
        config: Mapping[str, Any] = getattr(cls, "__pydantic_config__", None) or {}
        self.is_open = config.get("extra") == "allow"
        self.ignores_unknown = config.get("extra") == "ignore"
        self.migrates = _has_before_validators(cls)
        self._aliases = _aliases(getattr(cls, "__pydantic_fields__", {}).values())
        self._takes_any = _takes_any(cls)

    def construct(self, fields: Fields) -> Any:
        made = self.cls(**{n: value for n, value in fields.items() if n not in self._late})
        return self._set_fields(made, {n: fields[n] for n in self._late.intersection(fields)})

    def raw(self, fields: Fields) -> Any:
        made = self._empty()
        if self._in_dict:
            made.__dict__.update(fields)
            return made
        return self._set_fields(made, fields)

    def _empty(self) -> Any:
        try:
            return object.__new__(self.cls)
        except TypeError:  # it has a built-in type's objects
            return self.cls.__new__(self.cls)

    def with_fields(self, made: Any, fields: Fields) -> Any:
        return self._set_fields(made, fields)

    def _set_fields(self, made: Any, fields: Fields) -> Any:
        for name, value in fields.items():
            # Frozen classes allow no other way.
            _set(made, name, value)
        return made

    def default(self, name: str, fields: Fields) -> Any:
        field = self._fields[name]
        if field.default is not dataclasses.MISSING:
            value = field.default
            return value.get_default(call_default_factory=True) if _is_info(value) else value
        factory = field.default_factory
        return PydanticUndefined if factory is dataclasses.MISSING else factory()

    def takes(self, unknown: frozenset[str]) -> bool:
        return self.migrates or self._takes_any or not self._aliases.isdisjoint(unknown)


class _NamedTupleBuilder(Builder):
    def __init__(self, cls: type[Any]) -> None:
        super().__init__(cls)
        self._order: tuple[str, ...] = cls._fields
        self._defaults: Mapping[str, Any] = getattr(cls, "_field_defaults", {})
        self.names = frozenset(self._order)

    def raw(self, fields: Fields) -> Any:
        return tuple.__new__(self.cls, [fields[name] for name in self._order])

    def default(self, name: str, fields: Fields) -> Any:
        return self._defaults.get(name, PydanticUndefined)


def _private_default(private: ModelPrivateAttr, values: Fields) -> Any:
    factory: Any = private.default_factory
    if factory is None:
        return private.get_default()
    takes_values = getattr(private, "default_factory_takes_validated_data", False)
    return factory(values) if takes_values else factory()


def _is_info(value: object) -> bool:
    return isinstance(value, FieldInfo)


def keeps_in_dict(cls: Any, names: Iterable[str]) -> bool:
    """Whether objects keep these attributes in their `__dict__`: no slots, no descriptors."""
    if cls.__getattribute__ is not object.__getattribute__:
        return False
    kinds = (type(inspect.getattr_static(cls, name, None)) for name in names)
    return not any(hasattr(kind, "__set__") for kind in kinds)


def _sets_more(cls: type, names: Collection[str]) -> bool:
    """Whether a `__post_init__` sets attributes beside the fields, as far as its code shows.

    Objects that were stored before the class had it say nothing of such attributes.
    """
    found = (vars(base).get("__post_init__") for base in cls.__mro__)
    return any(
        name not in names
        for method in found
        if inspect.isfunction(method)
        for name in _set_in(method)
    )


def _set_in(method: FunctionType) -> Iterator[str]:
    """The attributes that a method sets, whatever of."""
    is_named_next = False
    for instruction in dis.get_instructions(method):
        if instruction.opname == "STORE_ATTR":
            yield instruction.argval
        elif instruction.argval == "__setattr__":  # object's, as frozen classes need it
            is_named_next = True
        elif is_named_next and type(instruction.argval) is str and "CONST" in instruction.opname:
            yield instruction.argval
            is_named_next = False


def _has_before_validators(cls: type) -> bool:
    found = getattr(getattr(cls, "__pydantic_decorators__", None), "model_validators", {})
    return any(validator.info.mode in ("before", "wrap") for validator in found.values())


def _takes_any(cls: Any) -> bool:
    """Whether its `__init__` takes any name; pydantic's own takes some, and drops the others."""
    if hasattr(cls, "__pydantic_validator__"):
        return False
    try:
        parameters = inspect.signature(cls.__init__).parameters.values()
    except (TypeError, ValueError):
        return False
    return any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)


def _given_name(name: str, field: FieldInfo) -> str:
    """The name by which a field is given to `__init__`."""
    given = getattr(field.validation_alias, "choices", [field.validation_alias])[0]
    return given if isinstance(given, str) else field.alias or name


def _aliases(fields: Iterable[FieldInfo]) -> frozenset[str]:
    """The other names by which the fields may be given or dumped."""
    found: set[str] = set()
    for field in fields:
        given = field.validation_alias
        choices = getattr(given, "choices", None) or [given]
        for alias in (field.alias, field.serialization_alias, *choices):
            first = getattr(alias, "path", [alias])[0]  # an AliasPath
            if isinstance(first, str):
                found.add(first)
    return frozenset(found)


def _builder(cls: type[Any]) -> Builder:
    if issubclass(cls, RootModel):
        return _RootModelBuilder(cls)
    if issubclass(cls, BaseModel):
        return _ModelBuilder(cls)
    if dataclasses.is_dataclass(cls):
        return _DataclassBuilder(cls)
    if is_named_tuple(cls):
        return _NamedTupleBuilder(cls)
    if hasattr(cls, "__fields__") and hasattr(cls, "construct"):
        return _OldModelBuilder(cls)
    return _CallBuilder(cls)


_BUILDERS: dict[type, Builder] = {}
_MOST_CLASSES = 2000


def met_builder(cls: type[Any]) -> Builder | None:
    """What `builder_of` gave for the class before, if anything."""
    return _BUILDERS.get(cls)


def builder_of(cls: type[Any]) -> Builder:
    """How objects of the class are made; says nothing on whether they may be."""
    found = _BUILDERS.get(cls)
    if found is None:
        if len(_BUILDERS) >= _MOST_CLASSES:  # of functions that make classes
            _BUILDERS.clear()
        found = _BUILDERS[cls] = _builder(cls)
    return found
