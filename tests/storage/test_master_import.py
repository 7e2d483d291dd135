"""Master data from files: everything or nothing, every fault with its place, and the same again changes nothing."""

import io
import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psycopg
import pytest

from storage.contract import fetch_contracts
from storage.first_tariffs import import_first_tariffs
from storage.master_import import KINDS, Imported, export_file, find_master_files, import_files

TOWN = {
    "customers": "customer_id,name,email,language\nc-1,李雷,li@example.com,zh\nc-2,Han Meimei,,en\n",
    "accounts": "account_id,customer_id,class,currency\na-1,c-1,residential,CNY\na-2,c-2,commercial,CNY\n",
    "service-points": 'service_point_id,postal_address,area\np-1,"1, Garden Road",east\np-2,2 Garden Road,east\n',
    "meters": "meter_id,service_point_id,tariff_id\nm-1,p-1,county-residential\nm-2,p-2,county-commercial\n"
    "m-3,p-1,county-residential\n",
    "contracts": "contract_id,account_id,service_point_id,start_on,end_on,billing_day,delivery,tariff_id,tariff_from,terms\n"
    "k-1,a-1,p-1,2026-01-01,,15,email,county-residential,,\n"
    "k-1,a-1,p-1,2026-01-01,,15,email,county-commercial,2026-06-01,contract_kw=20.50\n"
    "k-2,a-2,p-2,2026-02-01,2026-12-01,1,file,county-commercial,2026-02-01,\n",
    "exchanges": "service_point_id,at,old_meter_id,final_kwh,new_meter_id,initial_kwh,reason\n"
    "p-1,2026-03-01T08:00:00+08:00,m-1,6193.2,m-3,0.125,ten years old\n",
    "flags": "flag,day\nheat_day,2026-07-30\nheat_day,2026-07-31\n",
    "price-series": "series,start_at,price\nspot,2026-07-01T00:00:00+08:00,-0.05\nspot,2026-07-01T01:00:00+08:00,0.10\n",
}


@pytest.fixture
def make_conn(make_database: Callable[[], str]) -> Iterator[Callable[[], psycopg.Connection[Any]]]:
    conns: list[psycopg.Connection[Any]] = []

    def make() -> psycopg.Connection[Any]:
        dsn = make_database()
        import_first_tariffs(dsn)
        conns.append(psycopg.connect(dsn, autocommit=True))
        return conns[-1]

    yield make
    for conn in conns:
        conn.close()


@pytest.fixture
def conn(make_conn: Callable[[], psycopg.Connection[Any]]) -> psycopg.Connection[Any]:
    return make_conn()


def written(directory: Path, texts: Mapping[str, str]) -> dict[str, Path]:
    directory.mkdir(parents=True, exist_ok=True)
    for kind, text in texts.items():
        (directory / f"{kind}.csv").write_text(text, "utf-8")
    return find_master_files(directory)


def imported(conn: psycopg.Connection[Any], directory: Path, texts: Mapping[str, str], **options: Any) -> Imported:
    return import_files(conn, written(directory, texts), "ann", **options)


def everything(conn: psycopg.Connection[Any], *, as_json: bool = False) -> dict[str, str]:
    found = {}
    for kind in KINDS:
        stream = io.StringIO()
        export_file(conn, kind, stream, as_json=as_json)
        found[kind] = stream.getvalue()
    return found


def rows_of_all_tables(conn: psycopg.Connection[Any]) -> dict[str, list[Any]]:
    tables = "customer account service_point meter meter_assignment contract contract_tariff meter_exchange day_flag"
    return {
        table: conn.execute(f"select t::text from {table} t order by 1").fetchall()  # type: ignore[arg-type]
        for table in (*tables.split(), "price_series", "audit")
    }


