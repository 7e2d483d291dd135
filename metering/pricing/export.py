"""Energy fed in: set against energy drawn, credited, carried over."""

from decimal import Decimal

import numpy as np

from metering.state import Int64Column


def net_columns(group: Int64Column, import_wh: Int64Column, export_wh: Int64Column) -> tuple[Int64Column, Int64Column]:
    """Return what is left on each side when energy is set off within groups.

    What is left is put on the group's first part, so totals by group are right and no energy is split.

    Args:
        group: Shape (n,), any number that is the same within a group.
        import_wh: Shape (n,), Wh.
        export_wh: Shape (n,), Wh.

    Returns:
        Net import and net export, shape (n,), never both above zero in a group.
    """
    _, first, place = np.unique(group, return_index=True, return_inverse=True)
    net = np.zeros(len(first), np.int64)
    np.add.at(net, place, import_wh - export_wh)
    drawn, fed = np.zeros_like(import_wh), np.zeros_like(export_wh)
    drawn[first], fed[first] = np.maximum(net, 0), np.maximum(-net, 0)
    return drawn, fed


def use_credit(net_wh: int, credit_wh: int) -> tuple[int, int]:
    """Return what of a net energy is billed, and the credit that is left, when credits carry over in kWh.

    Args:
        net_wh: Import less export of the cycle, Wh; negative where more was fed in.
        credit_wh: Of earlier cycles, Wh.
    """
    after = net_wh - credit_wh
    return max(after, 0), max(-after, 0)


def pool(net_wh: Int64Column) -> Int64Column:
    """Return energies of periods with the surpluses of some taken off the others by their share.

    Args:
        net_wh: Shape (n,), import less export by period, Wh.

    Returns:
        Shape (n,), the same sum; all of one sign, a surplus of the whole being on the first period.
    """
    total, drawn = int(net_wh.sum()), np.maximum(net_wh, 0)
    if total <= 0:
        surplus = np.zeros_like(net_wh)
        surplus[:1] = total
        return surplus
    reached = [total * part // int(drawn.sum()) for part in np.cumsum(drawn).tolist()]
    edges = np.array([0, *reached], np.int64)
    return edges[1:] - edges[:-1]


def use_money(charges: Decimal, credit: Decimal) -> tuple[Decimal, Decimal]:
    """Return how much of a credit is used against charges and how much is carried on; both not below zero."""
    used = min(max(charges, Decimal(0)), credit)
    return used, credit - used
