"""One thread of arithmetic for every test, and property tests that depend on no clock."""

import os

import pytest
from hypothesis import settings


def pytest_configure(config: pytest.Config) -> None:
    # Read when torch is first imported, by the tests or by the processes that they start: small
    # models are fastest on one thread, and equal runs need the same number of them.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # A busy machine is no failure. In CI the same examples every time; elsewhere new ones.
    settings.register_profile("swarmnode", deadline=None, derandomize="CI" in os.environ)
    settings.load_profile("swarmnode")
