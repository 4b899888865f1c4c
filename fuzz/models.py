"""Model folders and encoder folders: bytes, configs and safetensors headers that lie."""

from __future__ import annotations

import dataclasses
import json
import pickle
import random
import struct
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch

from fuzz.harness import Case, Surface
from fuzz.mutate import damaged, damaged_json
from mst_clipiqa.encoders.mini.folder import load_mini_pair, save_mini_pair
from mst_clipiqa.encoders.mini.pair import MiniConfig, MiniParts
from mst_clipiqa.encoders.mini.text import TextConfig, TextEncoder
from mst_clipiqa.encoders.mini.towers import Tower, TowerConfig
from mst_clipiqa.features.image_encoder import ImageEncoder
from mst_clipiqa.model.mst_clipiqa import MSTCLIPIQA
from mst_clipiqa.model.preprocess import ViewSpec
from mst_clipiqa.model_folder import EncoderRef, ModelConfig, Target, TrainedModel, load_model, save_model
from mst_clipiqa.scoring.scorer import Scorer

_IMAGE = torch.rand(3, 40, 40, generator=torch.Generator().manual_seed(0))


class _Bomb:
    """A pickle disguised as a model: it writes a file if it is ever run."""

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return Path.touch, (Path(tempfile.gettempdir()) / "fuzz-was-here",)


def mark() -> Path:
    """Return the file that exists if a pickle has been run."""
    return Path(tempfile.gettempdir()) / "fuzz-was-here"


@cache
def seeds() -> Case:
    """Return a whole model of a few kilobytes and its encoders, as files."""
    torch.manual_seed(0)
    small = TowerConfig(dim=16, blocks=2)
    real = load_mini_pair()
    text = TextConfig(words=200, dim=16, width=16, inner=16, layers=1, heads=2)
    tokenizer = type(real.tokenizer).from_str(json.dumps(_small_tokenizer(real.tokenizer.to_str())))
    parts = MiniParts(Tower(small), Tower(small), TextEncoder(text), tokenizer)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        view = ViewSpec(size=32, fine="native", crops=1, crop_size=32)
        save_mini_pair(folder / "encoders", MiniConfig(small, small, text, view), parts)
        pair = load_mini_pair(folder / "encoders")
        targets = {"quality": Target("template", 0.0, 5.0, 0.5), "correspondence": Target("prompt", 0.0, 5.0)}
        config = ModelConfig("toy", EncoderRef("here", pair.sha256, 16), targets, pair.view)
        heads = {name: MSTCLIPIQA(16, "prompt" if t.head == "prompt" else "template") for name, t in targets.items()}
        save_model(TrainedModel(config, heads), folder, "# toy\n")
        return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def _small_tokenizer(text: str) -> Any:
    tree = json.loads(text)
    vocabulary = tree["model"]["vocab"]
    tree["model"]["vocab"] = dict(sorted(vocabulary.items(), key=lambda pair: pair[1])[:200])
    return tree


def make(dice: random.Random) -> Case:
    """Return the folder with one file of it damaged; half of the time without the hash that would reveal it."""
    case = dict(seeds())
    name = dice.choice(sorted(case))
    if name.endswith(".json") and dice.random() < 0.7:
        try:
            case[name] = json.dumps(damaged_json(json.loads(case[name]), dice)).encode()
        except ValueError:
            case[name] = damaged(case[name], dice, case["config.json"])
    elif name.endswith(".safetensors"):
        case[name] = _lying(case[name], dice)
    else:
        case[name] = damaged(case[name], dice, dice.choice(list(case.values())))
    if dice.random() < 0.5 and name != "config.json":
        config = json.loads(case["config.json"])
        config["encoders"]["sha256"] = ""
        case["config.json"] = json.dumps(config).encode()
    if dice.random() < 0.02:
        del case[name]
    return case


def _lying(data: bytes, dice: random.Random) -> bytes:
    """Return a safetensors file whose header, tensors or format is false."""
    (length,) = struct.unpack("<Q", data[:8])
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    match dice.randrange(6):
        case 0:
            return damaged(data, dice, body)
        case 1:
            header = damaged_json(header, dice)
        case 2:
            name = dice.choice([n for n in header if n != "__metadata__"])
            header[name] |= damaged_json(dict(header[name]), dice) if dice.random() < 0.5 else {"dtype": _dtype(dice)}
        case 3:
            at = dice.randrange(len(body) // 4) * 4
            body = body[:at] + struct.pack("<f", dice.choice((float("nan"), float("inf"), 1e38))) + body[at + 4 :]
        case 4:
            return struct.pack("<Q", dice.choice((0, 2**31, 2**63, 2**64 - 1, length - 1, length + 1))) + data[8:]
        case 5:
            return pickle.dumps(_Bomb())
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def _dtype(dice: random.Random) -> str:
    return dice.choice(("F64", "F32", "F16", "BF16", "I64", "I8", "U8", "BOOL", "F8_E4M3", "F4", "C64"))


def feed(case: Case) -> None:
    """Load the folder and score an image with it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, data in case.items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_bytes(data)
        model = load_model(folder)
        pair = load_mini_pair(folder / "encoders")
    scorer = Scorer(model, ImageEncoder(pair, batch_size=1, workers=1))
    for score in scorer.many([(_IMAGE, "a red ball"), _IMAGE]):
        dataclasses.asdict(score)
    if mark().exists():
        raise TypeError("a pickle was run")


SURFACE = Surface("models", make, feed)
