"""Where encoder weights come from: a local folder or a hub id, in the Hugging Face format.

Cached files are used without any network access; others are downloaded only if the caller named their hub id.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mst_clipiqa.encoders.hub import HUB_ID, answers
from mst_clipiqa.errors import ModelError

WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # the first that exists is used; .bin is read with weights_only
TOKENIZER = ("tokenizer.json", "vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json")
OPENAI_PAIR = ("openai/clip-vit-base-patch32", "openai/clip-vit-base-patch16")


@dataclass(frozen=True)
class ClipFiles:
    """The files of one CLIP model on disk."""

    source: str  # the folder or hub id given by the caller
    folder: Path
    weights: Path
    config: dict[str, Any]  # config.json


def find(source: str) -> ClipFiles:
    """Return the files of a CLIP model named by a local folder or a hub id.

    Raises:
        ModelError: the folder lacks a file, or the hub id is unknown, or not cached and the hub cannot be reached.
    """
    weights: Path | None
    if Path(source).is_dir():
        folder = Path(source)
        weights = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    elif HUB_ID.fullmatch(source):
        weights = _from_hub(source)
        folder = weights.parent
    else:
        raise ModelError(f"Expected a folder or a hub id such as {OPENAI_PAIR[0]}, got {source!r}: check the path.")
    missing = [] if (folder / "config.json").is_file() else ["config.json"]
    missing += [] if weights else [" or ".join(WEIGHTS)]
    missing += [] if _has_tokenizer(folder) else ["tokenizer.json (or vocab.json and merges.txt)"]
    if missing or weights is None:
        raise ModelError(f"Expected a CLIP model in {source}, but it lacks {', '.join(missing)}: complete the folder.")
    return ClipFiles(source, folder, weights, _read_config(folder / "config.json"))


def sha256(paths: Iterable[Path], texts: Iterable[str]) -> str:
    """Return one hexadecimal hash of the contents of files, read in parallel, and of texts, in order."""

    def one(path: Path) -> str:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    with ThreadPoolExecutor(max_workers=4) as pool:
        return hashlib.sha256("\n".join([*pool.map(one, paths), *texts]).encode()).hexdigest()


def _has_tokenizer(folder: Path) -> bool:
    return (folder / "tokenizer.json").is_file() or all((folder / n).is_file() for n in ("vocab.json", "merges.txt"))


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"Expected JSON in {path}, got {error}: fetch the file again.") from error
    if not isinstance(config, dict) or config.get("model_type") != "clip":
        kind = config.get("model_type") if isinstance(config, dict) else type(config).__name__
        raise ModelError(f"Expected model_type 'clip' in {path}, got {kind!r}: only CLIP models can be encoders.")
    return config


def _from_hub(repo: str) -> Path:
    """Return the weights file of a hub id in the local cache; files that are missing are downloaded."""
    from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    def cached(name: str) -> Path | None:
        found = try_to_load_from_cache(repo, name)
        return Path(found) if isinstance(found, str) else None

    def fetch(name: str) -> Path | None:
        try:
            return cached(name) or Path(hf_hub_download(repo, name))
        except LocalEntryNotFoundError:
            raise
        except EntryNotFoundError:
            return None

    try:
        config = cached("config.json")
        here = next((w for n in WEIGHTS if config and (w := config.parent / n).is_file()), None)
        if here and _has_tokenizer(here.parent):  # another program may have downloaded only some files
            return here
        if not constants.HF_HUB_OFFLINE and not answers(constants.ENDPOINT):
            raise ConnectionError(f"no answer from {constants.ENDPOINT}")
        for name in ("config.json", "preprocessor_config.json", *TOKENIZER):
            fetch(name)
        weights = next((got for name in WEIGHTS if (got := fetch(name))), None)
    except GatedRepoError as error:
        raise ModelError(f"Expected a hub id that is open to you, got {repo!r}: ask for access and log in.") from error
    except HFValidationError as error:
        raise ModelError(f"Expected a folder or a hub id, got {repo!r}, which is neither: check the path.") from error
    except RepositoryNotFoundError as error:
        raise ModelError(f"Expected a hub id that exists, got {repo!r}, which it does not have.") from error
    except (OSError, LocalEntryNotFoundError) as error:  # no network, HF_HUB_OFFLINE, a full disk
        raise ModelError(
            f"Expected {repo} in the local hub cache or a network to fetch it, got neither "
            f"({type(error).__name__}): connect once, or give a folder that holds the model."
        ) from error
    if weights is None:
        raise ModelError(f"Expected {' or '.join(WEIGHTS)} at the hub id {repo}, got neither: choose another model.")
    return weights
