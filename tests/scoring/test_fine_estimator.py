"""The estimate of the fine feature from a part of the views."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from mst_clipiqa.scoring.fine_estimator import FineEstimator, fit_estimator

NO_SPREAD = torch.zeros(0, 5)


def drawn(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


def seen(images: int, seed: int = 0) -> Tensor:
    return drawn(images, 3, seed=seed)


def bent(x: Tensor) -> Tensor:
    """Return features that no linear map gives."""
    return torch.stack([x[:, 0], x[:, 1] ** 2, x[:, 0] * x[:, 2], x[:, 1].abs(), torch.sin(2 * x[:, 2])], dim=1)


def test_the_estimate_is_its_formula() -> None:
    landmarks, width, weight = seen(2, 1), torch.tensor(0.7), drawn(3 + 2 + 1, 5)
    x = seen(4, 2)
    k = np.exp(-((x.numpy()[:, None] - landmarks.numpy()[None]) ** 2).sum(2) / width.item())
    expected = x.numpy() @ weight[:3].numpy() + k @ weight[3:5].numpy() + weight[5].numpy()
    got = FineEstimator(landmarks, width, weight, NO_SPREAD).fine(x)
    np.testing.assert_allclose(got.numpy(), expected, atol=1e-5)


def test_a_linear_relation_is_found() -> None:
    x, a = 30 * seen(400), drawn(3, 5, seed=6)
    got = fit_estimator(x, x @ a + 1, NO_SPREAD).fine(y := 30 * seen(50, 1))
    assert (got - (y @ a + 1)).abs().max() < 0.02 * (y @ a).std()


def test_a_bent_relation_is_found_as_well() -> None:
    x, new = seen(1500), seen(300, 1)
    rest = fit_estimator(x, bent(x), NO_SPREAD).fine(new) - bent(new)
    ones = torch.cat([x, torch.ones(len(x), 1)], dim=1)
    line = torch.linalg.lstsq(ones, bent(x)).solution
    linear = torch.cat([new, torch.ones(len(new), 1)], dim=1) @ line - bent(new)
    assert rest[:, 1:].pow(2).mean() < 0.1 * linear[:, 1:].pow(2).mean()


def test_batch_mates_change_nothing() -> None:
    x = drawn(64, 300, seed=3)
    estimator = fit_estimator(x, x[:, :40].sin(), torch.zeros(0, 40))
    together = estimator.fine(x)
    assert torch.equal(together, torch.cat([estimator.fine(x[i : i + 1]) for i in range(64)]))


@pytest.mark.parametrize("images", [2, 40])
def test_images_that_are_all_alike_give_their_feature(images: int) -> None:
    x, f_f = torch.ones(images, 3), torch.full((images, 5), 2.0)
    got = fit_estimator(x, f_f, NO_SPREAD).fine(x)
    assert got.isfinite().all()
    assert (got - f_f).abs().max() < 1.0


def test_numbers_are_those_that_a_file_holds() -> None:
    x = seen(100)
    found = fit_estimator(x, bent(x), NO_SPREAD)
    for tensor in (found.landmarks, found.weight):
        assert torch.equal(tensor, tensor.half().float())
