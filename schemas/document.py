"""Documents as dataclasses: read with every fault and its place, and a JSON Schema from the same types.

A reader that stops at the first fault makes a clerk try ten times. This one puts a blank where a value is faulty and goes
on, so that what depends on other parts of the document is still checked.
"""

import dataclasses
import datetime as dt
import functools
import re
import types
from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

PRICE_DIGITS_MAX = 12
ITEMS_MAX = 10_000
TEXT_CHARS_MAX = 4_000
NUMBER_PATTERN = r"^-?\d{1,15}(\.\d{1,12})?$"
_NUMBER = re.compile(NUMBER_PATTERN)


@dataclasses.dataclass(frozen=True, eq=False)
class Scalar:
    """A value written as one scalar: how it is read, what is expected, what stands for a faulty one, its schema."""

    parse: Callable[[Any], Any]
    """Returns the value or None."""
    expected: str
    blank: Any
    schema: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class OneOrMany:
    """Marks a tuple that may be written as its only item."""


@dataclasses.dataclass(frozen=True)
class OneOrBySeason:
    """Marks a mapping of lists that may be written as one list for all, kept under the name ``""``."""


@dataclasses.dataclass(frozen=True)
class Between:
    """Bounds of a whole number, both included."""

    low: int
    high: int


def _decimal(value: Any) -> Decimal | None:
    try:
        return Decimal(value) if isinstance(value, str) and _NUMBER.fullmatch(value) else None
    except InvalidOperation:
        return None


def _quantity(value: Any) -> Decimal | None:
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**15:
        return Decimal(value)
    return _decimal(value)


def _date(value: Any) -> dt.date | None:
    if isinstance(value, dt.date) and not isinstance(value, dt.datetime):
        return value
    try:
        return dt.date.fromisoformat(value)
    except (TypeError, ValueError):
        return None


def _clock(value: Any) -> int | None:
    if isinstance(value, str) and re.fullmatch(CLOCK_PATTERN, value):
        return int(value[:2]) * 60 + int(value[3:])
    return None


def _month_day(value: Any) -> tuple[int, int] | None:
    try:
        day = dt.date.fromisoformat(f"2024-{value}") if isinstance(value, str) and len(value) == 5 else None
    except ValueError:
        return None
    return None if day is None else (day.month, day.day)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and 0 < len(value) <= TEXT_CHARS_MAX else None


def _name(value: Any) -> str | None:
    return value if isinstance(value, str) and re.fullmatch(NAME_PATTERN, value) else None


CLOCK_PATTERN = r"^(([01]\d|2[0-3]):[0-5]\d|24:00)$"
NAME_PATTERN = r"^[^\s.:/\[\]]{1,64}$"
NUMBER = {"type": "string", "pattern": NUMBER_PATTERN}

Number = Annotated[Decimal, Scalar(_decimal, 'is not a decimal in quotes, such as "0.6089"', Decimal(0), NUMBER)]
Quantity = Annotated[
    Decimal,
    Scalar(
        _quantity, "is not a whole number or a decimal in quotes", Decimal(0), {"anyOf": [{"type": "integer"}, NUMBER]}
    ),
]
Date = Annotated[
    dt.date,
    Scalar(_date, "is not a date like 2026-01-31", dt.date.max, {"type": "string", "format": "date"}),
]
Clock = Annotated[
    int,
    Scalar(
        _clock, 'is not a time in quotes, such as "08:00" or "24:00"', 0, {"type": "string", "pattern": CLOCK_PATTERN}
    ),
]
MonthDay = Annotated[
    tuple[int, int],
    Scalar(
        _month_day,
        'is not a month and day in quotes, such as "05-01"',
        (1, 1),
        {"type": "string", "pattern": r"^\d\d-\d\d$"},
    ),
]
Text = Annotated[str, Scalar(_text, "must be a text", "", {"type": "string", "minLength": 1})]
Name = Annotated[
    str,
    Scalar(
        _name,
        "must be a name of 1 to 64 characters without blanks and . : / [ ]",
        "?",
        {"type": "string", "pattern": NAME_PATTERN},
    ),
]


