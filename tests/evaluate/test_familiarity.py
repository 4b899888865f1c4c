"""Familiarity and widening intervals, on features whose distances and errors are known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mst_clipiqa.errors import DataError
from mst_clipiqa.evaluate import (
    UNFAMILIAR,
    HeldOut,
    Reference,
    Widening,
    fit_widening,
    grouped_quantile,
    make_reference,
)
from mst_clipiqa.evaluate.widening import GROWTHS

NAMES = ["a", "b", "c"]
CENTRES = np.array([[4.0, 0, 0], [0, 4.0, 0], [0, 0, 4.0]])


def images(n: int, seed: int, spread: float = 1.0) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return f_c and f_f, float32 (n, 8), of three generators in turn."""
    rng = np.random.default_rng(seed)
    x = spread * rng.normal(size=(n, 16))
    x[:, :3] += CENTRES[np.arange(n) % 3]
    return x[:, :8].astype(np.float32), x[:, 8:].astype(np.float32), [NAMES[i % 3] for i in range(n)]


@pytest.fixture(scope="module")
def reference() -> Reference:
    made = make_reference(*images(600, 0))
    return made.calibrated(made.distance(*images(600, 1)[:2]))


def test_one_in_twenty_new_images_of_the_training_kind_is_unfamiliar(reference: Reference) -> None:
    new = reference.familiarity(reference.distance(*images(3000, 2)[:2]))
    assert np.mean(new < UNFAMILIAR) == pytest.approx(0.05, abs=0.03)
    assert np.mean(new) == pytest.approx(0.5, abs=0.05)
    assert 0 <= new.min() <= new.max() <= 1


def test_images_of_no_known_generator_are_no_generator() -> None:
    f_c, f_f, names = images(90, 0)
    made = make_reference(f_c, f_f, [name if name == "a" else (None, "")[name == "b"] for name in names])
    assert len(made.centres) == 0


def test_an_image_in_the_midst_of_a_generator_is_the_most_familiar(reference: Reference) -> None:
    x = np.zeros((3, 16))
    x[:, :3] = CENTRES
    assert (reference.familiarity(reference.distance(x[:, :8], x[:, 8:])) > 0.98).all()
    assert (reference.excess(reference.distance(x[:, :8], x[:, 8:])) == 0).all()


def test_an_image_between_the_generators_and_one_far_from_all_are_unfamiliar(reference: Reference) -> None:
    between, far = np.zeros((1, 16)), np.zeros((1, 16))
    between[0, :3] = CENTRES.mean(axis=0)
    far[0, :3], far[0, 12] = CENTRES[0], 100.0
    for x in (between, far):
        assert reference.familiarity(reference.distance(x[:, :8], x[:, 8:]))[0] < 0.05
    assert reference.excess(reference.distance(far[:, :8], far[:, 8:]))[0] == 3  # where intervals stop growing


def test_familiarity_does_not_depend_on_the_units_of_the_features() -> None:
    scale = np.array([10.0, 0.1] * 8)

    def measured(factor: np.ndarray) -> np.ndarray:
        (f_c, f_f, names), (g_c, g_f, _) = images(300, 0), images(100, 1)
        return make_reference(f_c * factor[:8], f_f * factor[8:], names).distance(g_c * factor[:8], g_f * factor[8:])

    assert measured(scale) == pytest.approx(measured(np.ones(16)), abs=0.02)  # components are kept in half precision


def test_without_generators_the_distance_grows_with_the_features() -> None:
    f_c, f_f, _ = images(300, 0)
    made = make_reference(f_c, f_f, [None] * 300)
    mean = made.mean[None]
    near, far = (made.distance(*np.split(mean + k * made.scale, 2, axis=1))[0] for k in (0.1, 1.0))
    assert far == pytest.approx(100 * near)


def test_a_reference_is_the_same_after_a_round_trip(reference: Reference) -> None:
    again = Reference.from_arrays(reference.to_arrays())
    f = images(50, 3)[:2]
    assert np.array_equal(again.distance(*f), reference.distance(*f))


def test_batch_mates_change_no_bit_of_a_distance() -> None:
    f_c, f_f = np.random.default_rng(4).normal(size=(2, 40, 200))  # wide enough for BLAS to divide the sums
    made = make_reference(f_c, f_f, [NAMES[i % 2] for i in range(40)])
    alone = [made.distance(f_c[i : i + 1], f_f[i : i + 1])[0] for i in range(40)]
    assert made.distance(f_c, f_f).tolist() == alone


@pytest.mark.parametrize("name", ["mean", "scale", "components", "held"])
def test_a_damaged_reference_is_refused(reference: Reference, name: str) -> None:
    arrays = reference.to_arrays()
    with pytest.raises(DataError, match="Expected arrays of one reference"):
        Reference.from_arrays({**arrays, name: arrays[name][:-1]})
    with pytest.raises(DataError, match="Expected the arrays mean"):
        Reference.from_arrays({key: value for key, value in arrays.items() if key != name})


def test_too_few_held_out_images_are_refused(reference: Reference) -> None:
    with pytest.raises(DataError, match="Expected at least 20 held-out images to calibrate familiarity, got 19"):
        reference.calibrated(np.zeros(19))


def held_out(n: int, seed: int, growth: float, size: float = 0.5, prompts: int = 100) -> HeldOut:
    """Return errors whose deviation is size * (1 + growth * excess)."""
    rng = np.random.default_rng(seed)
    excess = rng.uniform(0, 3, n)
    return HeldOut(size * (1 + growth * excess) * rng.normal(size=n), excess, (np.arange(n) % prompts).tolist())


