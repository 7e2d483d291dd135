-- Theft: runs of the detector over the ledger, its scores, and the case file.

create table theft_run (
    run_no bigint generated always as identity primary key,
    at timestamptz not null default now(),
    who text not null check (who <> ''),
    zone text not null,
    first_week date not null,
    end_on date not null,
    meters integer not null,
    alarms integer not null,
    digest text not null,
    notes jsonb not null default '[]',
    check (first_week < end_on)
);

create table theft_score (
    meter_no integer not null references meter,
    week_start date not null,
    score double precision not null,
    reason text not null,
    run_no bigint not null references theft_run,
    primary key (meter_no, week_start)
);

-- `fall_on` is the local day from which energy is missing; amounts are those of the day on which the case was opened.
create table theft_case (
    case_no bigint generated always as identity primary key,
    meter_no integer not null references meter,
    state text not null default 'new' check (state in ('new', 'investigating', 'confirmed', 'rejected', 'recovered')),
    kind text not null,
    fall_on date not null,
    opened_at timestamptz not null default now(),
    opened_by text not null,
    run_no bigint references theft_run,
    alarm_ids bigint[] not null default '{}',
    evidence jsonb not null default '{}',
    missing_wh_low bigint not null check (missing_wh_low >= 0),
    missing_wh bigint not null check (missing_wh >= missing_wh_low),
    missing_wh_high bigint not null check (missing_wh_high >= missing_wh),
    money_low numeric,
    money numeric,
    money_high numeric,
    currency text,
    money_note text not null default '',
    assigned_to text,
    outcome text,
    note text not null default '',
    proposal_id bigint references proposal,
    row_version integer not null default 1,
    check ((money is null) = (currency is null))
);
create unique index theft_case_open on theft_case (meter_no) where state in ('new', 'investigating', 'confirmed');
create index on theft_case (state);
create index on theft_case (meter_no);

create table theft_case_event (
    theft_case_event_no bigint generated always as identity primary key,
    case_no bigint not null references theft_case,
    at timestamptz not null default now(),
    who text not null check (who <> ''),
    from_state text,
    to_state text not null,
    note text not null default ''
);
create index on theft_case_event (case_no);
create trigger theft_case_event_kept before update or delete on theft_case_event
    for each row execute function refuse_update();
