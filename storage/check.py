"""Do the books balance? The invariants of docs/operations.md, on the live database, in one snapshot.

The letters are those of the fault tests: I3 conservation, I4 energy, I5 state and money, I6 shape of the ledger, I7 once,
I8 monotone, I9 one owner at a time, I14 append-only, I15 bills and I16 charges so far by the second rater; with TimescaleDB
also I13, charts.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import psycopg

from metering.state import NEVER, MeterStates
from storage.check_result import FINDINGS_MAX, CheckResult
from storage.registry import Registry, load_registry
from storage.second_charge import check_charges
from storage.second_check import check_bills
from storage.snapshot import one_snapshot
from storage.state import FETCH_ROWS, STATE_COLUMNS, columns_from_fetched, fact_select, fetch_state, fold_all
from storage.timescale import has_timescaledb, refresh_load_curve

REFOLD_METERS_MAX = 1000
REFOLD_FACTS_MAX = 2_000_000
REFRESHES_MAX = 3
RECEIPT_COLUMNS = ("boot_id", "seq_first", "seq", "seq_read_at")
QUANTITY_COLUMNS = ("cycle_start", "cycle_key", "quantities_wh", "cycle_export_wh", "window_start", "window_wh")
GUARDS = ("stream_offset_guard", "fact_append_only", "fact_never_truncated")


def check_all(conn: psycopg.Connection) -> list[CheckResult]:
    """Return the outcome of every invariant, all of one snapshot; charts are refreshed and compared before it."""
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
        check_bills,
        check_charges,
    ]
    charts = [_load_curve(conn)] if has_timescaledb(conn) else []
    with one_snapshot(conn):
        return [check(conn) for check in checks] + charts


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
    numbers, meters = _sample(conn)
    folded = _fold_from_nothing(conn, registry, numbers)
    findings = []
    for place, number in enumerate(numbers):
        kept = fetch_state(conn, registry, number)
        # A state is of the master data as it was when its cycle turned; after a change of that it is not used any more.
        is_same = folded.cycle_key[place] == kept.cycle_key[0] != 0
        for name in (*STATE_COLUMNS, "quantities_wh"):
            if name in RECEIPT_COLUMNS or (name in QUANTITY_COLUMNS and not is_same):
                continue  # receipts also cover refused readings, which are no facts
            a, b = getattr(folded, name)[place], getattr(kept, name)[0]
            if not np.array_equal(a, b):
                findings.append(f"{registry.meters.meter_id[number]}: {name} is {b}, the facts say {a}")
    what = f"{len(numbers)} of {meters} meters refolded"
    return CheckResult("I5", "state and charge = fold over the facts", what, findings[:FINDINGS_MAX])


def _sample(conn: psycopg.Connection) -> tuple[list[int], int]:
    """Return meters to refold, the same ones each time, and of how many: what a minute or so can fold."""
    counts = _rows(
        conn,
        "select meter_no, count(*) from fact where meter_no in (select meter_no from meter) group by 1"
        " order by md5(meter_no::text)",
    )
    facts = np.cumsum([count for _, count in counts])
    size = max(1, min(REFOLD_METERS_MAX, int(np.searchsorted(facts, REFOLD_FACTS_MAX, "right"))))
    return [number for number, _ in counts[:size]], len(counts)


def _fold_from_nothing(conn: psycopg.Connection, registry: Registry, numbers: list[int]) -> MeterStates:
    """Return the states of some meters folded from all of their facts, in the order of `numbers`."""
    states = MeterStates.empty(len(numbers))
    place = np.zeros(registry.meters.size, np.int64)
    place[numbers] = np.arange(len(numbers))
    with conn.cursor(name="all_facts", binary=True) as cursor:
        cursor.execute(
            f"select {fact_select()} from fact f where meter_no = any(%b::int4[])"
            " order by meter_no, frame_offset, revision",
            (numbers,),
        )
        while rows := cursor.fetchmany(FETCH_ROWS):
            facts = columns_from_fetched(rows)
            fold_all(states, place[facts["meter_no"]], facts, registry)
    assert (states.last_at != NEVER).all()
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
    """State stands at or before its partition's offset, and holds every fact before the checkpoint."""
    ahead = _rows(
        conn,
        """
        select m.meter_id, s.next_offset, o.next_offset from meter_state s join meter m using (meter_no)
        join stream_offset o on o.consumer = 'settle' and o.partition = s.partition
        where s.next_offset > o.next_offset limit 20
        """,
    )
    behind = _rows(
        conn,
        """
        select m.meter_id, s.next_offset, f.newest, f.checkpoint_offset from (
            select f.meter_no, o.checkpoint_offset, max(f.frame_offset) as newest from fact f
            join stream_offset o on o.consumer = 'settle' and o.partition = f.frame_partition
            where f.frame_offset < o.checkpoint_offset group by 1, 2) f
        join meter m using (meter_no) left join meter_state s using (meter_no)
        where f.newest >= coalesce(s.next_offset, 0) limit 20
        """,
    )
    findings = [f"{row[0]}: state at {row[1]}, offset {row[2]}" for row in ahead]
    findings += [f"{row[0]}: state at {row[1]} lacks a fact of {row[2]}, the checkpoint is {row[3]}" for row in behind]
    what = "meter_state, stream_offset"
    return CheckResult("I8", "states hold the checkpoint and never run ahead", what, findings)


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
    """The guards are in place on every day's table, nothing drops days, and every fact names a meter."""
    names = {row[0] for row in _rows(conn, "select tgname from pg_trigger where not tgisinternal and tgenabled <> 'D'")}
    findings = [f"the guard {name} is missing" for name in GUARDS if name not in names]
    bare = _rows(
        conn,
        """
        select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid
        where i.inhparent = 'fact'::regclass and not exists (
            select from pg_trigger t where t.tgrelid = c.oid and t.tgname = 'fact_append_only' and t.tgenabled <> 'D')
        limit 20
        """,
    )
    findings += [f"{row[0]} has no guard against change" for row in bare]
    if has_timescaledb(conn):
        policies = "select 1 from timescaledb_information.jobs where proc_name = 'policy_retention' and hypertable_name = 'fact'"
        findings += ["a retention policy drops facts" for _ in _rows(conn, policies)]
    orphans = _rows(
        conn,
        "select count(*) from fact f where not exists (select from meter m where m.meter_no = f.meter_no)",
    )[0][0]
    if orphans:
        findings.append(f"{orphans} facts of meters that are not in the master data")
    return CheckResult("I14", "the ledger is append-only and has its sources", "guards, meters", findings)