@pytest.mark.parametrize("growth", [0.0, 0.5, 2.0])
def test_intervals_cover_nine_in_ten_near_and_far(growth: float) -> None:
    found = fit_widening(held_out(4000, 0, growth))
    assert found is not None
    new = held_out(20000, 1, growth)
    inside = np.abs(new.residuals) <= found.halfwidth(new.excess)
    assert inside.mean() == pytest.approx(0.9, abs=0.02)
    for near in (True, False):
        assert inside[(new.excess < 1.5) == near].mean() == pytest.approx(0.9, abs=0.06)


def test_the_half_width_grows_with_the_excess() -> None:
    widths = Widening(0.5, 0.4).halfwidth(np.array([0.0, 1.0, 2.5]))
    assert widths.tolist() == pytest.approx([0.5, 0.7, 1.0])


def test_generators_left_out_widen_the_intervals_and_each_counts_the_same() -> None:
    known, alike, unlike = held_out(2000, 0, 0.0), held_out(2000, 1, 0.0), held_out(200, 2, 0.0, size=1.0)
    alone, both = fit_widening(known), fit_widening(known, [alike, unlike])
    assert alone is not None
    assert both is not None
    assert both.interval > 1.3 * alone.interval
    inside = [(np.abs(part.residuals) <= both.halfwidth(part.excess)).mean() for part in (alike, unlike)]
    assert np.mean(inside) == pytest.approx(0.9, abs=0.01)


def test_other_images_choose_the_growth_and_the_known_ones_only_the_interval() -> None:
    known, choosing = held_out(40, 3, 0.0, prompts=20), held_out(4000, 0, 2.0)
    found = fit_widening(known, choosing=choosing)
    assert found is not None
    alone = fit_widening(choosing)
    assert alone is not None and found.growth == alone.growth > 0
    ratios = np.abs(known.residuals) / (1 + found.growth * known.excess)
    assert found.interval == grouped_quantile(ratios, known.groups, 0.9)
    few = fit_widening(held_out(100, 0, 2.0), choosing=held_out(8, 0, 2.0, prompts=8))
    assert few is not None and few.growth == 0.0  # too few to choose by


def test_new_prompts_are_covered_as_often_as_promised_by_few() -> None:
    runs = 200
    inside = []
    for seed in range(runs):
        known, choosing, new = (held_out(n, 3 * seed + i, 0.0, prompts=n) for i, n in enumerate((19, 19, 60)))
        found = fit_widening(known, choosing=choosing)
        assert found is not None
        inside.append((np.abs(new.residuals) <= found.halfwidth(new.excess)).mean())
    assert np.mean(inside) > 0.88  # if the known images chose the growth too, 0.863


def test_too_few_prompts_give_no_interval() -> None:
    assert fit_widening(held_out(100, 0, 0.0, prompts=8)) is None
    assert fit_widening(held_out(100, 0, 0.0, prompts=9)) is not None


def test_a_prompt_counts_once_however_many_images_it_has() -> None:
    values, groups = np.arange(1.0, 20), [*range(18), 18]
    many = np.concatenate([values, np.full(500, 1.0)]), [*groups, *[0] * 500]
    assert grouped_quantile(values, groups, 0.9) == 18.0  # rank (19 + 1) * 0.9
    assert grouped_quantile(*many, 0.9) == 18.0
    assert math.isinf(grouped_quantile(values[:8], groups[:8], 0.9))


def test_residuals_that_are_not_finite_are_refused() -> None:
    with pytest.raises(DataError, match="Expected finite residuals in every held-out part"):
        fit_widening(HeldOut(np.array([np.nan]), np.zeros(1), ["a"]))


def test_growths_are_tried_from_none_to_the_largest_each_once() -> None:
    assert GROWTHS[0] == 0
    assert list(GROWTHS) == sorted(set(GROWTHS))


def test_an_image_is_as_far_away_whatever_images_are_beside_it(reference: Reference) -> None:
    f_c, f_f, _ = images(20, 3, spread=3.0)
    together = reference.distance(f_c, f_f)
    alone = [reference.distance(f_c[i : i + 1], f_f[i : i + 1])[0] for i in range(20)]
    assert together.tolist() == pytest.approx(alone, rel=1e-9)


def test_quantiles_that_fall_are_refused(reference: Reference) -> None:
    held = reference.held.copy()
    held[100] = held[99] - 1e-3
    with pytest.raises(DataError, match="Expected arrays of one reference"):
        Reference.from_arrays({**reference.to_arrays(), "held": held})


@pytest.mark.parametrize("spread", [1.0, 4.0])
def test_the_distance_is_that_of_the_equation(reference: Reference, spread: float) -> None:
    f_c, f_f, _ = images(30, 4, spread)
    x = (np.concatenate([f_c, f_f], axis=1) - reference.mean) / reference.scale
    for row, found in zip(x, reference.distance(f_c, f_f), strict=True):
        apart = [row @ reference.discriminants - centre for centre in reference.centres]
        likelihoods = np.exp([-(a @ a) / (2 * 2.0) for a in apart])  # a temperature of 2
        p = likelihoods / likelihoods.sum()
        entropy = -sum(one * math.log(one) for one in p if one > 0)
        covariances = [np.linalg.inv(whitener @ whitener) for whitener in reference.whiteners]
        nearest = min(
            a @ np.linalg.solve(s, a) + np.linalg.slogdet(s)[1] for a, s in zip(apart, covariances, strict=True)
        )
        all_of_them = np.mean([(row @ component) ** 2 for component in reference.components.T])
        assert found == pytest.approx(entropy + 0.1 * nearest + 0.1 * all_of_them, rel=1e-6)


def test_a_reference_has_no_quantiles_until_it_is_calibrated() -> None:
    made = make_reference(*images(60, 0))
    assert made.held.size == 0
    assert made.calibrated(np.arange(20.0)).held.tolist() == pytest.approx(np.linspace(0, 19, 201).tolist())
