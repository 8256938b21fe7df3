"""Results to record."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from recorded_results import make_refused, make_result

from atomid_live.types import Refused, Result


@pytest.fixture
def result() -> Callable[..., Result]:
    return make_result


@pytest.fixture
def refused() -> Callable[..., Refused]:
    return make_refused