def _load_curve(conn: psycopg.Connection) -> CheckResult:
    """What the charts read equals the ledger once it is refreshed; late readings since then are refreshed again."""
    for _ in range(REFRESHES_MAX):
        refresh_load_curve(conn)
        rows = _rows(
            conn,
            """
            select quarter_at, c.energy_wh, l.energy_wh from load_curve('-infinity', 'infinity') c
            full join (
                select date_bin('15 minutes', end_at - interval '1 microsecond', timestamptz '2000-01-01 00:00+00')
                           as quarter_at, sum(energy_wh)::bigint as energy_wh,
                       sum(export_energy_wh)::bigint as export_energy_wh, count(*) filter (where revision % 2 = 0) as readings
                from fact where quality & 16 = 0 and start_at < end_at group by 1) l using (quarter_at)
            where (c.energy_wh, c.export_energy_wh, c.readings) is distinct from (l.energy_wh, l.export_energy_wh, l.readings)
            order by 1 limit 20
            """,
        )
        if not rows:
            break
    findings = [f"quarter-hour {row[0]}: the chart has {row[1]} Wh, the ledger {row[2]} Wh" for row in rows]
    if _rows(conn, "show timescaledb.skip_cagg_invalidation") != [("off",)]:
        findings.append("timescaledb.skip_cagg_invalidation is on: charts miss late readings")
    return CheckResult("I13", "charts show what the ledger has", "load_quarter", findings)