def test_a_town_is_imported_in_one_go(conn: psycopg.Connection[Any], tmp_path: Path) -> None:
    done = imported(conn, tmp_path, TOWN)
    assert not done.faults
    assert {kind: (one.rows, one.new) for kind, one in done.outcomes.items()} == {
        "customers": (2, 2), "accounts": (2, 2), "service-points": (2, 2), "meters": (3, 3), "contracts": (3, 2),
        "exchanges": (1, 1), "flags": (2, 2), "price-series": (2, 2),
    }  # fmt: skip
    first, second = fetch_contracts(conn)
    assert [item.tariff_id for item in first.tariffs] == ["county-residential", "county-commercial"]
    assert str(first.tariffs[1].terms["contract_kw"]) == "20.5"
    assert (second.billing_day, str(second.end_on)) == (1, "2026-12-01")
    audit = conn.execute("select who, action from audit where action like 'import%' order by audit_no").fetchall()
    assert audit[0] == ("ann", "import.customers")
    assert len(audit) == 8


@pytest.mark.parametrize("as_json", [False, True], ids=["csv", "json"])
def test_what_is_exported_and_imported_again_changes_nothing(
    make_conn: Callable[[], psycopg.Connection[Any]], tmp_path: Path, as_json: bool
) -> None:
    conn, other = make_conn(), make_conn()
    assert not imported(conn, tmp_path / "first", TOWN).faults
    before, texts = rows_of_all_tables(conn), everything(conn, as_json=as_json)
    directory = tmp_path / "again"
    directory.mkdir()
    for kind, text in texts.items():
        (directory / f"{kind}.{'json' if as_json else 'csv'}").write_text(text, "utf-8")
    done = import_files(conn, find_master_files(directory), "bob")
    assert (done.faults, [(one.new, one.changed) for one in done.outcomes.values()]) == ([], [(0, 0)] * 8)
    assert rows_of_all_tables(conn) == before
    assert not import_files(other, find_master_files(directory), "bob").faults
    assert everything(other, as_json=as_json) == texts, "and another database becomes the same"


def test_a_dry_run_and_a_file_with_a_fault_leave_nothing(conn: psycopg.Connection[Any], tmp_path: Path) -> None:
    before = rows_of_all_tables(conn)
    assert imported(conn, tmp_path, TOWN, dry_run=True).outcomes["contracts"].new == 2
    assert rows_of_all_tables(conn) == before
    done = imported(conn, tmp_path, {**TOWN, "price-series": "series,start_at,price\nspot,2026-07-01,free\n"})
    assert done.faults == [
        "price-series.csv, line 2, start_at: '2026-07-01' is not an instant with offset, such as 2026-07-31T08:00:00+08:00",
        "price-series.csv, line 2, price: 'free' is not a decimal",
    ]
    assert rows_of_all_tables(conn) == before


def test_a_byte_order_mark_is_no_part_of_the_header(conn: psycopg.Connection[Any], tmp_path: Path) -> None:
    (tmp_path / "customers.csv").write_bytes(b"\xef\xbb\xbf" + TOWN["customers"].encode())
    assert import_files(conn, find_master_files(tmp_path), "ann").outcomes["customers"].new == 2


BAD = {
    "empty": (b"", "line 1, header: the file is empty"),
    "wrong header": (b"customer;name\nc-1;Li\n", "line 1, header: unknown column 'customer;name'"),
    "a column twice": (b"customer_id,name,name\n", "column 'name' is there twice"),
    "binary": (bytes(range(256)) * 40, "is not text in UTF-8"),
    "NUL": (b"customer_id,name\nc-1,a\0b\n", "line 2, name: 'a\\x00b' has signs that are no text"),
    "short row": (b"customer_id,name\nc-1\n", "line 2, line: has 1 cells, its header 2"),
    "no name": (b"customer_id,name\nc-1,\n", "line 2, name: is empty"),
    "bad id": ("customer_id,name\n李,Li\n".encode(), "line 2, customer_id: '李' is not 1 to 64 of"),
    "twice": (b"customer_id,name\nc-1,A\n\nc-1,B\n", "line 4, customer_id: c-1 is on line 2 already"),
    "language": (b"customer_id,name,language\nc-1,A,fr\n", "line 2, language: 'fr' is not en or zh"),
    "unclosed": (b'customer_id,name\nc-1,"A\n', "cannot be read: unexpected end of data"),
    "long": (b"customer_id,name\nc-1," + b"x" * 5000 + b"\n", "line 2, name: has 5000 signs, at most 1000"),
}


