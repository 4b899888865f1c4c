"""Tiny random models of every family, written once.

Fixtures import the package, not this file: pytest may import it before ``tests/conftest.py`` lets shapes be checked.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from mst_clipiqa.encoders.files import EncoderFiles

Folders = dict[str, tuple[Path, Path]]


@pytest.fixture(scope="session")
def families(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """Return the folders of a coarse and a fine model of each family; of DINO the coarse one is MetaCLIP 2's."""
    from transformers.utils import logging

    from tests.encoders import tiny

    logging.disable_progress_bar()
    root = tmp_path_factory.mktemp("families")
    found = {name: (make(root / name, 16), make(root / f"{name}-fine", 8)) for name, make in tiny.WITH_TEXT.items()}
    return found | {name: (found["metaclip_2"][0], make(root / name)) for name, make in tiny.IMAGES_ONLY.items()}


@pytest.fixture(scope="module")
def loaded_once() -> Iterator[None]:
    """Read each model of ``transformers`` once, and copy it from then on: most of the time would go there."""
    from mst_clipiqa.encoders import load

    read, kept = load.load_pretrained, dict[Any, Any]()

    def load_once(kind: Any, files: EncoderFiles, **more: Any) -> Any:
        key = kind, files.folder, repr(more)
        if key not in kept:
            kept[key] = read(kind, files, **more)
        return copy.deepcopy(kept[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(load, "load_pretrained", load_once)
        yield
