-- How many meters of a gateway each partition hears, and how many of them are silent: together they say whether the gateway is.
create table gateway_silence (
    gateway_id text not null,
    partition integer not null,
    members integer not null,
    silent integer not null,
    primary key (gateway_id, partition)
);