@pytest.mark.parametrize(("content", "fault"), BAD.values(), ids=BAD)
def test_a_bad_file_says_what_and_where(
    conn: psycopg.Connection[Any], tmp_path: Path, content: bytes, fault: str
) -> None:
    (tmp_path / "customers.csv").write_bytes(content)
    done = import_files(conn, find_master_files(tmp_path), "ann")
    assert any(fault in one for one in done.faults), done.faults
    assert conn.execute("select count(*) from customer").fetchone() == (0,)


BAD_JSON = {
    "no array": ('{"customer_id": "c-1"}', "line 1, file: is not an array"),
    "no object": ('[\n{"customer_id": "c-1", "name": "A"},\n5\n]', "line 3, line: is not an object"),
    "unknown": ('[\n\n{"customer_id": "c-1", "nom": "A"}]', "line 3, nom: unknown; known are"),
    "list": ('[{"customer_id": "c-1", "name": ["A"]}]', "line 1, name: \"['A']\" is neither text nor number"),
    "broken": ('[\n{"customer_id": "c-1",\n]', "line 3, file: cannot be read"),
    "half": ('[{"customer_id": "c-1", "name": "A"}', "cannot be read: expected , or ]"),
    "empty": ("", "the file is empty"),
    "deep": ("[" * 100_000, "cannot be read"),
}


@pytest.mark.parametrize(("content", "fault"), BAD_JSON.values(), ids=BAD_JSON)
def test_a_bad_json_file_says_what_and_where(
    conn: psycopg.Connection[Any], tmp_path: Path, content: str, fault: str
) -> None:
    (tmp_path / "customers.json").write_text(content, "utf-8")
    done = import_files(conn, find_master_files(tmp_path), "ann")
    assert any(fault in one for one in done.faults), done.faults


def test_ten_thousand_faults_are_counted_and_200_shown(conn: psycopg.Connection[Any], tmp_path: Path) -> None:
    rows = "".join(f"c-{number},A,nowhere\n" for number in range(10_000))
    done = imported(conn, tmp_path, {"customers": "customer_id,name,email\n" + rows})
    assert (done.fault_count, len(done.faults)) == (10_000, 200)
    assert done.faults[199] == "customers.csv, line 201, email: 'nowhere' is not an e-mail address"


