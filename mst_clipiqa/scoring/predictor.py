"""Features to scores: every target of a model, for images and prompts that are encoded already."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from mst_clipiqa.encoders.pair import EncoderPair
from mst_clipiqa.encoders.threads import call_on_single_core
from mst_clipiqa.errors import ModelError
from mst_clipiqa.evaluate.caution import is_unfamiliar
from mst_clipiqa.features.cache import CacheSpace
from mst_clipiqa.features.encoded import EncodedPrompt
from mst_clipiqa.features.prompt_encoder import PromptEncoder, padded_states
from mst_clipiqa.inputs.prompt_syntax import without_syntax
from mst_clipiqa.model.mst_clipiqa import Output, Text, to_native, zero_shot
from mst_clipiqa.model.templates import TEMPLATES
from mst_clipiqa.model_folder import EncoderRef, ModelConfig, Target, TrainedModel
from mst_clipiqa.scoring.score import Score

MISSING_PROMPT = "expected a prompt for {}, got none: give it"
EMPTY_PROMPT = "expected words in the prompt, got an empty one: write the prompt, or leave it out"
NOT_TEXT = "expected the prompt as text, got {}: write it as text, or leave it out"
UNKNOWN_WORDS = "the prompt's words lie outside what the text encoder was trained on, so correspondence is not scored"
UNREAD_WORDS = "some of the prompt's words lie outside what the text encoder was trained on"
ONE_LANGUAGE = "it reads {}"
SYNTAX = "the prompt was read without its syntax"
UNLIKE_TRAINING = "the image is unlike those that the model was trained on, so its scores are less certain"
TRUNCATED = "the prompt is longer than the text encoder reads, so its end was not read"

_CPU = torch.device("cpu")  # of the heads, wherever the encoders are


@dataclass(frozen=True)
class _HeadResults:
    """The results of a batch, row by row.

    Attributes:
        values: target -> its value in native units, None where the prompt is not read.
        gates: mean gate of the first target.
        levels: probabilities of the quality levels, worst first, if quality comes from templates.
        familiarity: 0..1, None without a reference.
        excess: ``Reference.excess``.
    """

    values: list[dict[str, float | None]]
    gates: list[float]
    levels: list[tuple[float, ...] | None]
    familiarity: list[float | None]
    excess: list[float]


class Predictor:
    """The heads of a trained model, or of none (zero-shot), with the encoders they were trained on.

    Args:
        model: the trained part.
        encoders: the frozen part.
        cache: where token states of prompts are kept between runs, if anywhere.

    Raises:
        ModelError: model and encoders do not belong together; the message names what differs.
    """

    def __init__(self, model: TrainedModel, encoders: EncoderPair, cache: CacheSpace | None = None) -> None:
        want = model.config.encoders
        sizes = [(want.dim, want.dim_fine or want.dim), (encoders.dim, encoders.dim_fine)]
        if sizes[0] != sizes[1]:
            expected, got = (" and ".join(dict.fromkeys(map(str, pair))) for pair in sizes)
            raise ModelError(
                f"Expected encoders with features of size {expected}, got {got} from {encoders.source}: "
                "use the original encoders."
            )
        if want.sha256 and want.sha256 != encoders.sha256:
            raise ModelError(
                f"Expected the encoders that {model.config.name} was trained on (sha256 {want.sha256[:12]}), "
                f"got {encoders.source} with {encoders.sha256[:12]}: give the original ones or train again."
            )
        if model.config.view != encoders.view:
            raise ModelError(
                f"Expected images viewed as in the training of {model.config.name}, got another view "
                f"from {encoders.source}: use the original encoders."
            )
        for name, target in model.config.targets.items():
            if target.head == "prompt" and encoders.text_dim != encoders.dim:
                raise ModelError(
                    f"Expected token states of size {encoders.dim} for the prompt head of {name}, "
                    f"got {encoders.text_dim} from {encoders.source}: use another pair."
                )
        self.config = model.config
        self.name = model.config.name  # in rows
        self.ranges = {name: (t.low, t.high) for name, t in model.config.targets.items()}
        self.encoders = encoders
        self.model = model
        self.templates = call_on_single_core(encoders.device, partial(encoders.encode_templates, list(TEMPLATES))).cpu()
        # The heads compute in float64, whose rounding differs from batch to batch too, and round to float32 at the end.
        self._parts = {name: copy.deepcopy(part).double() for name, part in model.parts.items()}
        heads = {target.head for target in model.config.targets.values()}
        self.reads_prompts = heads != {"template"}
        self.prompts = PromptEncoder(encoders, cache, embeddings="similarity" in heads)

    @torch.inference_mode()
    def predict(self, f_c: Tensor, f_f: Tensor, prompts: Sequence[object]) -> list[Score]:
        """Return the score of each row of features f_c, f_f, float32 (batch, D or D_f), for its prompt.

        Features do not tell the size of an image, so width and height are None. The syntax of image generators is
        removed from a prompt before it is read; the reason says so. A prompt that is empty or not text gets a score
        with its ``error``.
        """
        f_c, f_f = f_c.cpu(), f_f.cpu()
        cleaned = [without_syntax(prompt) if isinstance(prompt, str) else (None, []) for prompt in prompts]
        encoded = self._encoded([words for words, _ in cleaned])
        # Products of the heads are so small that threads would mostly wait for each other and for cores that encode.
        heads = call_on_single_core(_CPU, partial(self._run_heads, f_c, f_f, encoded))
        scores = []
        for row, (prompt, encoded_prompt, (_, removed)) in enumerate(zip(prompts, encoded, cleaned, strict=True)):
            if prompt is not None and not isinstance(prompt, str):
                scores.append(self.failed("prompt", NOT_TEXT.format(type(prompt).__name__)))
            elif self.reads_prompts and encoded_prompt is None and prompt is not None:
                scores.append(self.failed("prompt", EMPTY_PROMPT))
            else:
                caution = UNLIKE_TRAINING if is_unfamiliar(heads.familiarity[row]) else ""
                reason = "; ".join(filter(None, (self._note(encoded_prompt, removed), caution)))
                scores.append(self._score(heads, row, reason))
        return scores

    def _run_heads(self, f_c: Tensor, f_f: Tensor, prompts: Sequence[EncodedPrompt | None]) -> _HeadResults:
        """Return the results of all heads and of the reference for rows of features."""
        values: list[dict[str, float | None]] = [dict.fromkeys(self.config.targets) for _ in prompts]
        first = next(iter(self.model.parts), None)  # the target whose gate is reported, whatever the prompts
        gates: Tensor | None = None
        levels: list[tuple[float, ...] | None] = [None] * len(prompts)
        for name, target in self.config.targets.items():
            rows = _scored(target, prompts)
            if not rows:
                continue
            out = self._float64_output(name, f_c[rows], f_f[rows], [prompts[i] for i in rows])
            native = to_native(out.q, target.low, target.high).float().clamp(target.low, target.high)
            for i, value in zip(rows, native.tolist(), strict=True):
                values[i][name] = value
            if out.p is not None and name == "quality":
                levels = [tuple(row) for row in out.p.float().tolist()]
            if name == first and len(rows) == len(prompts):
                gates = out.g.mean(dim=1)
        shares = (gates if gates is not None else self._gate(f_c, f_f)).float().tolist()
        return _HeadResults(values, shares, levels, *self._familiarity(f_c, f_f))

    def failed(self, error: Literal["image", "prompt"], reason: str) -> Score:
        """Return the score of an image that cannot be scored, and why."""
        targets: dict[str, float | None] = dict.fromkeys(self.config.targets)
        return Score(error=error, reason=reason, model=self.name, targets=targets, ranges=self.ranges)

    def _score(self, heads: _HeadResults, row: int, reason: str) -> Score:
        targets, values, excess = self.config.targets, heads.values[row], heads.excess[row]
        return Score(
            quality=values.get("quality"),
            correspondence=values.get("correspondence"),
            gate=heads.gates[row],
            familiarity=heads.familiarity[row],
            reason=reason,
            model=self.name,
            targets=values,
            intervals={name: ends for name, t in targets.items() if (ends := _interval(values[name], t, excess))},
            ranges=self.ranges,
            levels=heads.levels[row],
            calibrated=self.config.calibrated,
        )

    @torch.inference_mode()
    def output(self, name: str, f_c: Tensor, f_f: Tensor, prompts: Sequence[EncodedPrompt | None]) -> Output:
        """Return one target's raw output (head scale 1..5, gate, levels, attention), float32, for rows of features."""
        out = self._float64_output(name, f_c, f_f, prompts)
        p, attention = (None if one is None else one.float() for one in (out.p, out.attention))
        return Output(out.q.float(), out.g.float(), out.z.float(), p, attention)

    def gradients(self, f_c: Tensor, f_f: Tensor, prompts: Sequence[str | None]) -> dict[str, tuple[list[int], Tensor]]:
        """Return how each target's score changes with f_f: the rows that have one, and its gradient there.

        Args:
            f_c, f_f: features, float32 (batch, D or D_f).
            prompts: of each row; a target is left out where it needs a prompt and there is none that it reads.

        Returns:
            target -> (rows, gradient, float64 (rows, D_f)), in native units; none for a target without rows.
        """
        encoded = self._encoded([without_syntax(prompt)[0] if isinstance(prompt, str) else None for prompt in prompts])
        slopes = {}
        with torch.inference_mode(False), torch.enable_grad():
            for name, target in self.config.targets.items():
                rows = _scored(target, encoded)
                if rows:
                    f = f_f[rows].double().requires_grad_()
                    q = self._float64_output(name, f_c[rows], f, [encoded[i] for i in rows]).q
                    (slope,) = torch.autograd.grad(q.sum(), f)
                    slopes[name] = (rows, slope * ((target.high - target.low) / 4))
        return slopes

    def _float64_output(self, name: str, f_c: Tensor, f_f: Tensor, prompts: Sequence[EncodedPrompt | None]) -> Output:
        """Return one target's raw output as ``output`` does, in float64."""
        target, f_c, f_f = self.config.targets[name], f_c.double(), f_f.double()
        match target.head:
            case "template":
                out: Output = self._parts[name](f_c, f_f, Text(templates=self.templates.double()))
                return out
            case "prompt":
                tokens, mask = padded_states([p for p in prompts if p is not None])
                out = self._parts[name](f_c, f_f, Text(tokens=tokens.double(), mask=mask))
                return out
            case "similarity":
                part = zero_shot(self.encoders.dim, self.encoders.dim_fine).double()
                g, z = part.gff(f_c, f_f)
                e = torch.stack([p.embedding for p in prompts if p is not None and p.embedding is not None]).double()
                cosine = (F.normalize(z, dim=-1) * e).sum(dim=1)
                return Output(q=1 + (cosine - target.low) / (target.high - target.low) * 4, g=g, z=z)

    def _encoded(self, prompts: Sequence[str | None]) -> list[EncodedPrompt | None]:
        """Return the prompts that heads will read, encoded; None for a missing or empty one."""
        words = [prompt for prompt in prompts if self.reads_prompts and prompt is not None and prompt.strip()]
        encoded = dict(zip(words, self.prompts.encode(words), strict=True))
        return [None if prompt is None else encoded.get(prompt) for prompt in prompts]

    def _familiarity(self, f_c: Tensor, f_f: Tensor) -> tuple[list[float | None], list[float]]:
        """Return the familiarity of each image and its excess distance, which widens the intervals."""
        reference = self.model.reference
        if reference is None:
            return [None] * len(f_c), [0.0] * len(f_c)
        # Rounded, so that batch mates do not change the last digit.
        distances = reference.distance(f_c.numpy(), f_f.numpy()).astype("float32")
        return reference.familiarity(distances).tolist(), reference.excess(distances).tolist()

    def _note(self, prompt: EncodedPrompt | None, removed: Sequence[str]) -> str:
        if not self.reads_prompts or prompt is None:
            return ""
        language = self.encoders.language
        reads = f" ({ONE_LANGUAGE.format(language)})" if language else ""
        if not prompt.in_vocabulary:
            return UNKNOWN_WORDS + reads
        without = f"{SYNTAX}: {', '.join(removed)}" if removed else ""
        unread = UNREAD_WORDS + reads if prompt.unread else ""
        return "; ".join(filter(None, (without, unread, TRUNCATED if prompt.truncated else "")))

    def _gate(self, f_c: Tensor, f_f: Tensor) -> Tensor:
        """Return the mean gate of the first target that has a fusion; the gate needs no prompt."""
        part = next(iter(self._parts.values()), None) or zero_shot(self.encoders.dim, self.encoders.dim_fine).double()
        g: Tensor = part.gff(f_c.double(), f_f.double())[0]
        return g.mean(dim=1)


