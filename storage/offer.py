"""Offers: a customer's own past under another tariff, kept, decided, and made a tariff of the contract."""

import dataclasses
import datetime as dt
import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
from psycopg.rows import dict_row

from metering.calendar import US, local_midnight_s
from metering.contract import Contract
from metering.offer import compare, edges_of, past_span, present_tariff, tariff_as_of
from metering.tariff import Tariff
from metering.terms import RatingError
from metering.usage import Inputs, Load
from storage.audit import write_audit
from storage.bill_input import fetch_inputs
from storage.contract import ContractError, check_tariff, fetch_contracts, set_contract_tariff
from storage.load import ServiceLoad, fetch_load

OFFERS_AT_ONCE_MAX = 10


class OfferError(ValueError):
    """An offer cannot be made or decided; the text says why."""


@dataclasses.dataclass(frozen=True)
class Proposed:
    """What a contract is offered."""

    tariff_ids: Sequence[str]
    terms: Mapping[str, Decimal]
    """Beside those that the contract has."""
    start_on: dt.date
    valid_until: dt.date
    """First day on which it can no longer be accepted."""


@dataclasses.dataclass(frozen=True)
class _Past:
    """What a comparison is made from."""

    load: ServiceLoad
    edges: list[dt.date]
    covered_days: Decimal


def make_offers(
    conn: psycopg.Connection[Any], contract_id: str, offered: Proposed, now: dt.datetime, who: str
) -> list[dict[str, Any]]:
    """Price the past year of a contract under tariffs, and keep an offer of each; return them with their numbers.

    Every tariff, the present one too, has the prices that hold on `start_on`, as if they had always held.

    Raises:
        OfferError: With what is wrong; no offer was made.
    """
    with conn.transaction():
        start_on, wanted_ids = offered.start_on, offered.tariff_ids
        contract = _contract(conn, contract_id)
        present = present_tariff(contract, start_on)
        now_tariff = tariff_as_of(_document(conn, present.tariff_id), start_on)
        today = now.astimezone(now_tariff.zone).date()
        if offered.valid_until <= today:
            raise OfferError(f"an offer valid until {offered.valid_until} has expired today, {today}")
        if not 0 < len(wanted_ids) <= OFFERS_AT_ONCE_MAX:
            raise OfferError(f"{len(wanted_ids)} tariffs: offer 1 to {OFFERS_AT_ONCE_MAX} at once")
        wanted = {**present.terms, **offered.terms}
        for tariff_id in wanted_ids:
            try:
                check_tariff(conn, contract_id, tariff_id, wanted, start_on)
            except ContractError as error:
                raise OfferError(str(error)) from None
        past = _past(conn, contract, now_tariff, today)
        made = []
        for tariff_id in wanted_ids:
            tariff = tariff_as_of(_document(conn, tariff_id), start_on)
            comparison = _comparison(conn, contract, past, (now_tariff, present.terms), (tariff, wanted))
            comparison["prices_of"] = start_on.isoformat()
            row = conn.execute(
                "insert into offer (contract_no, tariff_id, terms, start_on, valid_until, comparison, made_by)"
                " values (%s, %s, %s, %s, %s, %s, %s) returning offer_no",
                (
                    contract.contract_no,
                    tariff_id,
                    json.dumps(_texts(wanted)),
                    start_on,
                    offered.valid_until,
                    json.dumps(comparison),
                    who,
                ),
            ).fetchone()
            assert row is not None
            write_audit(conn, who, "offer.make", contract_id, {"offer": row[0], "tariff": tariff_id})
            made.append({"offer_no": row[0], "contract_id": contract_id, "tariff_id": tariff_id, **comparison})
        return made


def _texts(terms: Mapping[str, Decimal]) -> dict[str, str]:
    return {name: str(value) for name, value in sorted(terms.items())}


def _contract(conn: psycopg.Connection[Any], contract_id: str) -> Contract:
    row = conn.execute("select contract_no from contract where contract_id = %s", (contract_id,)).fetchone()
    found = fetch_contracts(conn, contract_nos=[row[0]]) if row else []
    if not found:
        raise OfferError(f"no contract {contract_id!r} with a tariff")
    return found[0]


def _document(conn: psycopg.Connection[Any], tariff_id: str) -> dict[str, Any]:
    row = conn.execute("select document from tariff where tariff_id = %s", (tariff_id,)).fetchone()
    if row is None:
        raise OfferError(f"no tariff {tariff_id!r}: `gridtally import tariff FILE` brings one")
    document: dict[str, Any] = row[0]
    return document


