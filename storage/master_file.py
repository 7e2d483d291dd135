"""Files of master data, CSV and JSON: read with every fault and its place, staged for the database, written.

The first row of a CSV file names its columns, in any order; a JSON file is an array of objects. Columns that a file does not
have are left as they are in the database. Nothing here knows what the rows mean.
"""

import csv
import dataclasses
import datetime as dt
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, TextIO

import psycopg

from storage.master_cell import Cell, text_of_decimal, text_of_terms

FAULTS_LISTED_MAX = 200
ROWS_MAX = 2_000_000
FILE_BYTES_MAX = 1024 * 1024 * 1024
CELL_CHARS_MAX = 1000
BEFORE_MAX = 1000
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of a file."""

    name: str
    read: Cell
    expected: str
    """Ends the sentence "'x' is not …"."""
    kind: str = "text"
    """Its type in the database."""
    is_required: bool = False
    default: Any = None


@dataclasses.dataclass(frozen=True)
class Layout:
    """What the files of a kind of master data look like."""

    name: str
    """As on the command line; the file in a directory of all is called so."""
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    """Columns that no two rows have alike."""

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the columns in order."""
        return tuple(column.name for column in self.columns)

    @property
    def staged(self) -> str:
        """Return the name of the temporary table with the rows."""
        return "staged_" + self.name.replace("-", "_")


@dataclasses.dataclass
class Faults:
    """What is wrong in a file, each with its place; all are counted, FAULTS_LISTED_MAX are kept."""

    file: str
    count: int = 0
    listed: list[str] = dataclasses.field(default_factory=list)
    lines: set[int] = dataclasses.field(default_factory=set)
    """Lines with a fault."""

    def add(self, line: int, column: str, fault: str) -> None:
        """Count a fault, and keep it while there is room."""
        self.count += 1
        self.lines.add(line)
        if len(self.listed) < FAULTS_LISTED_MAX:
            self.listed.append(f"{self.file}, line {line}, {column}: {fault}")


@dataclasses.dataclass
class Rows:
    """The rows of a file that have no fault so far, each the line and a value for each column of the layout."""

    layout: Layout
    present: frozenset[str]
    """Columns that the file has."""
    rows: list[tuple[Any, ...]]


@dataclasses.dataclass
class Outcome:
    """What an import of one file did, or would do."""

    rows: int = 0
    new: int = 0
    changed: int = 0
    notices: list[str] = dataclasses.field(default_factory=list)
    """What is allowed and should be known."""
    before: dict[str, Any] = dataclasses.field(default_factory=dict)
    """What changed rows were, by their names, for the audit trail; at most BEFORE_MAX."""


# -- reading --------------------------------------------------------------------------------------------------------


def read_file(path: Path, layout: Layout, faults: Faults) -> Rows:
    """Return the rows of a file that have no fault; the faults of the others are added to `faults`."""
    rows: list[tuple[Any, ...]] = []
    present: frozenset[str] = frozenset()
    seen: dict[tuple[Any, ...], int] = {}
    places = [1 + layout.names.index(name) for name in layout.key]
    try:
        for line, names, cells in _records(path, layout, faults):
            present |= frozenset(names)
            row = _read_row(line, dict(zip(names, cells, strict=True)), layout, faults)
            key = tuple(row[place] for place in places)
            if line in faults.lines:
                continue
            if key in seen:
                said = " ".join(str(value) for value in key)
                faults.add(line, layout.key[0], f"{said} is on line {seen[key]} already")
                continue
            seen[key] = line
            rows.append(row)
            if len(rows) > ROWS_MAX:
                faults.add(line, "file", f"more than {ROWS_MAX} rows: divide the file")
                break
    except UnicodeDecodeError:
        faults.add(1, "file", "is not text in UTF-8: save it as CSV (UTF-8) or JSON")
    except (csv.Error, json.JSONDecodeError, RecursionError) as error:
        faults.add(getattr(error, "lineno", 1), "file", f"cannot be read: {str(error)[:200]}")
    return Rows(layout, present, rows)


