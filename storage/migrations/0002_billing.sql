-- Customers, contracts, sub-totals of days, bills, payments. Money is numeric with its currency, instants are UTC, days are
-- local days of the tariff's zone and half-open. What was issued or entered is never changed: it is replaced, and kept.

create extension if not exists btree_gist;

create function refuse_update() returns trigger language plpgsql as $$
begin
    raise exception '% keeps what was entered: add a row instead', tg_table_name;
end $$;

-- -- who, where, under which contract -------------------------------------------------------------------------------

create table customer (
    customer_no integer generated always as identity primary key,
    customer_id text not null unique check (customer_id ~ '^[A-Za-z0-9._-]{1,64}$'),
    name text not null,
    email text,
    phone text,
    postal_address text not null default '',
    language text not null default 'en' check (language in ('en', 'zh'))
);

create table account (
    account_no integer generated always as identity primary key,
    account_id text not null unique check (account_id ~ '^[A-Za-z0-9._-]{1,64}$'),
    customer_no integer not null references customer,
    class text not null default 'residential',
    currency text not null check (currency ~ '^[A-Z]{3}$')
);
create index on account (customer_no);

alter table service_point
    add column postal_address text not null default '',
    add column area text not null default '';

-- A meter measures a service point whether a contract is there or not; `tariff_id` holds until a contract says otherwise.
alter table meter_assignment alter column tariff_id drop not null;

-- One contract at a service point at a time. `billing_day` is the local day of the month on which its cycles begin.
create table contract (
    contract_no integer generated always as identity primary key,
    contract_id text not null unique check (contract_id ~ '^[A-Za-z0-9._-]{1,64}$'),
    account_no integer not null references account,
    service_point_no integer not null references service_point,
    start_on date not null,
    end_on date,
    billing_day integer not null default 1 check (billing_day between 1 and 28),
    delivery text not null default 'file' check (delivery in ('email', 'file', 'none')),
    check (start_on < end_on),
    constraint contracts_overlap exclude using gist (service_point_no with =, daterange(start_on, end_on) with &&)
);
create index on contract (account_no);

-- The tariff of a contract from a day on, until the next row's; append-only but for `replaced_at`, so that what was known
-- at any moment can be asked for. `terms` are decimals as text: {"contract_kw": "20"}.
create table contract_tariff (
    contract_tariff_no bigint generated always as identity primary key,
    contract_no integer not null references contract,
    start_on date not null,
    tariff_id text not null references tariff,
    terms jsonb not null default '{}',
    entered_at timestamptz not null default now(),
    entered_by text not null,
    replaced_at timestamptz
);
create unique index contract_tariff_live on contract_tariff (contract_no, start_on) where replaced_at is null;
create index on contract_tariff (contract_no);

-- Every document that a tariff ever had; `tariff` holds the one in force.
create table tariff_document (
    tariff_document_no bigint generated always as identity primary key,
    tariff_id text not null,
    document jsonb not null,
    document_sha256 text not null,
    loaded_at timestamptz not null default now()
);
create index on tariff_document (tariff_id, loaded_at);
create trigger tariff_document_kept before update or delete on tariff_document
    for each row execute function refuse_update();
create function keep_tariff_document() returns trigger language plpgsql as $$
begin
    insert into tariff_document (tariff_id, document, document_sha256) values (new.tariff_id, new.document, new.document_sha256);
    return null;
end $$;
create trigger tariff_kept after insert or update on tariff for each row execute function keep_tariff_document();
insert into tariff_document (tariff_id, document, document_sha256, loaded_at)
    select tariff_id, document, document_sha256, loaded_at from tariff;

-- Days published under a flag of the tariffs (heat_day); one that is withdrawn stays, with when.
create table day_flag (
    flag text not null,
    day date not null,
    published_at timestamptz not null default now(),
    published_by text not null,
    withdrawn_at timestamptz,
    primary key (flag, day, published_at)
);

-- Prices by index; of one instant the row published last holds.
create table price_series (
    series text not null,
    start_at timestamptz not null,
    price numeric not null,
    published_at timestamptz not null default now(),
    primary key (series, start_at, published_at)
);

create table meter_exchange (
    meter_exchange_no bigint generated always as identity primary key,
    service_point_no integer not null references service_point,
    at timestamptz not null,
    old_meter_no integer not null references meter,
    final_import_wh bigint not null,
    new_meter_no integer not null references meter,
    initial_import_wh bigint not null,
    reason text not null,
    entered_by text not null,
    entered_at timestamptz not null default now()
);

create table offer (
    offer_no bigint generated always as identity primary key,
    contract_no integer not null references contract,
    tariff_id text not null references tariff,
    terms jsonb not null default '{}',
    start_on date not null,
    valid_until date not null,
    comparison jsonb not null,
    state text not null default 'open' check (state in ('open', 'accepted', 'declined')),
    made_at timestamptz not null default now(),
    made_by text not null,
    decided_at timestamptz,
    decided_by text
);

