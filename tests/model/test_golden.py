"""Parity with the authors' code on closed-form weights (tests/golden/README.md)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mst_clipiqa.encoders.clip import CLIPPair, load_clip_pair
from mst_clipiqa.encoders.clip_text import CLIPText
from mst_clipiqa.model.loss import mst_clipiqa_loss
from mst_clipiqa.model.mst_clipiqa import MSTCLIPIQA, Head, Text
from mst_clipiqa.model.templates import TEMPLATES
from tests.closed_form import GOLDEN, MOS, PROMPTS, fill, golden, parameter_count, pixels, save_clip

RECORDED = golden()
VARIANTS: list[tuple[str, Head]] = [("A", "template"), ("B", "prompt")]


def close(got: torch.Tensor, expected: Any, relative: float) -> None:
    want = torch.as_tensor(expected, dtype=got.dtype)
    assert got.shape == want.shape
    scale = want.abs().max()
    assert (got - want).abs().max() <= relative * scale, f"{got} is not {want}"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> CLIPPair:
    root = tmp_path_factory.mktemp("clip")
    coarse, fine = save_clip(root / "32", 32), save_clip(root / "16", 16)
    return load_clip_pair(str(coarse), str(fine), "closed form")


@pytest.fixture(scope="module")
def features(pair: CLIPPair) -> tuple[torch.Tensor, torch.Tensor]:
    x = pixels()
    with torch.no_grad():
        return pair.mstfe.encoder_coarse(x), pair.mstfe.encoder_fine(x)


def built(head: Head) -> MSTCLIPIQA:
    model = MSTCLIPIQA(512, head)
    fill(model)
    return model


def text_for(pair: CLIPPair, head: Head, prompts: list[str]) -> Text:
    if head == "template":
        return Text(templates=pair.encode_templates(list(TEMPLATES)).clone())
    encoded = pair.encode_prompts(prompts)
    return Text(tokens=encoded.tokens.clone(), mask=encoded.mask)


def train_five_steps(model: MSTCLIPIQA, run: Callable[[], torch.Tensor]) -> list[float]:
    optimiser = torch.optim.Adam(model.parameters(), lr=5e-6, weight_decay=1e-3)
    losses = []
    for _ in range(5):
        loss = mst_clipiqa_loss(run(), torch.tensor(MOS))
        losses.append(loss.item())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return losses


def test_prompt_ids(pair: CLIPPair) -> None:
    assert isinstance(pair.text, CLIPText)
    ids, mask, truncated = pair.text.tokenize(PROMPTS)
    assert ids.tolist() == RECORDED["prompt_ids"]
    assert mask.all()
    assert not any(truncated)


def test_features_and_fusion(pair: CLIPPair, features: tuple[torch.Tensor, torch.Tensor]) -> None:
    f_c, f_f = features
    close(f_c[:, :8], RECORDED["f_c"], 1e-5)
    close(f_f[:, :8], RECORDED["f_f"], 1e-5)
    g, z = built("template").gff(f_c, f_f)
    close(g[:, :8], RECORDED["gate"], 1e-5)
    close(z[:, :8], RECORDED["z"], 1e-5)
    close(g.mean(dim=1), RECORDED["gate_mean"], 1e-5)
    close(z.norm(dim=1), RECORDED["z_norm"], 1e-5)


def test_text(pair: CLIPPair) -> None:
    close(pair.encode_templates(list(TEMPLATES))[:, :8], RECORDED["text_features"], 1e-5)
    close(pair.encode_prompts(PROMPTS).tokens[..., :4], RECORDED["text_tokens_head"], 1e-5)


@pytest.mark.parametrize(("variant", "head"), VARIANTS)
def test_scores_losses_gradients_and_five_steps(
    pair: CLIPPair, features: tuple[torch.Tensor, torch.Tensor], variant: str, head: Head
) -> None:
    want = RECORDED[variant]
    model, text = built(head), text_for(pair, head, PROMPTS)

    def run() -> torch.Tensor:
        q: torch.Tensor = model(*features, text).q
        return q

    close(run().detach(), want["score"], 1e-5)
    loss = mst_clipiqa_loss(run(), torch.tensor(MOS))
    close(loss.detach(), want["loss"], 1e-4)
    loss.backward()
    norms = {name: p.grad.norm() for name, p in model.named_parameters() if p.grad is not None}
    assert norms.keys() == want["grad_norm"].keys()
    for name, norm in norms.items():
        close(norm, want["grad_norm"][name], 1e-4)
    close(torch.tensor(train_five_steps(model, run)), want["losses_5_adam_steps"], 1e-4)
    close(run().detach(), want["score_after"], 1e-5)
    assert parameter_count(model) == want["trainable"]


def test_a_score_is_the_same_alone_and_beside_a_longer_prompt(
    pair: CLIPPair, features: tuple[torch.Tensor, torch.Tensor]
) -> None:
    model = built("prompt")
    text = text_for(pair, "prompt", PROMPTS)
    train_five_steps(model, lambda: model(*features, text).q)
    f_c, f_f = (f[:1] for f in features)
    long = "a photo of a very small red fox that sits beside the old car in the long grass of a park"
    with torch.no_grad():
        alone = model(f_c, f_f, text_for(pair, "prompt", ["a fox"])).q
        mates = model(f_c.repeat(2, 1), f_f.repeat(2, 1), text_for(pair, "prompt", ["a fox", long])).q
    close(alone[0], RECORDED["B"]["alone"], 1e-5)
    close(mates[0], RECORDED["B"]["alone"], 1e-5)
    assert abs(RECORDED["B"]["with_long_mate"] - RECORDED["B"]["alone"]) > 0.1  # what the mask is for


def test_goldens_are_there() -> None:
    assert {p.name for p in GOLDEN.iterdir()} >= {"golden.json", "authors_state_dict_keys.json", "tokenizer"}


def test_wrong_activation_would_be_seen(tmp_path: Path, pair: CLIPPair) -> None:
    coarse, fine = (str(save_clip(tmp_path / str(p), p, **_gelu(p))) for p in (32, 16))
    pair_gelu = load_clip_pair(coarse, fine, "closed form, gelu")
    got = pair_gelu.mstfe.encoder_coarse(pixels())[:, :8]
    assert (got - torch.tensor(RECORDED["f_c"])).abs().max() > 1e-3


def _gelu(patch: int) -> dict[str, Any]:
    from tests.closed_form import clip_config

    config = clip_config(patch)
    return {part: {**config[part], "hidden_act": "gelu"} for part in ("vision_config", "text_config")}