def _records(path: Path, layout: Layout, faults: Faults) -> Iterator[tuple[int, Sequence[str], Sequence[str]]]:
    """Yield line, column names and cells of each row."""
    if path.stat().st_size > FILE_BYTES_MAX:
        faults.add(1, "file", f"over {FILE_BYTES_MAX >> 20} MiB: divide it")
        return
    if path.suffix.lower() == ".json":
        yield from _json_records(path.read_text("utf-8-sig"), layout, faults)
        return
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file, strict=True)
        header = [name.strip() for name in next(reader, [])]
        if not check_names(header, layout, faults):
            return
        line = reader.line_num + 1
        for cells in reader:
            if len(cells) == len(header):
                yield line, header, cells
            elif cells:
                faults.add(line, "line", f"has {len(cells)} cells, its header {len(header)}")
            line = reader.line_num + 1


def check_names(names: Sequence[str], layout: Layout, faults: Faults) -> bool:
    """Return whether the columns of a file are known and complete."""
    known = ", ".join(layout.names)
    if not any(names):
        faults.add(1, "header", f"the file is empty; its first line names the columns, of {known}")
        return False
    before = faults.count
    for name in sorted(set(names) - set(layout.names)):
        faults.add(1, "header", f"unknown column {name[:80]!r}; known are {known}")
    for name in sorted({name for name in names if names.count(name) > 1}):
        faults.add(1, "header", f"column {name[:80]!r} is there twice")
    for column in layout.columns:
        if column.is_required and column.name not in names:
            faults.add(1, "header", f"column {column.name} is missing")
    return faults.count == before


def _json_records(text: str, layout: Layout, faults: Faults) -> Iterator[tuple[int, Sequence[str], Sequence[str]]]:
    decoder = json.JSONDecoder(parse_float=str)
    space = re.compile(r"[ \t\r\n]*")
    at, line, counted = space.match(text).end(), 1, 0  # type: ignore[union-attr]
    if text[at : at + 1] != "[":
        faults.add(1, "file", "is not an array of objects" if text.strip() else "the file is empty")
        return
    at = space.match(text, at + 1).end()  # type: ignore[union-attr]
    while text[at : at + 1] != "]":
        item, end = decoder.raw_decode(text, at)
        line, counted = line + text.count("\n", counted, at), at
        yield from _json_record(line, item, layout, faults)
        at = space.match(text, end).end()  # type: ignore[union-attr]
        if text[at : at + 1] == ",":
            at = space.match(text, at + 1).end()  # type: ignore[union-attr]
        elif text[at : at + 1] != "]":
            raise json.JSONDecodeError("expected , or ]", text, at)


def _json_record(
    line: int, item: Any, layout: Layout, faults: Faults
) -> Iterator[tuple[int, Sequence[str], Sequence[str]]]:
    if not isinstance(item, dict):
        faults.add(line, "line", "is not an object")
        return
    unknown = sorted(set(item) - set(layout.names))
    for name in unknown:
        faults.add(line, name[:80], f"unknown; known are {', '.join(layout.names)}")
    texts = {}
    for name, value in item.items():
        texts[name] = text = _json_text(value)
        if text is None:
            faults.add(line, name[:80], f"{str(value)[:80]!r} is neither text nor number")
    if not unknown and None not in texts.values():
        yield line, list(texts), [text or "" for text in texts.values()]


def _json_text(value: Any) -> str | None:
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict) and all(isinstance(one, str | int) for one in value.values()):
        return text_of_terms({str(name): str(one) for name, one in value.items()})
    return str(value) if isinstance(value, int) else None


def _read_row(line: int, record: Mapping[str, str], layout: Layout, faults: Faults) -> tuple[Any, ...]:
    row: list[Any] = [line]
    for column in layout.columns:
        text = record.get(column.name, "").strip()
        value = column.default
        if not text:
            if column.is_required:
                faults.add(line, column.name, "is empty")
        elif len(text) > CELL_CHARS_MAX:
            faults.add(line, column.name, f"has {len(text)} signs, at most {CELL_CHARS_MAX}")
        elif _CONTROL.search(text):
            faults.add(line, column.name, f"{text[:80]!r} has signs that are no text")
        else:
            try:
                value = column.read(text)
            except (ValueError, ArithmeticError):
                faults.add(line, column.name, f"{text[:80]!r} is not {column.expected}")
        row.append(value)
    return tuple(row)


