"""What granularities cost, from the time of each stream."""

from __future__ import annotations

import pytest

from mst_clipiqa.model.preprocess import ViewSpec
from mst_clipiqa.train.granularity import _EveryGranularity
from tests.fakes import FakePair


def test_a_cost_is_the_time_of_both_streams_as_a_share_of_that_of_fine() -> None:
    policy = _EveryGranularity(FakePair(view=ViewSpec(fine="native", crops=9)))
    assert policy.names == ["native:1", "native:4", "fine"]
    policy.seconds = [[9.0, 9.0, 9.0, 9.0], [1.0, 1.0, 3.0, 8.0], [2.0, 1.0, 3.0, 10.0]]  # the first only warms up
    assert policy.costs() == pytest.approx({"coarse": 3 / 21, "native:1": 5 / 21, "native:4": 9 / 21})
    policy.seconds = [[1.0, 1.0, 1.0, 3.0]]  # a single batch is better than none
    assert policy.costs() == pytest.approx({"coarse": 1 / 4, "native:1": 2 / 4, "native:4": 2 / 4})
