"""How the embedded model is made: the split is fixed, distortions get worse, the pieces do what they say."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from training.data import DEVELOPMENT, VALIDATION, part_of
from training.distort import KINDS, LADDER, spoil
from training.words import SPECIAL, build_words


def a_picture() -> Image.Image:
    y, x = np.mgrid[0:96, 0:96]
    pixels = np.stack([x * 2, y * 2, 128 + 100 * np.sin(x * y / 200)], -1)
    pixels[30:60, 30:60] = 255 - pixels[30:60, 30:60]
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def test_the_split_is_by_prompt_and_fixed():
    ids = np.repeat(np.arange(300)[np.arange(300) % 5 != 1], 10)
    part = part_of(ids)
    for name, count in (("development", DEVELOPMENT), ("validation", VALIDATION)):
        assert len(np.unique(ids[part == name])) == count
    for prompt in np.unique(ids):
        assert len(set(part[ids == prompt])) == 1
    assert (part_of(ids[::-1])[::-1] == part).all()


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_stronger_distortion_changes_more(kind: str):
    clean = a_picture()
    pixels = np.asarray(clean, float)
    errors = [np.abs(np.asarray(spoil(clean, kind, s, seed=3), float) - pixels).mean() for s in LADDER]
    assert errors[0] > 0
    assert errors == sorted(errors)
    again = spoil(clean, kind, LADDER[1], seed=3)
    assert np.array_equal(np.asarray(again), np.asarray(spoil(clean, kind, LADDER[1], seed=3)))


def test_words_without_a_teacher_still_spell_anything():
    words = build_words(["a red bus"], distil=False)
    known = [words.tokenizer.id_to_token(i) for i in torch.nonzero(words.known).flatten().tolist()]
    assert {"red", "bus"} <= set(known)
    assert not set(known) & set(SPECIAL)
    assert "[UNK]" not in words.tokenizer.encode("zebra").tokens