@dataclasses.dataclass(frozen=True)
class Table:
    """Decimals by up to two names: one number, by period or season, or by season and period. As written."""

    value: Any

    def at(self, *names: str) -> Decimal | None:
        """Return the number for a season and a period, whichever of them the table is by; None where it has none."""
        value = self.value
        for name in names:
            if isinstance(value, Decimal):
                return value
            value = value.get(name, value)
        return value if isinstance(value, Decimal) else None

    def numbers(self) -> list[Decimal]:
        """Return all numbers."""

        def walk(value: Any) -> list[Decimal]:
            if isinstance(value, Decimal):
                return [value]
            return [number for inner in value.values() for number in walk(inner)]

        return walk(self.value)


class Faults(list[str]):
    """Faults of a document, each ``place: what``."""

    def add(self, place: str, what: str) -> None:
        """Note a fault."""
        self.append(f"{place}: {what}")


def key_of(name: str) -> str:
    """Return the key of a field; ``from_`` is ``from``."""
    return name.rstrip("_")


@functools.cache
def hints_of(kind: type) -> Mapping[str, Any]:
    """Return the types of a dataclass's fields."""
    return get_type_hints(kind, include_extras=True)


def read_document(kind: Any, value: Any, place: str, faults: Faults) -> Any:  # noqa: PLR0911  # a return a kind
    """Return a value of a type, blank where it is faulty.

    Args:
        kind: A dataclass, a `Scalar`, ``tuple[T, ...]``, ``Mapping[str, T]``, a ``Literal``, ``T | None``, `Table`.
        value: As parsed from YAML or JSON.
        place: Where it stands, such as ``versions[0].prices``; empty for the whole document.
        faults: Gets what is wrong.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _read_annotated(arguments, value, place, faults)
    if origin in (Union, types.UnionType):
        inner = next(argument for argument in arguments if argument is not type(None))
        return None if value is None else read_document(inner, value, place, faults)
    if origin is tuple:
        return tuple(
            read_document(arguments[0], item, f"{place}[{index}]", faults)
            for index, item in enumerate(_items(value, place, faults))
        )
    if origin is Literal:
        if value in arguments and type(value) in {type(item) for item in arguments}:
            return value
        faults.add(place, f"{value!r} is not one of {', '.join(map(str, arguments))}")
        return arguments[0]
    if kind is bool:
        if not isinstance(value, bool):
            faults.add(place, "must be true or false")
        return value is True
    if kind is Table:
        return Table(_table(value, place, faults, depth=2))
    if dataclasses.is_dataclass(kind):
        return _read_fields(kind, value, place, faults)
    return _read_mapping(arguments[1], value, place, faults)


def _read_annotated(arguments: tuple[Any, ...], value: Any, place: str, faults: Faults) -> Any:
    kind, mark = arguments[0], arguments[1]
    if isinstance(mark, Scalar):
        found = mark.parse(value)
        if found is None:
            faults.add(place, f"{value!r} {mark.expected}" if not mark.expected.startswith("must") else mark.expected)
        return mark.blank if found is None else found
    if isinstance(mark, OneOrMany):
        return read_document(kind, [value] if isinstance(value, Mapping) else value, place, faults)
    if isinstance(mark, OneOrBySeason):
        if isinstance(value, Mapping):
            return read_document(kind, value, place, faults)
        return {"": read_document(get_args(kind)[1], [] if value is None else value, place, faults)}
    assert isinstance(mark, Between)
    if isinstance(value, bool) or not isinstance(value, int) or not mark.low <= value <= mark.high:
        faults.add(place, f"must be a whole number from {mark.low} to {mark.high}")
        return mark.low
    return value


def _items(value: Any, place: str, faults: Faults) -> list[Any]:
    if not isinstance(value, list):
        faults.add(place, "must be a list")
        return []
    if len(value) > ITEMS_MAX:
        faults.add(place, f"more than {ITEMS_MAX} items")
    return value[:ITEMS_MAX]


def _table(value: Any, place: str, faults: Faults, depth: int) -> Any:
    if depth and isinstance(value, Mapping):
        return {str(name): _table(inner, f"{place}.{name}", faults, depth - 1) for name, inner in value.items()}
    return read_document(Number, value, place, faults)


def _read_mapping(kind: Any, value: Any, place: str, faults: Faults) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        faults.add(place, "must be a mapping")
        return {}
    return {str(name): read_document(kind, inner, f"{place}.{name}", faults) for name, inner in value.items()}


def _read_fields(kind: Any, value: Any, place: str, faults: Faults) -> Any:
    if not isinstance(value, Mapping):
        faults.add(place or "tariff", "must be a mapping")
        value = {}
    hints = hints_of(kind)
    fields = {key_of(field.name): field for field in dataclasses.fields(kind)}
    for key in sorted(set(map(str, value)) - set(fields)):
        faults.add(f"{place or 'tariff'}.{key}", "unknown key")
    found = {}
    for key, field in fields.items():
        if key in value:
            at = f"{place}.{key}" if place else key
            found[field.name] = read_document(hints[field.name], value[key], at, faults)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            at = f"{place}.{key}" if place else key
            faults.add(at, "is missing")
            found[field.name] = read_document(hints[field.name], None, at, Faults())
    return kind(**found)


def schema_of(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:  # noqa: PLR0911  # a return a kind
    """Return the JSON Schema of a type; those of dataclasses go to `definitions`."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _schema_of_annotated(arguments, definitions)
    if origin in (Union, types.UnionType):
        inner = next(argument for argument in arguments if argument is not type(None))
        return {"anyOf": [schema_of(inner, definitions), {"type": "null"}]}
    if origin is tuple:
        return {"type": "array", "maxItems": ITEMS_MAX, "items": schema_of(arguments[0], definitions)}
    if origin is Literal:
        return {"enum": list(arguments)}
    if kind is bool:
        return {"type": "boolean"}
    if kind is Table:
        by_name = {"type": "object", "additionalProperties": NUMBER}
        return {"anyOf": [NUMBER, by_name, {"type": "object", "additionalProperties": by_name}]}
    if dataclasses.is_dataclass(kind):
        return _schema_of_fields(kind, definitions)
    return {"type": "object", "additionalProperties": schema_of(arguments[1], definitions)}


