"""The authors' checkpoints become model folders that give the recorded scores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mst_clipiqa.encoders.clip import CLIPPair, load_clip_pair
from mst_clipiqa.errors import ModelError
from mst_clipiqa.model.loss import mst_clipiqa_loss
from mst_clipiqa.model.mst_clipiqa import MSTCLIPIQA, Head, Text
from mst_clipiqa.model.templates import TEMPLATES
from mst_clipiqa.model_folder import load_model, save_model
from mst_clipiqa.scoring.predictor import Predictor
from mst_clipiqa.train.convert import convert
from tests.closed_form import GOLDEN, MOS, PROMPTS, fill, formula, golden, pixels, save_clip


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> CLIPPair:
    root = tmp_path_factory.mktemp("clip")
    return load_clip_pair(str(save_clip(root / "32", 32)), str(save_clip(root / "16", 16)), "closed form")


def authors_checkpoint(
    pair: CLIPPair, variant: str, head: Head, f_c: torch.Tensor, f_f: torch.Tensor
) -> dict[str, Any]:
    """Build what their training script saves after five steps: every recorded key, frozen encoders included."""
    model = MSTCLIPIQA(512, head)
    fill(model)
    if head == "template":
        text = Text(templates=pair.encode_templates(list(TEMPLATES)).clone())
    else:
        encoded = pair.encode_prompts(PROMPTS)
        text = Text(tokens=encoded.tokens.clone(), mask=encoded.mask)
    optimiser = torch.optim.Adam(model.parameters(), lr=5e-6, weight_decay=1e-3)
    for _ in range(5):
        optimiser.zero_grad()
        mst_clipiqa_loss(model(f_c, f_f, text).q, torch.tensor(MOS)).backward()
        optimiser.step()
    trained = {k: v.detach().clone() for k, v in model.state_dict().items()}
    keys = json.loads((GOLDEN / "authors_state_dict_keys.json").read_text())[variant]
    state = {}
    for key, shape in dict(keys).items():
        name = key.replace("mstfe.encoder_coarse.", "32:").replace("mstfe.encoder_fine.", "16:")
        name = name.replace("head.text_encoder.", "32:" if head == "template" else "32:text_model.")
        state[key] = trained.get(key, formula(name, tuple(shape)))
    return state


@pytest.fixture(scope="module")
def features(pair: CLIPPair) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.no_grad():
        return pair.mstfe.encoder_coarse(pixels()), pair.mstfe.encoder_fine(pixels())


@pytest.mark.parametrize(("variant", "head"), [("A", "template"), ("B", "prompt")])
@pytest.mark.parametrize("wrapped", [False, True])
def test_converted_checkpoints_give_the_recorded_scores(
    pair: CLIPPair,
    features: tuple[torch.Tensor, torch.Tensor],
    tmp_path: Path,
    variant: str,
    head: Head,
    wrapped: bool,
) -> None:
    state = authors_checkpoint(pair, variant, head, *features)
    torch.save({"model_state_dict": state} if wrapped else state, tmp_path / "authors.pth")
    save_model(convert(tmp_path / "authors.pth", pair, "authors"), tmp_path / "model", "# authors\n")
    model = load_model(tmp_path / "model")
    assert not model.trained_on.is_complete  # the checkpoint does not say what it was trained on
    scores = Predictor(model, pair).predict(*features, list(PROMPTS))
    got = torch.tensor([score.quality for score in scores])
    low, high = scores[0].ranges["quality"]
    want = torch.tensor(golden()[variant]["score_after"])
    torch.testing.assert_close(got, want.clamp(low, high), rtol=1e-5, atol=1e-5)  # a score stays on the scale
    assert (tmp_path / "model" / "model.safetensors").stat().st_size < 10_000_000


def test_other_files_and_other_encoders_are_refused(
    pair: CLIPPair, features: tuple[torch.Tensor, torch.Tensor], tmp_path: Path
) -> None:
    path = tmp_path / "a.pth"
    with pytest.raises(ModelError, match="Expected a checkpoint file, found none"):
        convert(path, pair, "x")
    path.write_bytes(b"junk")
    with pytest.raises(ModelError, match=r"Expected plain tensors in .*\.pth, got something else"):
        convert(path, pair, "x")
    torch.save({"a": print}, path)
    with pytest.raises(ModelError, match="do not trust it"):
        convert(path, pair, "x")
    torch.save({"a": torch.zeros(1)}, path)
    with pytest.raises(ModelError, match=r"Expected gff\.\* among the weights"):
        convert(path, pair, "x")
    state = authors_checkpoint(pair, "A", "template", *features)
    torch.save({k: v for k, v in state.items() if k != "gff.W_c.bias"}, path)
    with pytest.raises(ModelError, match=r"Expected \(512,\) at gff\.W_c\.bias .*got nothing"):
        convert(path, pair, "x")
    state["mstfe.encoder_fine.visual_projection.weight"] += 1
    torch.save(state, path)
    with pytest.raises(ModelError, match=r"got different ones from closed form .*encoder_fine\.visual_projection"):
        convert(path, pair, "x")