def _past(conn: psycopg.Connection[Any], contract: Contract, tariff: Tariff, today: dt.date) -> _Past:
    """Return the load of the past year, from the first local day that anything is known of."""
    start_on, end_on = past_span(contract, today)
    bounds = [local_midnight_s(tariff, day) * US for day in (start_on, end_on)]
    load = fetch_load(conn, contract.service_point_no, *bounds)
    if not len(load.load.start_us):
        raise OfferError(
            f"{contract.contract_id} has no usage from {start_on} until {end_on}: nothing can be compared yet"
        )
    first = dt.datetime.fromtimestamp(int(load.load.start_us[0]) // US, tariff.zone).date()
    covered_days = (Decimal(int(load.covered_s.sum())) / 86_400).quantize(Decimal("0.1"))
    return _Past(load, edges_of(contract, max(start_on, first), end_on), covered_days)


def _comparison(
    conn: psycopg.Connection[Any],
    contract: Contract,
    past: _Past,
    present: tuple[Tariff, Mapping[str, Decimal]],
    proposed: tuple[Tariff, Mapping[str, Decimal]],
) -> dict[str, Any]:
    load = past.load.load
    sides = [(tariff, _inputs(conn, tariff, load, terms)) for tariff, terms in (present, proposed)]
    try:
        months = compare(load, past.edges, sides[0], sides[1], contract.start_on)
    except (RatingError, ValueError) as error:
        raise OfferError(f"tariff {proposed[0].tariff_id} against {present[0].tariff_id}: {error}") from None
    totals = [sum((getattr(month, side) for month in months), Decimal(0)) for side in ("present", "proposed")]
    return {
        "start_on": past.edges[0].isoformat(),
        "end_on": past.edges[-1].isoformat(),
        "days": (past.edges[-1] - past.edges[0]).days,
        "covered_days": str(past.covered_days),
        "energy_wh": past.load.energy_wh,
        "export_wh": past.load.export_wh,
        "estimated_wh": int(past.load.estimated_wh.sum()),
        "currency": proposed[0].document.currency,
        "present": {"tariff_id": present[0].tariff_id, "terms": _texts(present[1]), "total": str(totals[0])},
        "proposed": {"tariff_id": proposed[0].tariff_id, "terms": _texts(proposed[1]), "total": str(totals[1])},
        "difference": str(totals[1] - totals[0]),
        "months": [
            {
                "start_on": month.start_on.isoformat(),
                "end_on": month.end_on.isoformat(),
                "energy_wh": month.energy_wh,
                "present": str(month.present),
                "proposed": str(month.proposed),
                "difference": str(month.difference),
            }
            for month in months
        ],
    }


def _inputs(conn: psycopg.Connection[Any], tariff: Tariff, load: Load, terms: Mapping[str, Decimal]) -> Inputs:
    inputs = fetch_inputs(conn, [tariff], int(load.start_us[0]), int(load.start_us[-1]) + load.interval_s * US)
    return dataclasses.replace(inputs, terms=terms)


def fetch_offers(
    conn: psycopg.Connection[Any], *, contract_id: str | None = None, offer_no: int | None = None, limit: int = 100
) -> list[dict[str, Any]]:
    """Return offers, newest first."""
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(
            "select o.offer_no, c.contract_id, o.tariff_id, o.terms, o.start_on, o.valid_until, o.state, o.made_at,"
            " o.made_by, o.decided_at, o.decided_by, o.comparison from offer o join contract c using (contract_no)"
            " where (%(contract)s::text is null or c.contract_id = %(contract)s)"
            " and (%(no)s::bigint is null or o.offer_no = %(no)s) order by o.offer_no desc limit %(limit)s",
            {"contract": contract_id, "no": offer_no, "limit": limit},
        ).fetchall()


def decide_offer(
    conn: psycopg.Connection[Any], offer_no: int, now: dt.datetime, who: str, *, accepts: bool
) -> list[str]:
    """Accept or decline an offer; return what should be known. An accepted one becomes the contract's tariff.

    Raises:
        OfferError: There is none, it has expired, or it was decided; nothing was changed.
    """
    with conn.transaction():
        row = conn.execute(
            "select c.contract_id, o.tariff_id, o.terms, o.start_on, o.valid_until, o.state, o.decided_by, o.decided_at,"
            " t.document->>'zone' from offer o join contract c using (contract_no) join tariff t using (tariff_id)"
            " where offer_no = %s for update of o",
            (offer_no,),
        ).fetchone()
        if row is None:
            raise OfferError(f"no offer {offer_no}")
        contract_id, tariff_id, terms, start_on, valid_until, state, decided_by, decided_at, _ = row
        if state != "open":
            raise OfferError(f"offer {offer_no} was {state} by {decided_by} on {decided_at:%Y-%m-%d}")
        notices: list[str] = []
        if accepts:
            if _day(now, row[8]) >= valid_until:
                raise OfferError(f"offer {offer_no} has expired: it was valid until {valid_until}. Make another")
            values = {name: Decimal(value) for name, value in terms.items()}
            try:
                notices = set_contract_tariff(conn, contract_id, tariff_id, start_on, values, who)
            except ContractError as error:
                raise OfferError(str(error)) from None
        word = "accepted" if accepts else "declined"
        conn.execute(
            "update offer set state = %s, decided_at = now(), decided_by = %s where offer_no = %s",
            (word, who, offer_no),
        )
        write_audit(
            conn,
            who,
            f"offer.{'accept' if accepts else 'decline'}",
            contract_id,
            {"offer": offer_no, "tariff": tariff_id},
        )
    return notices


def _day(now: dt.datetime, zone: str) -> dt.date:
    return now.astimezone(ZoneInfo(zone)).date()
