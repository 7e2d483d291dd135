-- The path: master data, the offsets that are the authority, the ledger, its state, what is published, what was refused.
-- Energies are integer Wh, instants are UTC. Facts are never updated or deleted: a correction is a reversal and new rows.

create table registry_version (
    one boolean primary key default true check (one),
    version bigint not null default 0
);
insert into registry_version default values;

create function bump_registry_version() returns trigger language plpgsql as $$
begin
    update registry_version set version = version + 1;
    return null;
end $$;

create table meter (
    meter_no integer primary key,
    meter_id text not null unique check (meter_id ~ '^[A-Za-z0-9._-]{1,64}$'),
    parent_id text,
    rated_power_w integer check (rated_power_w > 0),
    register_modulus_wh bigint not null default 1000000000000 check (register_modulus_wh > 1),
    interval_s integer not null default 900 check (interval_s between 1 and 86400),
    installed_on date
);

create table service_point (
    service_point_no integer primary key,
    service_point_id text not null unique
);

-- Which meter measured a service point, under which tariff, in [start_at, end_at).
create table meter_assignment (
    meter_no integer not null references meter,
    service_point_no integer not null references service_point,
    tariff_id text not null,
    start_at timestamptz not null,
    end_at timestamptz not null default 'infinity',
    primary key (meter_no, start_at),
    check (start_at < end_at)
);
create index on meter_assignment (service_point_no);

-- A register that was reset or replaced starts a new epoch; epoch 0 needs no row.
create table register_epoch (
    meter_no integer not null references meter,
    epoch integer not null check (epoch > 0),
    start_at timestamptz not null,
    reason text not null,
    primary key (meter_no, epoch)
);

create table tariff (
    tariff_id text primary key,
    document jsonb not null,
    document_sha256 text not null,
    loaded_at timestamptz not null default now()
);

create trigger meter_changed after insert or update or delete on meter
    for each statement execute function bump_registry_version();
create trigger meter_assignment_changed after insert or update or delete on meter_assignment
    for each statement execute function bump_registry_version();
create trigger register_epoch_changed after insert or update or delete on register_epoch
    for each statement execute function bump_registry_version();
create trigger tariff_changed after insert or update or delete on tariff
    for each statement execute function bump_registry_version();

-- How far each consumer has come: the authority (design 3.3). Counts are of readings, ever. `later_facts_from` is the earliest
-- end among the facts after the checkpoint, so that whoever folds them looks into those days only.
create table stream_offset (
    consumer text not null,
    topic text not null,
    partition integer not null,
    next_offset bigint not null default 0,
    first_offset bigint not null default 0,
    log_id text not null default '',
    worker text not null default '',
    readings bigint not null default 0,
    accepted bigint not null default 0,
    duplicate bigint not null default 0,
    late bigint not null default 0,
    refused bigint not null default 0,
    refused_before bigint not null default 0,
    watermark_us bigint not null default 0,
    checkpoint_offset bigint not null default 0,
    later_facts_from timestamptz not null default 'infinity',
    updated_at timestamptz not null default now(),
    primary key (consumer, topic, partition),
    check (readings = accepted + duplicate + refused + refused_before),
    check (checkpoint_offset <= next_offset)
) with (fillfactor = 50);

-- Who advanced a partition from where on: shows that ranges of owners do not overlap (invariant I9).
create table stream_owner (
    consumer text not null,
    topic text not null,
    partition integer not null,
    first_offset bigint not null,
    worker text not null,
    started_at timestamptz not null default now(),
    primary key (consumer, topic, partition, first_offset)
);

create function stream_offset_guard() returns trigger language plpgsql as $$
begin
    if new.next_offset < old.next_offset or new.checkpoint_offset < old.checkpoint_offset then
        raise exception 'stream_offset never falls: % % % from % to %',
            old.consumer, old.topic, old.partition, old.next_offset, new.next_offset;
    end if;
    if new.worker <> old.worker then
        insert into stream_owner (consumer, topic, partition, first_offset, worker)
        values (new.consumer, new.topic, new.partition, old.next_offset, new.worker)
        on conflict do nothing;
    end if;
    return new;
end $$;
create trigger stream_offset_guard before update on stream_offset
    for each row execute function stream_offset_guard();

-- One row a reading: the reading and its ledger entry in one (design 3.4). Even revisions are entries, odd ones reversals of
-- the entry before them. `frame_offset` names the frame that caused the row, `raw_*` the message that carried the reading.
-- `raw_place` is the element in its message x 2^20 + the message in its frame: of a meter's readings it differs little from
-- one to the next, and takes half a byte where `raw_index`, the message x 1024 + the element, takes two or three.
create table fact (
    meter_no integer not null,
    epoch integer not null,
    start_at timestamptz not null,
    end_at timestamptz not null,
    revision integer not null,
    quality integer not null,
    energy_wh bigint not null,
    import_wh bigint not null,
    export_energy_wh bigint not null,
    export_wh bigint,
    import_varh bigint,
    export_varh bigint,
    power_w real,
    voltage_v1 real,
    voltage_v2 real,
    voltage_v3 real,
    current_a1 real,
    current_a2 real,
    current_a3 real,
    frequency_hz real,
    tariff_version integer not null,
    period integer not null,
    boot_id bigint not null,
    seq bigint not null,
    raw_partition integer not null,
    raw_place integer not null,
    raw_offset bigint not null,
    frame_offset bigint not null,
    frame_partition integer not null
) partition by range (end_at);
create function raw_index_of(raw_place integer) returns integer language sql immutable strict
    return (raw_place & 1048575) * 1024 + (raw_place >> 20);
