"""Plugins and profiles; no fixture bodies here."""

import os

from hypothesis import HealthCheck, settings

pytest_plugins = ["tests.fixtures.fix_stack", "tests.fixtures.fix_ledger", "tests.fixtures.fix_database"]

settings.register_profile("dev", deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile(
    "ci", deadline=None, max_examples=200, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "dev"))
