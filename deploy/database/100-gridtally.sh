#!/bin/sh
# Runs once, on an empty database: our role, which is no superuser, and its database. The image's own scripts have put the
# extension timescaledb into template1 before. The password goes through psql's variables, not through an argument.
set -eu
psql --no-psqlrc -v ON_ERROR_STOP=1 --username "${POSTGRES_USER:-postgres}" --dbname postgres <<'SQL'
\set password `cat "${DATABASE_PASSWORD_FILE:-/run/secrets/database_password}"`
create role gridtally login password :'password';
-- `gridtally migrate` looks whether TimescaleDB is preloaded, before it makes hypertables
grant pg_read_all_settings to gridtally;
create database gridtally owner gridtally;
revoke all on database gridtally from public;
SQL
