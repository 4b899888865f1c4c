"""Prompts as one tensor: cut to what the encoder reads, padded behind, and none changes another."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mst_clipiqa.encoders.text import MAX_CHARS, padded_ids, tokenizable

PAD = 0
ROWS = st.lists(st.lists(st.integers(1, 99), min_size=1, max_size=9), min_size=1, max_size=5)


@settings(max_examples=100, deadline=None)
@given(rows=ROWS, length=st.integers(1, 9), keep_last=st.booleans())
def test_a_row_is_cut_to_what_is_read_and_padded_behind(rows: list[list[int]], length: int, keep_last: bool) -> None:
    ids, mask, truncated = padded_ids(rows, ["a"] * len(rows), length, pad=PAD, keep_last=keep_last)
    assert ids.shape == mask.shape == (len(rows), min(length, max(map(len, rows))))
    assert truncated == [len(row) > length for row in rows]
    for i, row in enumerate(rows):
        kept = row if len(row) <= length else [*row[: length - 1], row[-1] if keep_last else row[length - 1]]
        assert ids[i, mask[i]].tolist() == kept  # in order: padding has no place within
        assert mask[i].tolist() == sorted(mask[i].tolist(), reverse=True)
        assert set(ids[i, ~mask[i]].tolist()) <= {PAD}


def test_a_text_without_a_token_is_a_row_of_padding() -> None:
    several: tuple[list[list[int]], ...] = ([[]], [[], [7]])
    for rows in several:
        ids, mask, _ = padded_ids(rows, [""] * len(rows), 4, pad=PAD, keep_last=False)
        assert ids.dtype == torch.int64 and mask.sum(1).tolist() == [len(row) for row in rows]


def test_a_text_that_was_cut_before_its_tokens_is_called_cut() -> None:
    texts = ["a" * MAX_CHARS, "a" * (MAX_CHARS + 1)]
    assert padded_ids([[1], [1]], texts, 4, pad=PAD, keep_last=True)[2] == [False, True]
    assert [len(tokenizable(text)) for text in texts] == [MAX_CHARS, MAX_CHARS]


@settings(max_examples=50, deadline=None)
@given(st.text(st.characters(exclude_categories=()), max_size=20))
def test_a_cleaned_prompt_is_valid_text_without_nul(prompt: str) -> None:
    found = tokenizable(prompt)
    assert len(found) == len(prompt)
    assert "\0" not in found
    assert found.encode("utf-8").decode("utf-8") == found == tokenizable(found)
