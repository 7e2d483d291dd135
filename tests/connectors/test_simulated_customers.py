"""The simulated town has people with contracts, and is imported whole."""

from pathlib import Path

import psycopg

from connectors.simulated_customers import write_master_files
from connectors.simulator import Utility
from storage.contract import fetch_contracts
from storage.first_tariffs import import_first_tariffs
from storage.master_import import find_master_files, import_files

ORIGIN_S = 1_792_943_100  # 2026-10-25 23:45 in Shanghai, still the 25th


def test_every_meter_of_the_town_has_a_contract_from_the_first_day_of_its_history(
    database: str, tmp_path: Path
) -> None:
    import_first_tariffs(database)
    utility = Utility(500, 1, ORIGIN_S)
    write_master_files(utility, tmp_path, 900)
    with psycopg.connect(database, autocommit=True) as conn:
        done = import_files(conn, find_master_files(tmp_path), "demo")
        assert not done.faults
        contracts = fetch_contracts(conn)
        assert {str(contract.start_on) for contract in contracts} == {"2026-10-25"}
        tariffs = [contract.tariffs[0].tariff_id for contract in contracts]
        counts = {name: tariffs.count(name) for name in sorted(set(tariffs))}
        assert (len(contracts), list(counts)) == (500, ["county-commercial", "county-industrial", "county-residential"])
        assert counts["county-industrial"] == 3
        for column, table in (("language", "customer"), ("billing_day", "contract")):
            assert conn.execute(f"select count(distinct {column}) from {table}".encode()).fetchone() == (2,)
        assert conn.execute("select count(*) from customer where email not like '%@example.com'").fetchone() == (0,)
        write_master_files(utility, tmp_path, 60)
        again = import_files(conn, find_master_files(tmp_path), "demo")
        assert {kind: (one.new, one.changed) for kind, one in again.outcomes.items()} == {
            kind: (0, 500 if kind == "meters" else 0) for kind in done.outcomes
        }
