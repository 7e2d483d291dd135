"""Which terms a tariff needs a contract to have. Pure."""

from metering.tariff import Tariff


def terms_needed(tariff: Tariff) -> frozenset[str]:
    """Return the names of the terms that a contract under a tariff must give: those that the tariff has none of itself."""
    names: set[str] = set()
    for version in tariff.versions:
        names |= {charge.times for charge in version.document.fixed_charge if charge.times}
        for charge in version.document.demand:
            if charge.basis == "capacity":
                names.add("capacity_kva")
            if charge.basis == "contract" and charge.contract is not None:
                names.add(charge.contract.term)
                if charge.contract.floor_share is not None:
                    names.add(charge.contract.capacity_term)
            if charge.discount is not None:
                names.add(charge.discount.capacity_term)
    return frozenset(names - set(tariff.document.terms))