def _scored(target: Target, prompts: Sequence[EncodedPrompt | None]) -> list[int]:
    """Return the rows that a target scores: all, or those with a prompt that it reads."""
    return [i for i, one in enumerate(prompts) if target.head == "template" or (one and one.in_vocabulary)]


def zero_shot_model(encoders: EncoderPair) -> TrainedModel:
    """Return the model that needs no training: quality from templates, correspondence as CLIP similarity.

    Raises:
        ModelError: the two streams' features differ in size, so that only training can fuse them.
    """
    targets = {
        "quality": Target("template", 1.0, 5.0, calibrated=False),
        "correspondence": Target("similarity", -1.0, 1.0, calibrated=False),
    }
    part = zero_shot(encoders.dim, encoders.dim_fine)
    name = f"zero-shot:{encoders.source} (uncalibrated)"
    config = ModelConfig(name, EncoderRef.of(encoders), targets, encoders.view)
    return TrainedModel(config, {"quality": part}, sha256=encoders.sha256)


def _interval(value: float | None, target: Target, excess: float) -> tuple[float, float] | None:
    """Return both ends, kept on the scale, of the interval of an image with this ``Reference.excess``."""
    half = target.halfwidth(excess)
    return None if value is None or half is None else (max(target.low, value - half), min(target.high, value + half))