HEADER = "contract_id,account_id,service_point_id,start_on,end_on,tariff_id,tariff_from\n"
BAD_CONTRACTS = {
    "overlap with the database": (
        "k-3,a-2,p-2,2026-11-30,,county-commercial,",
        "line 2, start_on: k-3 at p-2 from 2026-11-30 until its end overlaps k-2, from 2026-02-01 until 2026-12-01",
    ),
    "overlap in the file": (
        "k-3,a-2,p-2,2027-01-01,2027-03-01,county-commercial,\nk-4,a-2,p-2,2027-02-28,,county-commercial,",
        "line 3, start_on: k-4 at p-2 from 2027-02-28 until its end overlaps k-3, from 2027-01-01 until 2027-03-01",
    ),
    "currencies mixed": (
        "k-3,a-euro,p-2,2027-01-01,,county-commercial,",
        "line 2, tariff_id: county-commercial is in CNY, account a-euro in EUR: one account has one currency",
    ),
    "unknown account": ("k-3,a-9,p-2,2027-01-01,,county-commercial,", "line 2, account_id: no account 'a-9'"),
    "unknown point": ("k-3,a-1,p-9,2027-01-01,,county-commercial,", "line 2, service_point_id: no service point 'p-9'"),
    "unknown tariff": ("k-3,a-1,p-2,2027-01-01,,gold,", "line 2, tariff_id: no tariff 'gold'"),
    "dates reversed": (
        "k-3,a-1,p-2,2027-02-01,2027-01-01,county-commercial,",
        "line 2, end_on: 2027-01-01 is not after 2027-02-01",
    ),
    "tariff before the contract": (
        "k-3,a-1,p-2,2027-02-01,,county-commercial,2027-01-01",
        "line 2, tariff_from: 2027-01-01 is before 2027-02-01, on which the contract starts",
    ),
    "tariff after the contract": (
        "k-2,a-2,p-2,2026-02-01,2026-12-01,county-residential,2026-12-01",
        "line 2, tariff_from: 2026-12-01 is not before 2026-12-01, on which the contract ends",
    ),
    "no tariff at first": (
        "k-3,a-1,p-2,2027-02-01,,county-commercial,2027-03-01",
        "line 2, tariff_from: k-3 has no tariff on 2027-02-01, its first day",
    ),
    "two tariffs of a day": (
        "k-3,a-1,p-2,2027-02-01,,county-commercial,\nk-3,a-1,p-2,2027-02-01,,county-residential,2027-02-01",
        "line 3, tariff_from: k-3 has a tariff from 2027-02-01 on line 2 already",
    ),
    "two minds": (
        "k-3,a-1,p-2,2027-02-01,,county-commercial,\nk-3,a-2,p-2,2027-02-01,,county-residential,2027-03-01",
        "line 3, contract_id: k-3 is on line 2 with another account",
    ),
    "another account": (
        "k-2,a-1,p-2,2026-02-01,2026-12-01,county-commercial,",
        "line 2, contract_id: k-2 is there, of account a-2 at p-2 from 2026-02-01: that never changes",
    ),
}


@pytest.mark.parametrize(("rows", "fault"), BAD_CONTRACTS.values(), ids=BAD_CONTRACTS)
def test_a_contract_that_cannot_be_is_refused_with_the_reason(
    conn: psycopg.Connection[Any], tmp_path: Path, rows: str, fault: str
) -> None:
    assert not imported(conn, tmp_path / "town", TOWN).faults
    conn.execute("insert into account (account_id, customer_no, currency) values ('a-euro', 1, 'EUR')")
    before = rows_of_all_tables(conn)
    done = imported(conn, tmp_path / "bad", {"contracts": HEADER + rows + "\n"})
    assert len(done.faults) == 1, done.faults
    assert fault in done.faults[0]
    assert rows_of_all_tables(conn) == before


def test_contracts_may_meet_and_one_may_end_in_the_file_that_begins_the_next(
    conn: psycopg.Connection[Any], tmp_path: Path
) -> None:
    assert not imported(conn, tmp_path / "town", TOWN).faults
    rows = "k-2,a-2,p-2,2026-02-01,2026-09-01,county-commercial,\nk-3,a-1,p-2,2026-09-01,,county-residential,\n"
    done = imported(conn, tmp_path / "next", {"contracts": HEADER + rows})
    assert not done.faults
    assert (done.outcomes["contracts"].new, done.outcomes["contracts"].changed) == (1, 1)
    assert done.outcomes["contracts"].before == {"k-2": {"end_on": "2026-12-01"}}


def test_a_tariff_that_is_replaced_is_kept_with_when(conn: psycopg.Connection[Any], tmp_path: Path) -> None:
    assert not imported(conn, tmp_path / "town", TOWN).faults
    rows = "k-2,a-2,p-2,2026-02-01,2026-12-01,county-residential,\n"
    assert imported(conn, tmp_path / "next", {"contracts": HEADER + rows}).outcomes["contracts"].changed == 1
    kept = conn.execute(
        "select tariff_id, replaced_at is null, entered_by from contract_tariff join contract using (contract_no)"
        " where contract_id = 'k-2' order by contract_tariff_no"
    ).fetchall()
    assert kept == [("county-commercial", False, "ann"), ("county-residential", True, "ann")]


