"""An encoder pair for tests, fast and simple: block means of the image, hashed words of the prompt."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from mst_clipiqa.data import RatedSet, Record
from mst_clipiqa.encoders.pair import Chunking, PromptTokens
from mst_clipiqa.model.mstfe import Stream
from mst_clipiqa.model.preprocess import ViewSpec

DIM = 64


@dataclass
class FakePair:
    """Counts the images and prompts that it encodes, so that a test can see which were skipped."""

    view: ViewSpec = field(default_factory=ViewSpec)
    dim: int = DIM
    dim_fine: int = DIM
    text_dim: int = DIM
    start_tokens: int = 1
    prompts_at_once: int = 1
    language: str | None = None
    source: str = "fake"
    sha256: str = "f" * 64
    precision: str = "fp32"
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    chunking: Chunking = field(default_factory=lambda: Chunking(2**16, False, 1))
    images: int = 0
    prompts: int = 0

    def encode_chunk(self, stream: Stream, views: Tensor) -> Tensor:
        """Return block means for the coarse stream, and for the fine one how much neighbouring pixels differ."""
        if stream == "coarse":
            self.images += len(views)
            return _blocks(views.float() / 255)
        crops = views.flatten(0, -4).float() / 255  # native crops (n, K, 3, C, C), or views (n, 3, S, S)
        edges = 10 * _blocks((crops[..., 1:] - crops[..., :-1]).abs())
        return edges.view(len(views), -1, DIM).mean(dim=1)

    def encode_prompts(self, prompts: list[str]) -> PromptTokens:
        self.prompts += len(prompts)
        rows = [torch.stack([_word(w) for w in ["<start>", *p.split()[:75], "<end>"]]) for p in prompts]
        tokens = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        mask = torch.arange(tokens.shape[1]) < torch.tensor([len(r) for r in rows]).unsqueeze(1)
        truncated = [len(p.split()) > 75 for p in prompts]
        return PromptTokens(tokens, mask, truncated, ["zzz" not in p for p in prompts])

    def encode_templates(self, texts: list[str]) -> Tensor:
        return F.normalize(torch.stack([sum((_word(w) for w in t.split()), torch.zeros(DIM)) for t in texts]), dim=-1)


def _blocks(pixels: Tensor) -> Tensor:
    means = F.adaptive_avg_pool2d(pixels, (4, 4)).flatten(1)
    return F.pad(means, (0, DIM - means.shape[1]))


def _word(word: str) -> Tensor:
    return torch.randn(DIM, generator=torch.Generator().manual_seed(zlib.crc32(word.encode("utf-8", "replace"))))


def draw(seed: int, distorted: float, size: int = 64) -> Image.Image:
    """Draw a coloured gradient with noise; ``distorted`` is its strength, 0..1."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0, 1, size)[:, None, None] * rng.uniform(60, 200, 3) + np.zeros((1, size, 1))
    noisy = ramp + distorted * 120 * rng.standard_normal((size, size, 3))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def rated_set(folder: object, prompts: int = 12, each: int = 4) -> RatedSet:
    """Write a rated set in which noise lowers quality, and return it; scores run from 0 to 5."""
    from pathlib import Path

    root = Path(str(folder))
    root.mkdir(parents=True, exist_ok=True)
    records = []
    rng = np.random.default_rng(0)
    for p in range(prompts):
        for k in range(each):
            distorted = float(rng.uniform())
            name = f"gen{k % 2}_{p:03d}_{k}.png"
            draw(100 * p + k, distorted).save(root / name)
            targets = {"quality": 5 - 4.5 * distorted, "correspondence": 1 + 3 * (1 - distorted) * (p % 3) / 2}
            prompt = f"an image of thing{p} in colour{p % 3}"
            generator = f"gen{k % 2}"
            records.append(
                Record(name, root / name, prompt, f"toy/{p}", generator, targets, setting=generator, style="plain")
            )
    ranges = {"quality": (0.0, 5.0), "correspondence": (0.0, 5.0)}
    return RatedSet("toy", root, tuple(records), ranges, citation="nobody", licence="CC0")
