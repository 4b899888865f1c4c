"""A model on disk: ``config.json``, ``model.safetensors``, ``README.md`` and, if known, ``trained_on.json`` and
``reference.safetensors``, a compact description of the features that it was trained on.

One folder may hold several targets. Each has its own fusion and head; all share the encoders, which the folder names
but does not contain. Weights are named ``<target>.<paper's name>``: ``quality.gff.W_h.weight``. Nothing is pickled.

    config.py      config.json .................. -> ModelConfig
    trained_on.py  trained_on.json .............. -> TrainedOn
    folder.py      all files .................... -> TrainedModel, and back
"""

from __future__ import annotations

from mst_clipiqa.model_folder.config import MODEL_FORMAT, EncoderRef, ModelConfig, Target
from mst_clipiqa.model_folder.folder import (
    MODEL_FILES,
    REFERENCE_FILE,
    WEIGHTS_FILE,
    TrainedModel,
    load_config,
    load_model,
    save_model,
)
from mst_clipiqa.model_folder.trained_on import (
    HASH_DIGITS,
    TRAINED_ON_FILE,
    TrainedOn,
    image_hash,
    load_trained_on,
    prompt_hash,
    trained_on_json,
)

__all__ = [
    "HASH_DIGITS",
    "MODEL_FILES",
    "MODEL_FORMAT",
    "REFERENCE_FILE",
    "TRAINED_ON_FILE",
    "WEIGHTS_FILE",
    "EncoderRef",
    "ModelConfig",
    "Target",
    "TrainedModel",
    "TrainedOn",
    "image_hash",
    "load_config",
    "load_model",
    "load_trained_on",
    "prompt_hash",
    "save_model",
    "trained_on_json",
]
