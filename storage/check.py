"""Do the books balance? The invariants of docs/operations.md, on the live database, in one snapshot.

The letters are those of the fault tests: I3 conservation, I4 energy, I5 state and money, I6 shape of the ledger, I7 once,
I8 monotone, I9 one owner at a time, I14 append-only.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import psycopg

from metering.state import NEVER, MeterStates
from storage.registry import Registry, load_registry
from storage.state import STATE_COLUMNS, columns_from_fetched, fact_select, fetch_state, fold_all

FINDINGS_MAX = 20
REFOLD_METERS_MAX = 1000
GUARDS = {
    "stream_offset": "stream_offset_guard",
    "fact": "fact_append_only",
}


@dataclasses.dataclass(frozen=True)
class CheckResult:
    """One invariant: whether it holds, over what, and what breaks it."""

    invariant: str
    title: str
    checked: str
    findings: list[str]

    @property
    def holds(self) -> bool:
        """Return whether nothing breaks it."""
        return not self.findings

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {**dataclasses.asdict(self), "holds": self.holds}

    def to_text(self) -> str:
        """Return it for people."""
        lines = [f"{'ok  ' if self.holds else 'FAIL'} {self.invariant:4} {self.title} ({self.checked})"]
        return "\n".join(lines + [f"       {finding}" for finding in self.findings])


def check_all(conn: psycopg.Connection) -> list[CheckResult]:
    """Return the outcome of every invariant, all of one snapshot."""
    checks: list[Callable[[psycopg.Connection], CheckResult]] = [
        _conservation,
        _energy,
        _state,
        _shape,
        _reversals,
        _once,
        _monotone,
        _owners,
        _append_only,
    ]
    with conn.transaction():
        conn.execute("set transaction isolation level repeatable read read only")
        return [check(conn) for check in checks]


def _rows(conn: psycopg.Connection, query: str) -> list[tuple[Any, ...]]:
    return conn.execute(query).fetchall()  # type: ignore[arg-type]  # our own text, not input


def _conservation(conn: psycopg.Connection) -> CheckResult:
    """Every reading that settlement took became one fact, one duplicate counted, or one dead letter."""
    rows = _rows(
        conn,
        """
        select s.partition, s.readings, s.accepted, s.duplicate, s.refused, s.refused_before, coalesce(f.entries, 0),
               coalesce(f.newest, -1), s.next_offset
        from stream_offset s
        left join (select frame_partition, count(*) filter (where revision = 0) as entries, max(frame_offset) as newest
                   from fact group by 1) f on f.frame_partition = s.partition
        where s.consumer = 'settle' order by 1
        """,
    )
    findings = []
    for partition, readings, accepted, duplicate, refused, before, entries, newest, next_offset in rows:
        if readings != accepted + duplicate + refused + before:
            findings.append(f"partition {partition}: {readings} readings, {accepted}+{duplicate}+{refused}+{before}")
        if entries != accepted:
            findings.append(f"partition {partition}: {accepted} accepted, {entries} entries in the ledger")
        if newest >= next_offset:
            findings.append(f"partition {partition}: a fact of offset {newest}, next is {next_offset}")
    letters = _rows(conn, "select count(*) from dead_letter where stage = 'settle' and code <> 'bad_frame'")[0][0]
    if letters != sum(row[4] for row in rows):
        findings.append(f"{sum(row[4] for row in rows)} refused, {letters} dead letters")
    total = sum(row[1] for row in rows)
    return CheckResult("I3", "every reading has one outcome", f"{total} readings", findings)


_CHAINS = """
    with live as (
        select distinct on (meter_no, epoch, end_at) meter_no, epoch, start_at, end_at, revision, import_wh
        from fact order by meter_no, epoch, end_at, revision desc
    )
