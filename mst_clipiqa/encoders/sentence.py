"""Text towers in the layout of sentence-transformers, such as ``clip-ViT-B-32-multilingual-v1``.

``modules.json`` names a transformer, a pooling and dense layers, each with a folder. No code of the folder is run: only
the kinds of module and of transformer that are listed here are built.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

from mst_clipiqa.encoders.checks import expecting, load_pickled, load_weights
from mst_clipiqa.encoders.families import Family, Pooling
from mst_clipiqa.encoders.files import TOKENIZER, WEIGHTS, EncoderFiles, Fetch, read_config, weights_in
from mst_clipiqa.encoders.load import load_pretrained
from mst_clipiqa.encoders.text_tower import TextTower
from mst_clipiqa.encoders.tokens import read_tokenizer
from mst_clipiqa.errors import ModelError, shown
from mst_clipiqa.model.preprocess import ViewSpec

MODULES = "modules.json"
_BODIES = {
    "distilbert": "DistilBertModel",
    "bert": "BertModel",
    "roberta": "RobertaModel",
    "xlm-roberta": "XLMRobertaModel",
}
_POOLED: dict[str, Pooling] = {"mean": "mean", "cls": "first"}
_ACTIVATIONS: dict[str, type[nn.Module]] = {"Identity": nn.Identity, "Tanh": nn.Tanh}
_MOST_FEATURES = 2**16


@dataclass(frozen=True)
class SentenceFiles:
    """The files of a text tower in this layout.

    Attributes:
        source: the folder or hub id given by the caller.
        folder: where they are.
        transformer, pooling: the folders of these modules.
        dense: the folders of the dense layers, in order.
    """

    source: str
    folder: Path
    transformer: Path
    pooling: Path
    dense: tuple[Path, ...]


def find_modules(folder: Path, source: str) -> SentenceFiles:
    """Return the modules of a folder that has modules.json; ModelError if they are others than listed here."""
    kinds: list[str] = []
    paths: list[Path] = []
    for kind, path in _modules(folder):
        inside = (folder / path).resolve()
        if not inside.is_relative_to(folder.resolve()):
            raise ModelError(f"Expected modules inside {folder}, got {shown(path)}: fetch {MODULES} again.")
        kinds.append(kind)
        paths.append(folder / path)
    if kinds[-1:] == ["Normalize"]:  # embeddings always get unit length here
        kinds, paths = kinds[:-1], paths[:-1]
    if kinds[:2] != ["Transformer", "Pooling"] or any(kind != "Dense" for kind in kinds[2:]):
        raise ModelError(f"Expected a Transformer, a Pooling and Dense layers in {source}, got {shown(kinds)}.")
    return SentenceFiles(source, folder, paths[0], paths[1], tuple(paths[2:]))


def fetch_modules(fetch: Fetch) -> Path | None:
    """Return the folder of a hub id with everything that its modules.json names; None if it has none.

    What another program has cached in full is used without asking the hub.
    """
    listed = fetch(MODULES, False)
    if listed is None and fetch("config.json", False):
        return None
    listed = listed or fetch(MODULES, True)
    if listed is None:
        return None
    heavy = [listed.parent / path for kind, path in _modules(listed.parent) if kind in ("Transformer", "Dense")]
    if all(map(weights_in, heavy)):
        return listed.parent
    for kind, path in _modules(listed.parent):
        prefix = f"{path.rstrip('/')}/" if path else ""
        names = ["config.json", *(["sentence_bert_config.json", *TOKENIZER] if kind == "Transformer" else [])]
        for name in names:
            fetch(prefix + name, True)
        if kind in ("Transformer", "Dense"):
            next((found for name in WEIGHTS if (found := fetch(prefix + name, True))), None)
    return listed.parent


def load_sentence_tower(files: SentenceFiles) -> tuple[TextTower, list[Path]]:
    """Return a text tower on the CPU, and the files of its weights.

    Raises:
        ModelError: a file is missing or broken, or asks for something that is not built here.
    """
    config = read_config(files.transformer / "config.json")
    name = config.get("model_type")
    if not isinstance(name, str) or name not in _BODIES:
        raise ModelError(f"Expected a model_type of {', '.join(_BODIES)} in {files.transformer}, got {shown(name)}.")
    weights = _weights(files.transformer)
    pooling = _pooling(read_config(files.pooling / "config.json"), files.pooling)
    family = Family(name, _BODIES[name], False, pooling, ViewSpec(), 1)
    extra = {} if name == "distilbert" else {"add_pooling_layer": False}
    body = load_pretrained(
        getattr(transformers, family.model),
        EncoderFiles(files.source, files.transformer, weights, config, family),
        **extra,
    )
    settings = files.transformer / "sentence_bert_config.json"
    limit = (read_config(settings) if settings.is_file() else {}).get("max_seq_length")
    # RoBERTa counts positions from the padding's id on, so that the first ones are never used.
    unused = body.config.pad_token_id + 1 if "roberta" in name else 0
    length = body.config.max_position_embeddings - unused
    tokenizer = read_tokenizer(
        files.transformer,
        length=min(length, limit) if type(limit) is int and limit > 1 else length,
        words=body.config.vocab_size,
        pad=body.config.pad_token_id,
        siglip=False,
    )
    width = int(body.config.hidden_size)
    layers = [_dense(folder) for folder in files.dense]
    for (linear, _), before in zip(layers, [width, *(linear.out_features for linear, _ in layers)], strict=False):
        if linear.in_features != before:
            raise ModelError(
                f"Expected a dense layer of {before} features in {files.source}, got {linear.in_features}."
            )
    project = nn.Sequential(*(part for layer in layers for part in layer))
    dim = layers[-1][0].out_features if layers else width
    tower = TextTower(body, project, pooling, tokenizer, dim)
    return tower, [weights, *(_weights(folder) for folder in files.dense)]


def _modules(folder: Path) -> list[tuple[str, str]]:
    """Return the kind of each module, the last part of its type, and its folder."""
    path = folder / MODULES
    with expecting(f"a list of modules in {path}"):
        found = json.loads(path.read_text(encoding="utf-8"))
        return [(str(one["type"]).rpartition(".")[2], str(one["path"])) for one in found]


def _pooling(config: dict[str, Any], folder: Path) -> Pooling:
    """Return the pooling of a config, as written by any version of sentence-transformers."""
    older = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}
    modes = [older.get(key, key) for key, on in config.items() if key.startswith("pooling_mode_") and on is True]
    given = config.get("pooling_mode", modes[0] if len(modes) == 1 else modes)
    if not isinstance(given, str) or given not in _POOLED:
        raise ModelError(f"Expected the pooling mean or cls in {folder}, got {shown(given)}.")
    return _POOLED[given]


def _dense(folder: Path) -> tuple[nn.Linear, nn.Module]:
    """Return a dense layer and its activation."""
    config, path = read_config(folder / "config.json"), _weights(folder)
    activation = str(config.get("activation_function", "torch.nn.modules.activation.Tanh")).rpartition(".")[2]
    if activation not in _ACTIVATIONS:
        raise ModelError(f"Expected the activation {' or '.join(_ACTIVATIONS)} in {folder}, got {shown(activation)}.")
    wide, narrow = config.get("in_features", 0), config.get("out_features", 0)
    whole = type(wide) is int and type(narrow) is int
    if not whole or not 0 < min(wide, narrow) <= max(wide, narrow) <= _MOST_FEATURES:
        raise ModelError(
            f"Expected two sizes in {folder / 'config.json'}, got {shown((wide, narrow))}: fetch it again."
        )
    with torch.device("meta"):
        linear = nn.Linear(wide, narrow, bias=config.get("bias", True) is not False)
    weights = load_weights(path.read_bytes(), path) if path.suffix == ".safetensors" else load_pickled(path)
    named = {key.removeprefix("linear."): value.float() for key, value in weights.items()}
    with expecting(f"the weights of a dense layer in {path}"):
        linear.load_state_dict(named, assign=True)
    return linear, _ACTIVATIONS[activation]()


def _weights(folder: Path) -> Path:
    found = weights_in(folder)
    if found is None:
        raise ModelError(f"Expected {' or '.join(WEIGHTS)} in {folder}, got neither: complete the folder.")
    return found
