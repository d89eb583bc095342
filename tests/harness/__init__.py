"""What every test runs under, loaded as a pytest plugin by pyproject.toml so that plugins/*/tests have it too.

It promises that nothing goes wrong quietly: see the modules below. It holds no fixture of the product itself.
"""

import os

import pytest
from hypothesis import settings

PARTS = (
    "tests.harness.guard",
    "tests.harness.aio",
    "tests.harness.order",
    "tests.harness.tornado",
    "tests.harness.promtool",
    "tests.mongodb.fixture",
    "tests.node.fixture",
    "tests.stripe.fixture",
    "tests.suites.fixture",
)


def pytest_configure(config: pytest.Config) -> None:
    # Now, and not in `pytest_plugins`: of two plugins with a fixture of one name the later one wins, and ours must win
    # over AnyIO's `anyio_backend` and pytest-tornado's `io_loop`, which come from entry points.
    for part in PARTS:
        config.pluginmanager.import_plugin(part)
    # Nothing here is timed, and where every skip is a failure the same examples are tried each time: a property that
    # finds something new does so at somebody's desk, not in a run that has another change to judge.
    settings.register_profile("house", deadline=None, derandomize=os.environ.get("AURIXEL_TEST_REQUIRE") == "all")
    settings.load_profile("house")