"""


def _energy(conn: psycopg.Connection) -> CheckResult:
    """Energy of the ledger is the difference of the registers, per meter and epoch."""
    rows = _rows(
        conn,
        """
        select t.*, m.register_modulus_wh, m.meter_id from (
            select meter_no, epoch, sum(energy_wh)::numeric as energy,
                   (array_agg(import_wh order by end_at, revision))[1] as first_wh,
                   (array_agg(import_wh order by end_at desc, revision desc))[1] as last_wh,
                   count(*) from fact group by meter_no, epoch) t
        join meter m using (meter_no)
        """,
    )
    findings = []
    total = 0
    for _, epoch, energy, first_wh, last_wh, _, modulus_wh, meter_id in rows:
        total += int(energy)
        if energy < 0 or (int(energy) - (last_wh - first_wh)) % modulus_wh:
            findings.append(f"{meter_id} epoch {epoch}: ledger {energy} Wh, registers {last_wh - first_wh} Wh")
    what = f"{len(rows)} registers, {total} Wh"
    return CheckResult("I4", "energy of the ledger = register difference", what, findings[:FINDINGS_MAX])


def _state(conn: psycopg.Connection) -> CheckResult:
    """State (checkpoint and later facts) equals a fold over all facts from nothing, so the charges do too."""
    registry = load_registry(conn)
    numbers = [
        row[0]
        for row in _rows(
            conn,
            "select meter_no from meter m where exists (select from fact f where f.meter_no = m.meter_no)"
            f" order by md5(meter_no::text) limit {REFOLD_METERS_MAX}",
        )
    ]
    findings = []
    for number in numbers:
        folded = _fold_from_nothing(conn, registry, number)
        kept = fetch_state(conn, registry, number)
        for name in (*STATE_COLUMNS, "quantities_wh"):
            if name in ("boot_id", "seq_first", "seq", "seq_read_at"):
                continue  # receipts also cover refused readings, which are no facts
            a, b = getattr(folded, name)[0], getattr(kept, name)[0]
            if not np.array_equal(a, b):
                findings.append(f"{registry.meters.meter_id[number]}: {name} is {b}, the facts say {a}")
    what = f"{len(numbers)} meters refolded"
    return CheckResult("I5", "state and charge = fold over the facts", what, findings[:FINDINGS_MAX])


def _fold_from_nothing(conn: psycopg.Connection, registry: Registry, number: int) -> MeterStates:
    states = MeterStates.empty(1)
    rows = conn.execute(
        f"select {fact_select()} from fact f where meter_no = %s order by frame_offset, revision",
        (number,),
    ).fetchall()
    fold_all(states, np.zeros(len(rows), np.int64), columns_from_fetched(rows), registry)
    assert not rows or states.last_at[0] != NEVER
    return states


def _shape(conn: psycopg.Connection) -> CheckResult:
    """Live intervals of a meter and epoch follow each other without hole or overlap."""
    rows = _rows(
        conn,
        _CHAINS
        + """
        , steps as (select meter_no, epoch, start_at, end_at, lag(end_at) over w as before_at, row_number() over w as n
                    from live window w as (partition by meter_no, epoch order by end_at))
        select m.meter_id, s.epoch, s.start_at, s.end_at, s.before_at from steps s join meter m using (meter_no)
        where (n = 1 and start_at <> end_at) or (n > 1 and start_at <> before_at) or start_at > end_at limit 20
        """,
    )
    count = _rows(conn, "select count(*) from fact")[0][0]
    findings = [f"{row[0]} epoch {row[1]}: {row[2]} to {row[3]} follows {row[4]}" for row in rows]
    return CheckResult("I6", "intervals have no hole and no overlap", f"{count} facts", findings)


def _reversals(conn: psycopg.Connection) -> CheckResult:
    """Each reversal takes back exactly the entry before it."""
    rows = _rows(
        conn,
        """
        select m.meter_id, r.end_at, r.revision, r.energy_wh, e.energy_wh from fact r
        left join fact e on e.meter_no = r.meter_no and e.end_at = r.end_at and e.revision = r.revision - 1
        join meter m on m.meter_no = r.meter_no
        where r.revision % 2 = 1 and (e.energy_wh is null or r.energy_wh <> -e.energy_wh
              or r.export_energy_wh <> -e.export_energy_wh or r.start_at <> e.start_at) limit 20
        """,
    )
    count = _rows(conn, "select count(*) from fact where revision % 2 = 1")[0][0]
    findings = [f"{row[0]} {row[1]} revision {row[2]}: {row[3]} Wh against {row[4]} Wh" for row in rows]
    return CheckResult("I6", "each reversal matches one entry", f"{count} reversals", findings)


def _once(conn: psycopg.Connection) -> CheckResult:
    """No instant of a meter is settled twice."""
    rows = _rows(
        conn,
        "select meter_no, end_at, revision, count(*) from fact group by 1, 2, 3 having count(*) > 1 limit 20",
    )
    alarms = _rows(
        conn, "select subject, kind, count(*) from alarm where cleared_at is null group by 1, 2 having count(*) > 1"
    )
    findings = [f"meter {row[0]} {row[1]} revision {row[2]} is there {row[3]} times" for row in rows]
    findings += [f"alarm {row[1]} of {row[0]} is active {row[2]} times" for row in alarms]
    return CheckResult("I7", "nothing is there twice", "facts, active alarms", findings)


def _monotone(conn: psycopg.Connection) -> CheckResult:
    """Checkpoints stand at or before the offsets, state at or past its checkpoint, and not after the offset."""
    rows = _rows(
        conn,
        """
        select m.meter_id, s.next_offset, o.checkpoint_offset, o.next_offset from meter_state s join meter m using (meter_no)
        join stream_offset o on o.consumer = 'settle' and o.partition = s.partition
        where s.next_offset > o.next_offset limit 20
        """,
    )
    findings = [f"{row[0]}: state at {row[1]}, offset {row[3]}" for row in rows]
    return CheckResult("I8", "offsets and states never run ahead", "meter_state, stream_offset", findings)


def _owners(conn: psycopg.Connection) -> CheckResult:
    """Ranges that owners of a partition advanced do not overlap: each starts where the one before it ended or later."""
    rows = _rows(
        conn,
        """
        select * from (
            select w.consumer, w.topic, w.partition, w.first_offset, o.next_offset,
                   lag(w.first_offset) over (partition by w.consumer, w.topic, w.partition order by w.started_at) as before
            from stream_owner w join stream_offset o using (consumer, topic, partition)) t
        where first_offset > next_offset or before > first_offset limit 20
        """,
    )
    count = _rows(conn, "select count(*) from stream_owner")[0][0]
    findings = [f"{row[0]} {row[1]}/{row[2]}: an owner from {row[3]}, before it {row[5]}" for row in rows]
    return CheckResult("I9", "one owner of a partition at a time", f"{count} owners", findings)


def _append_only(conn: psycopg.Connection) -> CheckResult:
    """The guards are in place, and every fact and dead letter names its source."""
    names = {row[0] for row in _rows(conn, "select tgname from pg_trigger where not tgisinternal and tgenabled <> 'D'")}
    findings = [f"the guard {name} of {table} is missing" for table, name in GUARDS.items() if name not in names]
    orphans = _rows(
        conn,
        "select count(*) from fact f where not exists (select from meter m where m.meter_no = f.meter_no)",
    )[0][0]
    if orphans:
        findings.append(f"{orphans} facts of meters that are not in the master data")
    return CheckResult("I14", "the ledger is append-only and has its sources", "guards, meters", findings)
