"""What hooks return, checked field by field: a stranger's plugin knows of no type checker."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin, get_type_hints

WORDS = {str: "a string", bool: "True or False", int: "a whole number"}


def check(record: Any, wanted: type, kind: str) -> None:
    """Refuse what is no record of that kind, or holds in some field what the field is not for.

    Raises:
        TypeError: naming the record and the field.
    """
    name = getattr(record, "name", None)
    if not (isinstance(record, wanted) and isinstance(name, str) and name.strip()):
        raise TypeError(f"adbench_{kind}s gave {record!r}, not a named {wanted.__name__}")
    for field, hint in get_type_hints(wanted).items():
        value = getattr(record, field)
        if not fits(value, hint):
            raise TypeError(f"{kind} {name!r} has {field}={value!r}; it must be {described(hint)}")


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is of a type as records have them: plain, Literal, ``tuple[X, ...]`` or ``Mapping[X, Y]``."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Literal:
        return value in parts
    if origin is tuple:
        return isinstance(value, tuple | list) and all(fits(each, parts[0]) for each in value)
    if origin is Mapping:
        return isinstance(value, Mapping) and all(
            fits(key, parts[0]) and fits(each, parts[1]) for key, each in value.items()
        )
    return isinstance(value, hint) and not (hint is int and isinstance(value, bool))


def described(hint: Any) -> str:
    """A type in words."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Literal:
        return " or ".join(map(repr, parts))
    if origin is tuple:
        return f"a tuple or a list, and each part {described(parts[0])}"
    if origin is Mapping:
        return f"a mapping, each key {described(parts[0])} and each value {described(parts[1])}"
    return WORDS.get(hint, getattr(hint, "__name__", str(hint)))
