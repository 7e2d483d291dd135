"""A total over weights in whole numbers: the sum is exact, and the same input gives the same shares."""


def spread(total: int, weights: list[int], unit: int = 1) -> list[int]:
    """Return shares of a total in proportion to weights, by the largest remainder; ties go to the earlier.

    Weights of zero alone share evenly. Where a weight is negative (energy fed in) the difference between the total and the sum of
    the weights is added evenly instead, for a proportion would turn it around.

    Args:
        total: What is shared.
        weights: One for each share.
        unit: How much weight is one of the total; matters to negative weights alone.

    Raises:
        ValueError: There is nothing to spread over.
    """
    count = len(weights)
    if not count:
        raise ValueError("there is no interval to spread over")
    whole = sum(weights)
    if min(weights) < 0:
        more = total * unit - whole
        return _rounded(total, [weight * count + more for weight in weights], count * unit)
    if not whole:
        return _rounded(total, [total] * count, count)
    return _rounded(total, [total * weight for weight in weights], whole)


def _rounded(total: int, parts: list[int], divisor: int) -> list[int]:
    """Return parts / divisor as whole numbers of the sum `total`."""
    shares = [part // divisor for part in parts]
    left = total - sum(shares)
    order = sorted(range(len(parts)), key=lambda place: (-(parts[place] % divisor), place))
    for place in order[:left]:
        shares[place] += 1
    return shares
