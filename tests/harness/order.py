"""Files whose tests may take longest begin first, so that no process is left with one of them at the end.

How long a test may take says its deadline. Within a file, and among files of one deadline, the order stays.
"""

from __future__ import annotations

import pytest

from tests.harness.aio import deadline_of


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    longest: dict[object, float] = {}
    for item in items:
        longest[item.path] = max(longest.get(item.path, 0.0), deadline_of(item))
    items.sort(key=lambda item: -longest[item.path])
