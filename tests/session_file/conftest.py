"""Results to record, and a clock that needs no waiting."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from recorded_results import TickingClock, make_refused, make_result

from atomid_live.types import Refused, Result


@pytest.fixture
def clock() -> TickingClock:
    return TickingClock()


@pytest.fixture
def result() -> Callable[..., Result]:
    return make_result


@pytest.fixture
def refused() -> Callable[..., Refused]:
    return make_refused


@pytest.fixture
def uncalibrated() -> Result:
    return replace(make_result(1), pixel_size_yx_nm=(float("nan"), float("nan")), scale_source="unknown")
