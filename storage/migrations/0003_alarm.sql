-- The life-cycle of alarms (ISA-18.2): one open alarm per (subject, kind), shelves, suppression by design, out of service.
-- `cleared_at` says when the condition ended, whatever became of the alarm; an alarm that is not `cleared` is open.

alter table alarm drop constraint alarm_state_check;
alter table alarm add constraint alarm_state_check check (state in
    ('unacknowledged', 'acknowledged', 'returned', 'cleared', 'shelved', 'suppressed', 'out_of_service'));
alter table alarm
    add column area text not null default '',
    add column value double precision,
    add column limit_value double precision,
    add column is_acknowledged boolean not null default false,
    add column acknowledged_at timestamptz,
    add column acknowledged_by text,
    add column assigned_to text,
    add column shelved_until timestamptz,
    add column is_one_shot boolean not null default false,
    add column suppressed_by text,
    add column re_alarm_at timestamptz,
    add column chattering_at timestamptz;
update alarm set is_acknowledged = state = 'acknowledged';
update alarm a set area = coalesce((select m.parent_id from meter m where m.meter_id = a.subject), '');

with doubled as (
    update alarm a set state = 'cleared'
    where state = 'returned'
          and exists (select from alarm b where b.subject = a.subject and b.kind = a.kind and b.alarm_id > a.alarm_id
                      and b.state <> 'cleared')
    returning alarm_id
)
insert into alarm_transition (alarm_id, from_state, to_state, at, who, why)
select alarm_id, 'returned', 'cleared', now(), 'gridtally', 'a later alarm of the same kind took its place' from doubled;
drop index alarm_active;
create unique index alarm_open on alarm (subject, kind) where state <> 'cleared';
create index alarm_standing on alarm (kind) where cleared_at is null;
create index alarm_transition_at on alarm_transition (at);

-- What detectors said last of each (subject, kind), by the event's own time: what is older than it changes no state, so that
-- the order of arrival does not matter. `due_at` is when a delayed change takes place; null: it has.
create table alarm_condition (
    subject text not null,
    kind text not null,
    is_active boolean not null,
    at timestamptz not null,
    due_at timestamptz,
    detail text not null,
    value double precision,
    limit_value double precision,
    primary key (subject, kind)
);
create index on alarm_condition (due_at) where due_at is not null;

create table alarm_suppression (
    subject text not null,
    kind text not null,
    suppressed_by text not null,
    at timestamptz not null,
    primary key (subject, kind)
);
create index on alarm_suppression (suppressed_by);

create table alarm_out_of_service (
    subject text not null,
    kind text not null,
    until timestamptz not null,
    who text not null,
    reason text not null check (reason <> ''),
    at timestamptz not null,
    primary key (subject, kind)
);