def _schema_of_annotated(arguments: tuple[Any, ...], definitions: dict[str, Any]) -> dict[str, Any]:
    kind, mark = arguments[0], arguments[1]
    if isinstance(mark, Scalar):
        return dict(mark.schema)
    if isinstance(mark, OneOrMany):
        return {"anyOf": [schema_of(get_args(kind)[0], definitions), schema_of(kind, definitions)]}
    if isinstance(mark, OneOrBySeason):
        return {"anyOf": [schema_of(get_args(kind)[1], definitions), schema_of(kind, definitions), {"type": "null"}]}
    return {"type": "integer", "minimum": mark.low, "maximum": mark.high}


def _schema_of_fields(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    if kind.__name__ not in definitions:
        definitions[kind.__name__] = {}
        properties: dict[str, Any] = {}
        required = []
        for field in dataclasses.fields(kind):
            schema = schema_of(hints_of(kind)[field.name], definitions)
            if meaning := field.metadata.get("meaning"):
                schema = schema | {"description": meaning}
            properties[key_of(field.name)] = schema
            if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
                required.append(key_of(field.name))
        definitions[kind.__name__] = {
            "description": (kind.__doc__ or "").strip().splitlines()[0],
            "type": "object",
            "additionalProperties": False,
            "properties": properties,
            "required": required,
        }
    return {"$ref": f"#/$defs/{kind.__name__}"}
