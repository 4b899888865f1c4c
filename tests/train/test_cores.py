"""The number of cores changes no weight and no prediction, so a training may resume with another one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from mst_clipiqa.model.mst_clipiqa import Head, Text
from mst_clipiqa.train.features import RatedFeatures
from mst_clipiqa.train.fit import fit, predict
from mst_clipiqa.train.recipe import FAST

_RECIPE = replace(FAST, epochs=1)


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def part(images: int, seed: int) -> RatedFeatures:
    """Return random features as wide as those of the paper's pair: sums of small ones are not divided."""
    random = torch.Generator().manual_seed(seed)
    f_c, f_f = (torch.randn(images, 512, generator=random) for _ in range(2))
    tokens, mask = torch.randn(images, 12, 512, generator=random), torch.ones(images, 12, dtype=torch.bool)

    def text(rows: Tensor) -> Text:
        return Text(templates=tokens[0, :5], tokens=tokens[rows], mask=mask[rows])

    return RatedFeatures(f_c, f_f, 1 + 4 * torch.rand(images, generator=random), text)


@pytest.mark.parametrize("head", ["template", "prompt"])
def test_the_number_of_cores_changes_no_bit(head: Head) -> None:
    found = []
    for cores in (1, 2):
        torch.set_num_threads(cores)
        model = fit(part(300, 0), part(60, 1), head, _RECIPE).model
        found.append({**model.state_dict(), "q": predict(model, part(300, 2))})
        assert torch.get_num_threads() == cores
    one, two = found
    assert all(torch.equal(one[name], two[name]) for name in one)