def test_what_is_allowed_and_odd_is_said(conn: psycopg.Connection[Any], tmp_path: Path) -> None:
    town = {**TOWN, "service-points": TOWN["service-points"] + "p-9,nowhere,\n"}
    town["contracts"] = HEADER.replace("tariff_from", "tariff_from,delivery") + (
        "k-9,a-2,p-9,2026-05-10,,county-commercial,,email\n"
    )
    notices = imported(conn, tmp_path, town).outcomes["contracts"].notices
    assert notices[0].startswith(
        "1 new contracts start in the past, the earliest (k-9) on 2026-05-10: bills can be run"
    )
    assert "ends on 2026-06-01" in notices[0]
    assert notices[1].startswith("1 contracts have no meter yet, such as k-9 at p-9")
    assert "k-9 of account a-2" in notices[2]


def test_columns_that_a_file_does_not_have_stay_as_they_are(conn: psycopg.Connection[Any], tmp_path: Path) -> None:
    assert not imported(conn, tmp_path / "town", TOWN).faults
    done = imported(conn, tmp_path / "next", {"customers": "customer_id,name\nc-1,李雷雷\n"})
    assert done.outcomes["customers"].before == {"c-1": {"name": "李雷"}}
    row = conn.execute("select name, email, language from customer where customer_id = 'c-1'").fetchone()
    assert row == ("李雷雷", "li@example.com", "zh")


def test_an_account_with_contracts_keeps_its_currency(conn: psycopg.Connection[Any], tmp_path: Path) -> None:
    assert not imported(conn, tmp_path / "town", TOWN).faults
    done = imported(conn, tmp_path / "next", {"accounts": "account_id,customer_id,currency\na-1,c-1,EUR\n"})
    assert done.faults == ["accounts.csv, line 2, currency: a-1 has contracts whose tariffs are in CNY, not EUR"]


def test_flags_are_withdrawn_and_prices_published_anew_and_both_kept(
    conn: psycopg.Connection[Any], tmp_path: Path
) -> None:
    assert not imported(conn, tmp_path / "town", TOWN).faults
    done = imported(
        conn,
        tmp_path / "next",
        {
            "flags": "flag,day,withdrawn\nheat_day,2026-07-30,yes\nheat_day,2026-08-01,no\n",
            "price-series": "series,start_at,price\nspot,2026-06-30T16:00:00Z,-0.06\n",
        },
    )
    assert [(one.new, one.changed) for one in done.outcomes.values()] == [(1, 1), (0, 1)]
    assert conn.execute("select count(*), count(withdrawn_at) from day_flag").fetchone() == (3, 1)
    assert conn.execute("select count(*) from price_series").fetchone() == (3,)
    assert "spot,2026-06-30T16:00:00+00:00,-0.06" in everything(conn)["price-series"]


def test_faults_of_a_json_file_of_meters_name_its_own_lines(conn: psycopg.Connection[Any], tmp_path: Path) -> None:
    rows = [{"meter_id": "m-1"}, {"meter_id": "m-2", "interval_s": 0}]
    (tmp_path / "meters.json").write_text(json.dumps(rows, indent=1), "utf-8")
    done = import_files(conn, find_master_files(tmp_path), "ann")
    assert [fault.split(":")[0] for fault in done.faults] == ["meters.json, line 5, interval_s"]


def test_the_time_of_an_import_grows_with_its_rows_and_no_faster(conn: psycopg.Connection[Any], tmp_path: Path) -> None:
    """A check that looks at every other row for each would take half a minute for these."""
    numbers = range(10_000)
    town = {
        "customers": "customer_id,name\nc-1,Li\n",
        "accounts": "account_id,customer_id,currency\na-1,c-1,CNY\n",
        "service-points": "service_point_id\n" + "".join(f"p-{number}\n" for number in numbers),
        "contracts": HEADER
        + "".join(f"k-{number},a-1,p-{number},2026-01-01,,county-residential,\n" for number in numbers),
    }
    began = time.monotonic()
    assert imported(conn, tmp_path, town).outcomes["contracts"].new == 10_000
    assert time.monotonic() - began < 15
