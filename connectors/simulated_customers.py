"""Who lives in the simulated town: customers, accounts and contracts of its meters, as files of master data.

All of it follows from the place of a meter alone, so the same town has the same people each time it is written.
"""

import csv
import datetime as dt
from pathlib import Path
from typing import Any

from connectors.simulator import KINDS, SLOT_S, ZONE_OFFSET_S, Utility

FAMILY_ZH = "李王张刘陈杨赵黄周吴徐孙马朱胡"
GIVEN_ZH = ("伟", "芳", "娜", "敏", "静", "强", "磊", "洋", "艳", "杰", "秀英", "建国", "志强", "小红")
GIVEN_EN = ("Alice", "Bruno", "Clara", "David", "Emma", "Farid", "Grace", "Hugo", "Ines", "Jonas", "Kate")
FAMILY_EN = ("Abbott", "Baker", "Costa", "Dupont", "Evans", "Fischer", "Garcia", "Hansen", "Ivanov")
SHOPS_ZH = ("面馆", "药店", "超市", "理发店", "五金店", "茶庄")
WORKSHOPS_ZH = ("机械厂", "木器厂", "食品厂")
STREETS = ("人民路", "解放路", "Garden Road", "中山路", "Mill Lane", "河滨路")
ENGLISH_EACH = 4
EMAIL_EACH = 3
MIDMONTH_EACH = 7
"""Every so many customers read English, have an address for e-mail, are billed from the 15th on."""
INDUSTRY = "workshop"


def write_master_files(utility: Utility, directory: Path, interval_s: int) -> None:
    """Write the files that `gridtally import all` takes; contracts begin with the first local day of the history."""
    directory.mkdir(parents=True, exist_ok=True)
    utility.write_csv(directory / "meters.csv", interval_s)
    start_on = dt.datetime.fromtimestamp(utility.origin_s // SLOT_S * SLOT_S + ZONE_OFFSET_S, dt.UTC).date()
    rows = [_place(utility, number, start_on) for number in range(utility.size)]
    for kind in ("customers", "accounts", "service-points", "contracts"):
        with (directory / f"{kind}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0][kind]))
            writer.writeheader()
            writer.writerows(row[kind] for row in rows)


def _place(utility: Utility, number: int, start_on: dt.date) -> dict[str, dict[str, Any]]:
    """Return one row of each file for a meter."""
    kind = KINDS[utility.kind[number]]
    customer_id, account_id, point = (f"{letter}-{number + 1:05d}" for letter in ("c", "a", "sp"))
    is_english = number % ENGLISH_EACH == 0
    email = f"{customer_id}@example.com" if number % EMAIL_EACH == 0 else ""
    address = f"{STREETS[number % len(STREETS)]} {number // len(STREETS) + 1}"
    return {
        "customers": {
            "customer_id": customer_id,
            "name": _name(number, kind.name, is_english=is_english),
            "email": email,
            "postal_address": address,
            "language": "en" if is_english else "zh",
        },
        "accounts": {
            "account_id": account_id,
            "customer_id": customer_id,
            "class": "residential" if kind.name == "household" else "commercial",
            "currency": "CNY",
        },
        "service-points": {
            "service_point_id": point,
            "postal_address": address,
            "area": f"transformer-{number * 20 // utility.size + 1:02d}",
        },
        "contracts": {
            "contract_id": f"k-{number + 1:05d}",
            "account_id": account_id,
            "service_point_id": point,
            "start_on": start_on,
            "billing_day": 15 if number % MIDMONTH_EACH == 1 else 1,
            "delivery": "email" if email else "file",
            "tariff_id": "county-industrial" if kind.name == INDUSTRY else kind.tariff_id,
        },
    }


def _name(number: int, kind: str, *, is_english: bool) -> str:
    if is_english:
        name = f"{GIVEN_EN[number % len(GIVEN_EN)]} {FAMILY_EN[number // 4 % len(FAMILY_EN)]}"
        return name if kind == "household" else f"{name} Ltd"
    family = FAMILY_ZH[number % len(FAMILY_ZH)]
    if kind == "household":
        return family + GIVEN_ZH[number // 3 % len(GIVEN_ZH)]
    trades = WORKSHOPS_ZH if kind == INDUSTRY else SHOPS_ZH
    return f"{family}记{trades[number % len(trades)]}"