create trigger contract_changed after insert or update or delete on contract
    for each statement execute function bump_registry_version();
create trigger contract_tariff_changed after insert or update or delete on contract_tariff
    for each statement execute function bump_registry_version();
create trigger day_flag_changed after insert or update or delete on day_flag
    for each statement execute function bump_registry_version();

-- Which price structure a state's quantities are of (0: the charge comes from the ledger), and the demand window under way.
alter table meter_state
    add column cycle_key bigint not null default 0,
    add column window_start bigint not null default -1,
    add column window_wh bigint not null default 0;

-- -- what was known when, and sub-totals of days ----------------------------------------------------------------------

-- Settlement notes now and then how far a partition had come: what was known at an instant are the facts below its offset.
create table ledger_clock (
    partition integer not null,
    committed_at timestamptz not null,
    next_offset bigint not null,
    primary key (partition, committed_at)
);

-- Up to which offset facts that end on a UTC day were written, so that only days with news are looked into again.
create table ledger_day (
    day date not null,
    partition integer not null,
    next_offset bigint not null,
    primary key (day, partition)
) with (fillfactor = 50);

-- What a ledger that was there before these tables has.
insert into ledger_day select (end_at at time zone 'UTC')::date, frame_partition, max(frame_offset) + 1 from fact group by 1, 2;

-- Energy of each quarter-hour of a UTC day of a meter: a fold over the facts up to `usage_refresh`, which can be made anew.
-- A long interval is spread evenly over its quarters, so a day may have energy of facts that end later. A column of quarters is
-- 96 four-byte integers, least byte first (half of what an array takes on the wire); null is what it nearly always is: nothing
-- fed in, nothing estimated, every quarter covered.
create table usage_day (
    meter_no integer not null,
    day date not null,
    import_wh bytea not null check (length(import_wh) = 384),
    export_wh bytea check (length(export_wh) = 384),
    estimated_wh bytea check (length(estimated_wh) = 384),
    covered_s bytea check (length(covered_s) = 384),
    quality integer not null,
    refresh_no bigint not null,
    primary key (meter_no, day)
);
alter table usage_day alter column import_wh set storage plain, alter column export_wh set storage external;

create table usage_refresh (
    day date, partition integer, next_offset bigint not null, primary key (day, partition)
);
create sequence usage_refresh_no;

-- Days that changed after a bill was made of them, or of others as late: what corrections are looked for by.
create table usage_change (
    meter_no integer, day date, refresh_no bigint not null, primary key (meter_no, day)
);

-- What a running charge was and became, when something other than the next reading changed it.
create table charge_change (
    charge_change_no bigint generated always as identity primary key,
    service_point_no integer not null,
    meter_no integer not null,
    cycle_start timestamptz not null,
    at timestamptz not null default now(),
    reason text not null,
    currency text not null,
    old_amount numeric not null,
    new_amount numeric not null,
    end_at timestamptz,
    revision integer,
    raw_partition integer,
    raw_offset bigint,
    raw_index integer
);
create index on charge_change (service_point_no, at);

-- -- bills ------------------------------------------------------------------------------------------------------------

create table bill_run (
    bill_run_no bigint generated always as identity primary key,
    start_on date not null,
    end_on date not null,
    selection jsonb not null default '{}',
    state text not null default 'running' check (state in ('running', 'done')),
    total integer not null default 0,
    done integer not null default 0,
    ledger_position jsonb not null,
    refresh_no bigint not null,
    problems jsonb not null default '[]',
    uncontracted jsonb not null default '[]',
    created_at timestamptz not null default now(),
    created_by text not null,
    finished_at timestamptz
);

-- Numbers without gaps: the row is locked by the transaction that issues.
create table bill_number (series text primary key, next_number bigint not null default 1);

create table bill (
    bill_id bigint generated always as identity primary key,
    bill_no text unique,
    kind text not null check (kind in ('invoice', 'credit_note', 'adjustment')),
    state text not null check (state in ('draft', 'held', 'checked', 'issued', 'sent', 'paid', 'overdue', 'cancelled')),
    contract_no integer not null references contract,
    account_no integer not null references account,
    start_on date not null,
    end_on date not null,
    currency text not null,
    total numeric not null,
    total_unrounded numeric not null,
    energy_wh bigint not null default 0,
    export_wh bigint not null default 0,
    estimated_wh bigint not null default 0,
    due_on date,
    bill_run_no bigint references bill_run,
    ledger_position jsonb not null,
    refresh_no bigint not null default 0,
    document jsonb not null,
    history_before jsonb not null default '{}',
    history_after jsonb not null default '{}',
    corrects bigint references bill,
    row_version integer not null default 1,
    created_at timestamptz not null default now(),
    created_by text not null,
    issued_at timestamptz,
    sent_at timestamptz,
    cancelled_at timestamptz,
    check (start_on < end_on),
    check ((bill_no is null) = (state in ('draft', 'held', 'checked'))),
    constraint bills_overlap exclude using gist (contract_no with =, daterange(start_on, end_on) with &&)
        where (kind = 'invoice' and state <> 'cancelled')
);
create index on bill (account_no);
create index on bill (contract_no, start_on);
create index on bill (corrects);
create index on bill (bill_run_no);
create index on bill (state);
create index on bill (start_on);

