"""Rated images as rows of features, which training and evaluation read instead of images."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from mst_clipiqa.data import Record
from mst_clipiqa.errors import DataError, counted
from mst_clipiqa.features.encoded import Encoded
from mst_clipiqa.features.image_encoder import ImageEncoder
from mst_clipiqa.features.opened import Failed
from mst_clipiqa.features.prompt_encoder import PromptEncoder, padded_states
from mst_clipiqa.inputs.prompt_syntax import without_syntax
from mst_clipiqa.model.mst_clipiqa import Text, to_head
from mst_clipiqa.model.templates import TEMPLATES

Progress = Callable[[int], None]


@dataclass(frozen=True)
class PromptBank:
    """The token states of the distinct prompts of a set.

    Attributes:
        tokens: float32 (prompts, L, D), padded with zeros.
        mask: bool (prompts, L), True for real tokens.
        read: bool (prompts,), whether the text encoder reads the prompt; scoring leaves an image out otherwise.
    """

    tokens: Tensor
    mask: Tensor
    read: Tensor

    def select(self, index: Tensor) -> Text:
        """Return the tokens and mask of a batch, cut to its longest prompt."""
        mask = self.mask[index]
        length = int(mask.sum(dim=1).max())
        return Text(tokens=self.tokens[index, :length], mask=mask[:, :length])


@dataclass(frozen=True)
class FeatureTable:
    """The features of records, in the same order.

    Attributes:
        records: the images.
        f_c, f_f: float32 (records, D).
        templates: t, float32 (5, D).
        prompts: token states; None if no prompt head needs them.
        prompt_of: int64 (records,), the row of each record's prompt in ``prompts``.
    """

    records: tuple[Record, ...]
    f_c: Tensor
    f_f: Tensor
    templates: Tensor
    prompts: PromptBank | None = None
    prompt_of: Tensor | None = None

    def rows(self, records: Sequence[Record]) -> Tensor:
        """Return the rows of some of the records, int64."""
        where = {record.name: i for i, record in enumerate(self.records)}
        return torch.tensor([where[record.name] for record in records], dtype=torch.int64)

    def scored(self, records: Sequence[Record], head: str) -> tuple[Record, ...]:
        """Return the records that a head scores: all, or those whose prompt the text encoder reads."""
        if head == "template" or self.prompts is None or self.prompt_of is None:
            return tuple(records)
        read = self.prompts.read[self.prompt_of[self.rows(records)]].tolist()
        return tuple(record for record, one in zip(records, read, strict=True) if one)

    def scored_parts(
        self, train: Sequence[Record], validation: Sequence[Record], head: str
    ) -> tuple[tuple[Record, ...], tuple[Record, ...]]:
        """Return the records of both parts that a head scores.

        Raises:
            DataError: the text encoder reads too few of the prompts to train on the others.
        """
        kept = self.scored(train, head), self.scored(validation, head)
        counts = [len(part) for part in kept]
        if min(counts) < 2 and sum(counts) < len(train) + len(validation):
            raise DataError(
                "Expected at least 2 images to train on and 2 to validate on with prompts that the text encoder reads, "
                f"got {counts[0]:,} and {counts[1]:,}: choose encoders that read these prompts, or the template head."
            )
        return kept

    def text(self, rows: Tensor, head: str) -> Text:
        """Return the text input of a batch for a head."""
        if head == "template":
            return Text(templates=self.templates)
        if self.prompts is None or self.prompt_of is None:
            raise DataError("Expected prompts for the prompt head, got none: use the template head.")
        return self.prompts.select(self.prompt_of[rows])


@dataclass(frozen=True)
class PairFeatures:
    """Pairs of rows of features: all that a training loop sees of preferences.

    Attributes:
        f_c, f_f: of every image, float32 (n, D).
        a, b: the rows of the two images of each pair, int64 (pairs,).
        preferred: 1 for A, 0 for B, 0.5 for a tie, float32 (pairs,).
        strength: weight of each pair, float32 (pairs,).
        text: rows -> the text input of that batch.
    """

    f_c: Tensor
    f_f: Tensor
    a: Tensor
    b: Tensor
    preferred: Tensor
    strength: Tensor
    text: Callable[[Tensor], Text]

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.preferred)

    @cached_property
    def images(self) -> int:
        """Return the number of different images in the pairs."""
        return len(torch.cat([self.a, self.b]).unique())


@dataclass(frozen=True)
class RatedFeatures:
    """Rows of features with their ratings, and pairs: all that a training loop sees.

    Attributes:
        f_c, f_f: float32 (n, D).
        y: ratings on the head's scale 1..5, float32 (n,).
        text: positions within these rows -> the text input of that batch.
        pairs: pairs of other rows with people's preferences; None if there are none.
    """

    f_c: Tensor
    f_f: Tensor
    y: Tensor
    text: Callable[[Tensor], Text]
    pairs: PairFeatures | None = None

    def __len__(self) -> int:
        """Return the number of rated images."""
        return len(self.y)


def encode_records(
    encoder: ImageEncoder, records: Sequence[Record], *, prompts: bool, progress: Progress | None = None
) -> FeatureTable:
    """Encode rated images and, if needed, their prompts.

    Args:
        encoder: the frozen pair with its cache.
        records: images with files.
        prompts: whether a prompt head needs token states.
        progress: called with the number of images done since the last call.

    Raises:
        DataError: images cannot be read, or lack a prompt that is needed; the message counts them and names the first.
    """
    f_c, f_f, bad = [], [], []
    for batch in encoder.batches(records, lambda record: encoder.open(record.file)):
        for record, one in batch:
            if isinstance(one, Encoded):
                f_c.append(one.f_c)
                f_f.append(one.f_f)
            elif isinstance(one, Failed):
                bad.append(f"{record.name}: {one.reason}")
        if progress:
            progress(len(batch))
    if bad:
        raise DataError(
            f"Expected {counted(len(records), 'readable image')}, but {len(bad)} cannot be read, first {bad[0]}."
        )
    templates = encoder.encoders.encode_templates(list(TEMPLATES)).cpu().clone()
    bank, index = encode_prompts(encoder, records) if prompts else (None, None)
    return FeatureTable(tuple(records), torch.stack(f_c), torch.stack(f_f), templates, bank, index)


def encode_prompts(encoder: ImageEncoder, records: Sequence[Record]) -> tuple[PromptBank, Tensor]:
    """Return the token states of the distinct prompts, and the row of each record's prompt.

    The syntax of image generators is removed first, as in scoring: a head learns from the words that it will be given.
    """
    read = [without_syntax(record.prompt or "")[0] for record in records]
    without = [record.name for record, words in zip(records, read, strict=True) if not words.strip()]
    if without:
        raise DataError(
            f"Expected a prompt for every image, got none for {len(without)}, first {without[0]}: "
            "use the template head, or add the prompts."
        )
    texts = list(dict.fromkeys(read))
    encoded = PromptEncoder(encoder.encoders, encoder.cache).encode(texts)
    where = {text: i for i, text in enumerate(texts)}
    known = torch.tensor([prompt.in_vocabulary for prompt in encoded])
    return PromptBank(*padded_states(encoded), known), torch.tensor([where[words] for words in read])


def rated_features(
    table: FeatureTable, records: Sequence[Record], target: str, head: str, scale: tuple[float, float]
) -> RatedFeatures:
    """Return the features and ratings of some records; ``scale`` is the target's native range (low, high).

    The rating of a record without one is NaN.
    """
    rows = table.rows(records)
    mos = torch.tensor([record.targets.get(target, math.nan) for record in records], dtype=torch.float32)
    return RatedFeatures(
        table.f_c[rows], table.f_f[rows], to_head(mos, *scale), lambda picked: table.text(rows[picked], head)
    )