create unique index fact_key on fact (meter_no, end_at, revision);
create index fact_frame on fact using brin (frame_offset) with (pages_per_range = 32, autosummarize = on);

create function refuse_change() returns trigger language plpgsql as $$
begin
    raise exception '% is append-only: a correction is a reversal and new rows', tg_table_name;
end $$;
create trigger fact_append_only before update or delete on fact
    for each row execute function refuse_change();
create trigger fact_never_truncated before truncate on fact
    for each statement execute function refuse_change();

-- State of each meter as of `next_offset` of its partition: a fold over the facts, written at checkpoints (design 3.4).
create table meter_state (
    meter_no integer primary key,
    partition integer not null,
    next_offset bigint not null,
    epoch integer not null,
    first_at bigint not null,
    last_at bigint not null,
    import_wh bigint not null,
    export_wh bigint not null,
    cycle_start bigint not null,
    quantities_wh bigint[] not null,
    cycle_export_wh bigint not null,
    boot_id bigint not null,
    seq_first bigint not null,
    seq bigint not null,
    seq_read_at bigint not null,
    seq_pending text not null default ''
) with (fillfactor = 60);
create index meter_state_partition on meter_state (partition);

-- What is to be published after the commit, in order per topic and partition.
create table outbox (
    outbox_id bigint generated always as identity primary key,
    consumer text not null,
    partition integer not null,
    next_offset bigint not null,
    topic text not null,
    payload bytea not null
);
alter table outbox alter column payload set storage external;
create index on outbox (consumer, partition);

create table dead_letter (
    dead_letter_id bigint generated always as identity primary key,
    stage text not null,
    code text not null,
    detail text not null,
    mqtt_topic text not null,
    meter_id text,
    boot_id bigint,
    seq numeric(20),
    payload bytea not null,
    raw_partition integer not null,
    raw_offset bigint not null,
    raw_index integer not null,
    received_at timestamptz not null,
    state text not null default 'new' check (state in ('new', 'replayed', 'discarded')),
    changed_at timestamptz,
    unique (stage, raw_partition, raw_offset, raw_index)
);
create index on dead_letter (state, dead_letter_id);

-- Receipts of meters that are not in the master data: their readings are kept as dead letters, and receipted too.
create table unknown_meter_receipt (
    meter_id text primary key,
    boot_id bigint not null,
    seq_first numeric(20) not null,
    seq numeric(20) not null,
    seq_pending text not null default '',
    read_at bigint not null
);

create table meter_event (
    meter_no integer not null,
    boot_id bigint not null,
    seq numeric(20) not null,
    at timestamptz not null,
    code text not null,
    detail text not null,
    raw_partition integer not null,
    raw_offset bigint not null,
    raw_index integer not null,
    received_at timestamptz not null,
    primary key (meter_no, boot_id, seq, at, code)
);

create table alarm (
    alarm_id bigint generated always as identity primary key,
    subject text not null,
    kind text not null,
    priority integer not null check (priority between 1 and 4),
    state text not null check (state in ('unacknowledged', 'acknowledged', 'returned', 'cleared')),
    detail text not null,
    raised_at timestamptz not null,
    last_at timestamptz not null,
    cleared_at timestamptz,
    occurrences integer not null default 1
);
create unique index alarm_active on alarm (subject, kind) where cleared_at is null;
create index on alarm (raised_at);

create table alarm_transition (
    alarm_transition_id bigint generated always as identity primary key,
    alarm_id bigint not null references alarm,
    from_state text,
    to_state text not null,
    at timestamptz not null,
    who text not null,
    why text not null
);
create index on alarm_transition (alarm_id);

-- Detection state per partition, in one value with the offset it stands for: the detectors replay from there.
create table detect_state (
    topic text not null,
    partition integer not null,
    next_offset bigint not null,
    state bytea not null,
    primary key (topic, partition)
);

-- Load of all meters by quarter-hours that begin in [from_at, until_at), for charts only; bills never come from it.
-- Intervals over 1.5 x their meter's own (flag LONG) would pile up in one quarter and are left out. The bounds on `end_at`
-- keep the search to the days asked for. With TimescaleDB the function reads a continuous aggregate instead.
create function load_curve(from_at timestamptz, until_at timestamptz)
    returns table (quarter_at timestamptz, energy_wh bigint, export_energy_wh bigint, readings bigint)
    language sql stable as $$
    select q.quarter_at, sum(q.energy_wh)::bigint, sum(q.export_energy_wh)::bigint,
           count(*) filter (where q.revision % 2 = 0)
    from (select date_bin('15 minutes', f.end_at - interval '1 microsecond', timestamptz '2000-01-01 00:00+00')
                     as quarter_at, f.energy_wh, f.export_energy_wh, f.revision
          from fact f
          where f.end_at > from_at and f.end_at <= until_at + interval '15 minutes'
                and f.quality & 16 = 0 and f.start_at < f.end_at) q
    where q.quarter_at >= from_at and q.quarter_at < until_at
    group by 1
$$;
