"""Energy by price bucket."""

import numpy as np

from metering.state import Int64Column


def wh_by_bucket(bucket: Int64Column, energy_wh: Int64Column, buckets: int) -> Int64Column:
    """Return the energy in each price bucket.

    Args:
        bucket: Shape (n,), code of each part's bucket, below `buckets`.
        energy_wh: Shape (n,), Wh.
        buckets: How many there are.
    """
    total_wh = np.zeros(buckets, np.int64)
    np.add.at(total_wh, bucket, energy_wh)
    return total_wh
