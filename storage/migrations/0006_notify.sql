-- Who is told of alarms, by which rules, and what became of each message.

-- Identity numbers are given before the commit, so a cursor over them would pass by a transition of a transaction that ends later.
-- What is below the oldest transaction under way is complete.
alter table alarm_transition add column transaction_id xid8 not null default pg_current_xact_id();
create index on alarm_transition (transaction_id, alarm_transition_id);

create table receiver (
    receiver_no integer generated always as identity primary key,
    receiver_id text not null unique check (receiver_id ~ '^[A-Za-z0-9._-]{1,64}$'),
    channel text not null check (channel in ('webhook', 'mail', 'mqtt')),
    address text not null check (length(address) <= 2000),
    secret text,
    language text not null default 'en' check (language in ('en', 'zh')),
    rate_max_per_hour integer not null default 30 check (rate_max_per_hour between 1 and 10000),
    is_active boolean not null default true,
    check (channel <> 'webhook' or secret is not null)
);

-- A rule holds for what happens after it was entered.
create table notification_rule (
    rule_no integer generated always as identity primary key,
    receiver_no integer not null references receiver,
    kinds text[] not null default '{}',
    priority_max integer not null default 4 check (priority_max between 1 and 4),
    area text not null default '',
    events text[] not null default '{raised}',
    weekdays integer[] not null default '{}',
    from_time time not null default '00:00',
    until_time time not null default '00:00',
    zone text not null default 'UTC',
    escalate_after_s integer check (escalate_after_s between 1 and 604800),
    escalate_to integer references receiver,
    is_active boolean not null default true,
    transaction_id xid8 not null default pg_current_xact_id(),
    check ((escalate_after_s is null) = (escalate_to is null))
);

-- One message per (transition, receiver, step); step 1 is the escalation. A summary of what an hour's limit held back has no
-- transition. `charged_hour` is the hour in whose limit it counts, for held ones the hour that held them.
create table notification (
    notification_no bigint generated always as identity primary key,
    idempotency_id uuid not null unique default gen_random_uuid(),
    receiver_no integer not null references receiver,
    alarm_transition_id bigint references alarm_transition,
    step integer not null default 0 check (step in (0, 1)),
    summary_hour timestamptz,
    state text not null default 'waiting' check (state in ('waiting', 'sent', 'failed', 'held', 'cancelled')),
    attempts integer not null default 0,
    planned_at timestamptz not null,
    next_try_at timestamptz not null,
    first_try_at timestamptz,
    charged_hour timestamptz,
    last_error text not null default '',
    sent_at timestamptz,
    check ((alarm_transition_id is null) <> (summary_hour is null)),
    unique (alarm_transition_id, receiver_no, step),
    unique (receiver_no, summary_hour)
);
create index on notification (next_try_at) where state = 'waiting';
create index on notification (receiver_no, charged_hour);

create table notification_cursor (
    only_one boolean primary key default true check (only_one),
    transaction_id xid8 not null,
    alarm_transition_id bigint not null
);
insert into notification_cursor (transaction_id, alarm_transition_id) values ('3', 0);
