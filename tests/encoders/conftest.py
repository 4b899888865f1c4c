"""Tiny random models of every family, written once."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers.utils import logging

from tests.encoders import tiny

Folders = dict[str, tuple[Path, Path]]


@pytest.fixture(scope="session")
def families(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """Return the folders of a coarse and a fine model of each family; of DINO the coarse one is MetaCLIP 2's."""
    logging.disable_progress_bar()
    root = tmp_path_factory.mktemp("families")
    found = {name: (make(root / name, 16), make(root / f"{name}-fine", 8)) for name, make in tiny.WITH_TEXT.items()}
    return found | {name: (found["metaclip_2"][0], make(root / name)) for name, make in tiny.IMAGES_ONLY.items()}
