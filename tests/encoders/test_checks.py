"""What is taken for a damaged file, and what is not."""

from __future__ import annotations

import pytest

from mst_clipiqa.encoders.checks import expecting
from mst_clipiqa.errors import ModelError


def test_what_a_reader_raises_becomes_one_sentence() -> None:
    said = r"^Expected JSON in a\.json, got 'no comma': fetch it again\.$"
    with pytest.raises(ModelError, match=said), expecting("JSON in a.json"):
        raise ValueError("no comma")


@pytest.mark.parametrize("kind", [MemoryError, KeyboardInterrupt, SystemExit])
def test_a_lack_of_memory_or_an_interrupt_is_no_damaged_file(kind: type[BaseException]) -> None:
    with pytest.raises(kind), expecting("JSON in a.json"):
        raise kind
