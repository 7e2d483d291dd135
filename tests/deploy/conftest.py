"""Order: what stops the shared processes comes last, or they would have to be started again (13 s)."""

import pytest

LAST = "test_each_process_ends_in_order_when_docker_stops_it"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Move the last one of a module behind its neighbours; pytest-randomly has shuffled before."""
    for item in [item for item in items if item.name == LAST]:
        place = max(number for number, other in enumerate(items) if other.path == item.path)
        items.insert(place, items.pop(items.index(item)))
