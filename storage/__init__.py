"""PostgreSQL and TimescaleDB: migrations, the settlement transaction, queries."""
