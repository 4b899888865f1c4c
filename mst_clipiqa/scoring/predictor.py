"""Features to answers: every target of a model, asked of images that are encoded already.

An image is encoded once and may be asked any number of things: each prompt's token states and the quality templates
are encoded once as well, and kept.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mst_clipiqa.encoders.pair import EncoderPair
from mst_clipiqa.errors import ModelError
from mst_clipiqa.model.mst_clipiqa import Output, Text, to_native, zero_shot
from mst_clipiqa.model.templates import TEMPLATES
from mst_clipiqa.model_folder import EncoderRef, ModelConfig, Target, TrainedModel

NO_PROMPT = "no prompt, so nothing to correspond to"
EMPTY_PROMPT = "expected words in the prompt, got an empty one: write the prompt, or leave it out"
UNKNOWN_WORDS = "the prompt's words lie outside what the text encoder was trained on, so correspondence is not scored"
TRUNCATED = "the prompt is longer than the text encoder reads, so its end was not read"

_KEPT_PROMPTS = 512


@dataclass(frozen=True)
class Prompt:
    """One prompt as the heads see it: token states (L, D), its embedding (D,) for zero-shot, and two flags."""

    tokens: Tensor
    embedding: Tensor | None
    truncated: bool
    in_vocabulary: bool


@dataclass(frozen=True)
class Answer:
    """What a model says of one image and prompt, in native units; None where it has nothing to say.

    Attributes:
        values: score of each target, higher is better.
        gate: mean share of the coarse stream in the fused feature, 0..1.
        levels: probability of the five quality levels, worst first; None without a template head.
        notes: why a value is None or to be read with care.
    """

    values: dict[str, float | None]
    gate: float
    levels: tuple[float, ...] | None
    notes: tuple[str, ...]


class Predictor:
    """The heads of a trained model (or of none: zero-shot) beside the encoders they were trained on."""

    def __init__(self, model: TrainedModel, encoders: EncoderPair) -> None:
        """Check that model and encoders belong together; ModelError names what differs."""
        want = model.config.encoders
        if want.dim != encoders.dim:
            raise ModelError(
                f"Expected encoders with features of size {want.dim}, got {encoders.dim} from {encoders.source}."
            )
        if want.sha256 and want.sha256 != encoders.sha256:
            raise ModelError(
                f"Expected the encoders that {model.config.name} was trained on (sha256 {want.sha256[:12]}), "
                f"got {encoders.source} with {encoders.sha256[:12]}: give the original ones or train again."
            )
        if model.config.view != encoders.view:
            raise ModelError(
                f"Expected images viewed as {model.config.name} was trained, got another view in {encoders.source}."
            )
        for name, target in model.config.targets.items():
            if target.head == "prompt" and encoders.text_dim != encoders.dim:
                raise ModelError(
                    f"Expected token states of size {encoders.dim} for the prompt head of {name}, "
                    f"got {encoders.text_dim} from {encoders.source}: use another pair."
                )
        self.config = model.config
        self.encoders = encoders
        self.model = model
        self._templates = encoders.encode_templates(list(TEMPLATES)).cpu()
        self._prompts: OrderedDict[str, Prompt] = OrderedDict()

    @torch.inference_mode()
    def answer(self, f_c: Tensor, f_f: Tensor, prompts: Sequence[str | None]) -> list[Answer]:
        """Return an answer for each row of features f_c, f_f, float32 (batch, D), and its prompt."""
        f_c, f_f = f_c.cpu(), f_f.cpu()
        read = self._read(prompts)
        values: list[dict[str, float | None]] = [{} for _ in prompts]
        first = next(iter(self.model.parts), None)  # whose gate is told, whatever the prompts
        gates: Tensor | None = None
        levels: list[tuple[float, ...]] | None = None
        for name, target in self.config.targets.items():
            rows = [i for i in range(len(prompts)) if target.head == "template" or _usable(read[i])]
            for row in values:
                row[name] = None
            if not rows:
                continue
            out = self.output(name, f_c[rows], f_f[rows], [read[i] for i in rows])
            for i, value in zip(rows, to_native(out.q, target.low, target.high).tolist(), strict=True):
                values[i][name] = value
            if out.p is not None and name == "quality":
                levels = [tuple(row) for row in out.p.tolist()]
            if name == first and len(rows) == len(prompts):
                gates = out.g.mean(dim=1)
        shares = gates.tolist() if gates is not None else self._gate(f_c, f_f).tolist()
        notes = [self._notes(prompt, one) for prompt, one in zip(prompts, read, strict=True)]
        return [Answer(values[i], shares[i], levels[i] if levels else None, notes[i]) for i in range(len(prompts))]

    @torch.inference_mode()
    def output(self, name: str, f_c: Tensor, f_f: Tensor, prompts: Sequence[Prompt | None]) -> Output:
        """Return one target's raw output (head scale 1..5, gate, levels, attention) for rows of features."""
        target = self.config.targets[name]
        match target.head:
            case "template":
                out: Output = self.model.parts[name](f_c, f_f, Text(templates=self._templates))
                return out
            case "prompt":
                given = [p for p in prompts if p is not None]
                mask = nn.utils.rnn.pad_sequence([torch.ones(len(p.tokens), dtype=torch.bool) for p in given], True)
                tokens = nn.utils.rnn.pad_sequence([p.tokens for p in given], True)
                out = self.model.parts[name](f_c, f_f, Text(tokens=tokens, mask=mask))
                return out
            case "similarity":
                part = zero_shot(self.encoders.dim)
                g, z = part.gff(f_c, f_f)
                e = torch.stack([p.embedding for p in prompts if p is not None and p.embedding is not None])
                cosine = (F.normalize(z, dim=-1) * e).sum(dim=1)
                return Output(q=1 + (cosine - target.low) / (target.high - target.low) * 4, g=g, z=z)

    @torch.inference_mode()
    def read(self, prompts: Sequence[str]) -> list[Prompt]:
        """Return prompts as the heads see them, from the kept ones where they were read before."""
        wanted = list(dict.fromkeys(prompts))
        new = [p for p in wanted if p not in self._prompts]
        if new:
            encoded = self.encoders.encode_prompts(new)
            similar = any(t.head == "similarity" for t in self.config.targets.values())
            embeddings = self.encoders.encode_templates(new).cpu() if similar else None
            for i, prompt in enumerate(new):
                tokens = encoded.tokens[i][encoded.mask[i]].cpu()
                embedding = None if embeddings is None else embeddings[i]
                self._prompts[prompt] = Prompt(tokens, embedding, encoded.truncated[i], encoded.in_vocabulary[i])
        found = {prompt: self._prompts[prompt] for prompt in wanted}
        while len(self._prompts) > _KEPT_PROMPTS:
            self._prompts.popitem(last=False)
        return [found[prompt] for prompt in prompts]

    def _read(self, prompts: Sequence[str | None]) -> list[Prompt | None]:
        if not any(t.head != "template" for t in self.config.targets.values()):
            return [None] * len(prompts)
        given = [i for i, prompt in enumerate(prompts) if prompt is not None and prompt.strip()]
        found: list[Prompt | None] = [None] * len(prompts)
        for i, one in zip(given, self.read([prompts[i] or "" for i in given]), strict=True):
            found[i] = one
        return found

    def _notes(self, prompt: str | None, read: Prompt | None) -> tuple[str, ...]:
        if all(t.head == "template" for t in self.config.targets.values()):
            return ()
        if read is None:
            return (NO_PROMPT,) if prompt is None else (EMPTY_PROMPT,)
        if not read.in_vocabulary:
            return (UNKNOWN_WORDS,)
        return (TRUNCATED,) if read.truncated else ()

    def _gate(self, f_c: Tensor, f_f: Tensor) -> Tensor:
        """Return the mean gate of the first target that has a fusion; the gate needs no prompt."""
        part = next(iter(self.model.parts.values()), None) or zero_shot(self.encoders.dim)
        g: Tensor = part.gff(f_c, f_f)[0]
        return g.mean(dim=1)


def zero_shot_model(encoders: EncoderPair) -> TrainedModel:
    """Return the model that needs no training: quality from templates, correspondence as CLIP similarity."""
    targets = {
        "quality": Target("template", 1.0, 5.0, calibrated=False),
        "correspondence": Target("similarity", -1.0, 1.0, calibrated=False),
    }
    reference = EncoderRef(encoders.source, encoders.sha256, encoders.dim)
    config = ModelConfig(f"zero-shot:{encoders.source} (uncalibrated)", reference, targets, encoders.view)
    return TrainedModel(config, {"quality": zero_shot(encoders.dim)}, sha256=encoders.sha256)


def _usable(prompt: Prompt | None) -> bool:
    return prompt is not None and prompt.in_vocabulary
