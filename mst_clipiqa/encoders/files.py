"""Where encoder weights come from: a local folder or a hub id, in the Hugging Face format.

Cached files are used without any network access; others are downloaded only if the caller named their hub id.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from mst_clipiqa.encoders.checks import expecting
from mst_clipiqa.encoders.families import FAMILIES, PAIRS, Family, family_of
from mst_clipiqa.encoders.hub import HUB_ID, answers, refused
from mst_clipiqa.errors import ModelError

WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # the first that exists is used; .bin is read with weights_only
TOKENIZER = (
    *("tokenizer.json", "vocab.json", "merges.txt", "vocab.txt", "tokenizer_config.json", "special_tokens_map.json"),
)

Fetch: TypeAlias = Callable[[str, bool], Path | None]


@dataclass(frozen=True)
class EncoderFiles:
    """The files of one model on disk.

    Attributes:
        source: the folder or hub id given by the caller.
        folder: where the files are.
        weights: all of its weights.
        config: config.json.
        family: the family that its ``model_type`` names.
    """

    source: str
    folder: Path
    weights: Path
    config: dict[str, Any]
    family: Family


def find(source: str, *, text: bool = True) -> EncoderFiles:
    """Return the files of a model named by a local folder or a hub id.

    Args:
        source: the folder or hub id.
        text: whether its tokenizer is needed too.

    Raises:
        ModelError: the folder lacks a file, or the hub id is unknown, or not cached and the hub cannot be reached.
    """
    folder = locate(source, lambda repo, fetch: fetch_model(repo, fetch, text))
    path = folder / "config.json"
    weights = weights_in(folder)
    config = read_config(path) if path.is_file() else None
    family = None if config is None else family_of(config, str(path))
    missing = [] if family else ["config.json"]
    missing += [] if weights else [" or ".join(WEIGHTS)]
    if text and not _has_tokenizer(folder) and not (family and family.pooling is None):
        missing.append("tokenizer.json (or vocab.json and merges.txt)")
    if missing or config is None or family is None or weights is None:
        raise ModelError(f"Expected a model in {source}, but it lacks {', '.join(missing)}: complete the folder.")
    return EncoderFiles(source, folder, weights, config, family)


def weights_in(folder: Path) -> Path | None:
    """Return the file of weights in a folder; None if it has none."""
    return next((path for name in WEIGHTS if (path := folder / name).is_file()), None)


def locate(source: str, fetch_all: Callable[[str, Fetch], Path]) -> Path:
    """Return the folder that a source names.

    Args:
        source: a local folder or a hub id.
        fetch_all: fetches what is needed of a hub id, and returns its folder.
    """
    if Path(source).is_dir():
        return Path(source)
    if not HUB_ID.fullmatch(source):
        known = PAIRS["openai"].coarse
        raise ModelError(f"Expected a folder or a hub id such as {known}, got {source!r}: check the path.")
    with _hub(source) as fetch:
        return fetch_all(source, fetch)


def sha256(paths: Iterable[Path], texts: Iterable[str]) -> str:
    """Return one hexadecimal hash of the contents of files, read in parallel, and of texts, in order."""

    def one(path: Path) -> str:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    with ThreadPoolExecutor(max_workers=4) as pool:
        return hashlib.sha256("\n".join([*pool.map(one, paths), *texts]).encode()).hexdigest()


def read_config(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; ModelError if there is none."""
    with expecting(f"JSON in {path}", "fetch the file again"):
        found = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise ModelError(f"Expected an object in {path}, got {type(found).__name__}: fetch the file again.")
    return found


def _has_tokenizer(folder: Path) -> bool:
    alone = any((folder / name).is_file() for name in ("tokenizer.json", "vocab.txt"))
    return alone or all((folder / name).is_file() for name in ("vocab.json", "merges.txt"))


def fetch_model(repo: str, fetch: Fetch, text: bool) -> Path:
    """Return the folder of a hub id in the local cache; files that are missing are downloaded."""
    config = fetch("config.json", False)
    here = weights_in(config.parent) if config else None
    text = text and not (config and _has_no_text(config))  # such a repository has no tokenizer to look for
    if here and (not text or _has_tokenizer(here.parent)):  # another program may have downloaded only some files
        return here.parent
    for name in ("config.json", "preprocessor_config.json", *(TOKENIZER if text else ())):
        fetch(name, True)
    weights = next((got for name in WEIGHTS if (got := fetch(name, True))), None)
    if weights is None:
        raise ModelError(f"Expected {' or '.join(WEIGHTS)} at the hub id {repo}, got neither: choose another model.")
    return weights.parent


def _has_no_text(config: Path) -> bool:
    """Return whether a config.json is that of a family without a text tower, such as DINO."""
    family = FAMILIES.get(str(read_config(config).get("model_type")))
    return family is not None and family.pooling is None


@contextmanager
def _hub(repo: str) -> Iterator[Fetch]:
    """Yield a function that returns a file of a hub id, or None if it has none; what goes wrong is a ModelError.

    The function takes the file's name and whether to download it if it is not in the local cache.
    """
    from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    def cached(name: str) -> Path | None:
        found = try_to_load_from_cache(repo, name)
        return Path(found) if isinstance(found, str) else None

    checked: list[str] = []

    def fetch(name: str, download: bool) -> Path | None:
        if (found := cached(name)) or not download:
            return found
        if not checked and not constants.HF_HUB_OFFLINE:
            if not answers(constants.ENDPOINT):
                raise ConnectionError(f"no answer from {constants.ENDPOINT}")
            checked.append(repo)
        try:
            return Path(hf_hub_download(repo, name))
        except LocalEntryNotFoundError:
            raise
        except EntryNotFoundError:
            return None

    try:
        yield fetch
    except (HFValidationError, RepositoryNotFoundError) as error:
        raise ModelError(refused(error, repo, None)) from error
    except (OSError, LocalEntryNotFoundError) as error:  # no network, HF_HUB_OFFLINE, a full disk
        raise ModelError(
            f"Expected {repo} in the local hub cache or a network to fetch it, got neither "
            f"({type(error).__name__}): connect once, or give a folder that holds the model."
        ) from error