# -- the database -----------------------------------------------------------------------------------------------------


def stage(conn: psycopg.Connection[Any], rows: Rows) -> None:
    """Copy rows into the layout's temporary table, which ends with the transaction."""
    table = rows.layout.staged
    columns = ", ".join(f"{column.name} {column.kind}" for column in rows.layout.columns)
    conn.execute(f"drop table if exists pg_temp.{table}".encode())
    conn.execute(f"create temp table {table} (line integer, {columns}) on commit drop".encode())
    with conn.cursor().copy(f"copy {table} from stdin".encode()) as copy:
        for row in rows.rows:
            copy.write_row(row)
    conn.execute(f"analyze {table}".encode())


def find_faults(conn: psycopg.Connection[Any], faults: Faults, column: str, fault: str, query: str) -> None:
    """Add a fault for each row of a query: its line, then what the words of the fault are filled with."""
    for line, *words in conn.execute(query.encode()).fetchall():
        faults.add(line, column, fault.format(*words))


def drop_faulty(conn: psycopg.Connection[Any], layout: Layout, faults: Faults) -> None:
    """Take the rows with a fault out of the staged ones."""
    if faults.lines:
        conn.execute(f"delete from {layout.staged} where line = any(%s)".encode(), (list(faults.lines),))


def bring_up_to_date(
    conn: psycopg.Connection[Any], rows: Rows, table: str, given: Mapping[str, str], kept: Iterable[str] = ()
) -> Outcome:
    """Write the staged rows into a table, by the first column of their layout; return what that did.

    Args:
        conn: In a transaction.
        rows: As they were staged.
        table: Where to.
        given: Column of the table, but for the key, and the staged column that fills it.
        kept: Columns of the table that never change.
    """
    staged, key, names = rows.layout.staged, rows.layout.key[0], rows.layout.names
    changing = [
        name for name, source in given.items() if name not in kept and (source in rows.present or source not in names)
    ]
    outcome = Outcome(len(rows.rows))
    if changing:
        sets = ", ".join(f"{name} = s.{given[name]}" for name in changing)
        differs = " or ".join(f"t.{name} is distinct from s.{given[name]}" for name in changing)
        was = ", ".join(f"'{name}', t.{name}" for name in changing)
        rows_differ = f"t.{key} = s.{key} and ({differs})"
        select = f"select t.{key}, jsonb_build_object({was}) from {staged} s join {table} t on {rows_differ}"
        outcome.before = dict(conn.execute(f"{select} order by s.line limit {BEFORE_MAX}".encode()).fetchall())
        update = f"update {table} t set {sets} from {staged} s where {rows_differ}"
        outcome.changed = conn.execute(update.encode()).rowcount if outcome.before else 0
    columns = ", ".join([key, *given])
    values = ", ".join(f"s.{name}" for name in [key, *given.values()])
    insert = (
        f"insert into {table} ({columns}) select {values} from {staged} s"
        f" where not exists (select from {table} t where t.{key} = s.{key}) order by s.line"
    )
    outcome.new = conn.execute(insert.encode()).rowcount
    return outcome


# -- writing ----------------------------------------------------------------------------------------------------------


def write_file(stream: TextIO, layout: Layout, rows: Iterable[Sequence[Any]], *, as_json: bool) -> int:
    """Write rows in the layout's columns, as `read_file` takes them; return how many."""
    count = 0
    if not as_json:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(layout.names)
        for row in rows:
            writer.writerow([_plain(value) for value in row])
            count += 1
        return count
    for row in rows:
        record = {name: _json_value(value) for name, value in zip(layout.names, row, strict=True)}
        stream.write(("[\n" if not count else ",\n") + json.dumps(record, ensure_ascii=False))
        count += 1
    stream.write("\n]\n" if count else "[]\n")
    return count


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return text_of_terms(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else _json_value(value)


def _json_value(value: Any) -> Any:
    if isinstance(value, dt.datetime):
        return value.astimezone(dt.UTC).isoformat()
    if isinstance(value, dt.date):
        return value.isoformat()
    return text_of_decimal(value) if isinstance(value, Decimal) else value