create table bill_line (
    bill_id bigint not null references bill on delete cascade,
    line_no integer not null,
    line_id text not null,
    kind text not null,
    label text not null,
    quantity numeric not null,
    unit text not null,
    price numeric not null,
    amount numeric not null,
    amount_unrounded numeric not null,
    tariff_document_no bigint references tariff_document,
    tariff_version integer,
    start_on date not null,
    end_on date not null,
    bucket integer,
    tier integer,
    corrects bigint references bill,
    reason text not null default '',
    primary key (bill_id, line_no)
);

-- An issued bill is never edited; what may move is how far it has come. Deleting exists for drafts only.
create function bill_guard() returns trigger language plpgsql as $$
begin
    if tg_op = 'DELETE' then
        if old.bill_no is not null then
            raise exception 'bill % was issued: it is cancelled by a credit note, never deleted', old.bill_no;
        end if;
        return old;
    end if;
    if old.bill_no is not null and (new.bill_no, new.kind, new.contract_no, new.account_no, new.start_on, new.end_on,
            new.currency, new.total, new.total_unrounded, new.energy_wh, new.export_wh, new.estimated_wh, new.due_on,
            new.ledger_position, new.document, new.history_before, new.history_after, new.corrects, new.issued_at)
        is distinct from (old.bill_no, old.kind, old.contract_no, old.account_no, old.start_on, old.end_on,
            old.currency, old.total, old.total_unrounded, old.energy_wh, old.export_wh, old.estimated_wh, old.due_on,
            old.ledger_position, old.document, old.history_before, old.history_after, old.corrects, old.issued_at) then
        raise exception 'bill % was issued: it is never edited', old.bill_no;
    end if;
    return new;
end $$;
create trigger bill_guard before update or delete on bill for each row execute function bill_guard();

create function bill_line_guard() returns trigger language plpgsql as $$
begin
    if exists (select from bill b where b.bill_id = old.bill_id and b.bill_no is not null) then
        raise exception 'a line of an issued bill is never edited';
    end if;
    return coalesce(new, old);
end $$;
create trigger bill_line_guard before update or delete on bill_line for each row execute function bill_line_guard();

-- Why a bill is held; a held bill goes on when every reason was released.
create table bill_hold (
    bill_id bigint not null references bill on delete cascade,
    reason text not null,
    value text not null,
    bound text not null,
    released_at timestamptz,
    released_by text,
    release_note text,
    primary key (bill_id, reason)
);

-- Four eyes: proposed by one, decided by another, about the bill as it was then.
create table proposal (
    proposal_id bigint generated always as identity primary key,
    action text not null check (action in ('amend', 'cancel', 'rebill')),
    bill_id bigint not null references bill,
    bill_row_version integer not null,
    content jsonb not null,
    effect jsonb not null,
    reason text not null check (reason <> ''),
    proposed_by text not null,
    proposed_at timestamptz not null default now(),
    state text not null default 'pending' check (state in ('pending', 'approved', 'rejected', 'void')),
    decided_by text,
    decided_at timestamptz,
    decision_note text,
    check (decided_by <> proposed_by)
);
create unique index proposal_pending on proposal (bill_id) where state = 'pending';

create table payment (
    payment_no bigint generated always as identity primary key,
    account_no integer not null references account,
    received_on date not null,
    amount numeric not null check (amount <> 0),
    currency text not null,
    reference text not null,
    entered_by text not null,
    entered_at timestamptz not null default now(),
    unique (account_no, reference)
);
create trigger payment_kept before update or delete on payment for each row execute function refuse_update();

create table delivery (
    delivery_no bigint generated always as identity primary key,
    bill_id bigint not null references bill,
    channel text not null check (channel in ('email', 'file')),
    address text not null,
    state text not null default 'queued' check (state in ('queued', 'sent', 'failed')),
    attempts integer not null default 0,
    next_attempt_at timestamptz not null default now(),
    last_error text not null default '',
    created_at timestamptz not null default now(),
    sent_at timestamptz,
    unique (bill_id, channel, address)
);
create index on delivery (state, next_attempt_at);

create table audit (
    audit_no bigint generated always as identity primary key,
    at timestamptz not null default now(),
    who text not null check (who <> ''),
    action text not null,
    subject text not null,
    detail jsonb not null default '{}'
);
create index on audit (subject, at);
create trigger audit_append_only before update or delete on audit for each row execute function refuse_update();
create trigger audit_never_truncated before truncate on audit for each statement execute function refuse_update();
