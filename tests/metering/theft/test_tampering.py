"""Generic tampering and honest changes: what the detector learns from."""

import numpy as np
import pytest

from metering.theft import honest_change, tampering
from metering.theft.made_home import made_homes

HOMES = made_homes(6, 2, 96, np.random.default_rng(11))


@pytest.mark.parametrize("slots", [24, 48, 96])
@pytest.mark.parametrize("family", sorted(tampering.FAMILIES))
def test_every_family_keeps_the_shape_and_is_never_negative(family: str, slots: int) -> None:
    chance = np.random.default_rng(2)
    for home in made_homes(5, 1, slots, np.random.default_rng(12))[:, 0]:
        changed = tampering.tampered(home, chance, family)
        assert changed.shape == home.shape
        assert np.isfinite(changed).all()
        assert changed.min() >= 0
        assert not np.array_equal(changed, home)


@pytest.mark.parametrize("family", ["gain", "offset", "clip", "bypass"])
def test_families_of_less_count_less(family: str) -> None:
    chance = np.random.default_rng(3)
    home = HOMES[0, 0]
    assert tampering.LESS[family](home, chance).sum() < home.sum()


@pytest.mark.parametrize("name", sorted(honest_change.KINDS))
def test_honest_change_keeps_the_shape_and_is_never_negative(name: str) -> None:
    chance = np.random.default_rng(4)
    for number in range(5):
        changed = honest_change.KINDS[name](HOMES[number, 0], HOMES[number + 1, 0], chance)
        assert changed.shape == HOMES[0, 0].shape
        assert changed.min() >= 0


def test_heat_pump_and_car_add_energy_and_the_sun_takes_only_by_day() -> None:
    chance = np.random.default_rng(5)
    home = HOMES[0, 0]
    for name in ("new_heating", "new_electric_car"):
        assert (honest_change.KINDS[name](home, home, chance) >= home).all()
    sunny = honest_change.KINDS["new_solar"](home, home, chance)
    assert (sunny <= home).all()
    assert np.array_equal(sunny[:, :24], home[:, :24])


def test_same_seed_makes_the_same_tampering_and_the_same_homes() -> None:
    one, other = (tampering.tampered(HOMES[0, 0], np.random.default_rng(6)) for _ in range(2))
    assert np.array_equal(one, other)
    one, other = (made_homes(2, 1, 48, np.random.default_rng(7)) for _ in range(2))
    assert np.array_equal(one, other)
