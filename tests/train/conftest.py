"""A rated set, a model folder trained on it, and a copy of that folder for each test that changes it.

Fixtures import the package, not this file: pytest may import it before ``tests/conftest.py`` lets shapes be checked.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from mst_clipiqa.data import RatedSet


@pytest.fixture(scope="module")
def rated(tmp_path_factory: pytest.TempPathFactory) -> RatedSet:
    from tests.fakes import rated_set

    return rated_set(tmp_path_factory.mktemp("rated"), prompts=16)


@pytest.fixture(scope="module")
def model(rated: RatedSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from mst_clipiqa.features.image_encoder import ImageEncoder
    from mst_clipiqa.features.pipeline import no_bar
    from mst_clipiqa.train.build import build
    from tests.fakes import FakePair
    from tests.train.test_train import job

    out = tmp_path_factory.mktemp("models") / "toy"
    build(job(rated, out), ImageEncoder(FakePair()), no_bar)
    return out


@pytest.fixture
def copy(model: Path, tmp_path: Path) -> Path:
    return shutil.copytree(model, tmp_path / "copy")
