"""The arithmetic of costs: the slowest stage decides, and nothing is assumed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from speed import soak
from speed.scale import Measured, costs, main, stages

M = Measured(
    images=3.6e6,
    machines=2,
    score_rate=100,
    decode_rate=50,
    cores=4,
    list_rate=1000,
    image_kb=100,
    network_mbs=100,
    write_rate=1e4,
    row_bytes=50,
    price=3,
)


def test_the_slowest_stage_decides() -> None:
    assert stages(M) == {"listing": 1000, "network": 2000, "decode": 400, "arithmetic": 200, "writing": 20000}
    found = costs(M)
    assert found["bottleneck"] == "arithmetic"
    assert found["hours"] == 5.0
    assert found["money"] == 30.0
    assert found["rows_gb"] == 0.18
    assert found["machines_until_listing_is_the_bottleneck"] == 10.0


def test_more_machines_move_the_bottleneck_to_the_listing() -> None:
    found = costs(replace(M, machines=11))
    assert found["bottleneck"] == "listing"
    assert found["machines_until_listing_is_the_bottleneck"] is None


def test_no_rate_has_a_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--images", "1e9"])
    assert "--score-rate" in capsys.readouterr().err


def test_the_slope_of_a_soak_leaves_out_the_warm_up() -> None:
    samples = [(1000.0 + t, 500 + min(t, 120) + 0.5 * max(0, t - 120) / 60) for t in range(600)]
    found = soak.summary(samples, 120)
    assert found["mb_per_minute"] == pytest.approx(0.5, abs=0.01)
    assert found["spread_mb"] == pytest.approx(0, abs=0.1)
    assert found["mb_least_each_minute"][:3] == [500, 560, 620]
