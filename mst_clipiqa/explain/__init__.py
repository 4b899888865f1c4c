"""Why an image got its score: what each stream, quality level, word and part of the image contributes.

    fusion.py       features -> shares: how much of the score comes from the coarse stream, how much from the fine one
    words.py        the prompt, word by word: attention, and how the score changes without the word
    maps.py         the image, window by window: where quality is lost, for each stream
    results.py      what the three above return
    explanation.py  all of it, as arrays and as JSON
    overlay.py      a map over its image
    sheet.py        all of it as one image; lettering.py draws its words

    from mst_clipiqa.explain import explain
    found = explain(Scorer.load("mini"), "image.png", "a red ball on a table")
    found.maps["quality"].fine, found.words["correspondence"], found.overlay()

Every number describes the model, not the world: it shows what changes this score.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from mst_clipiqa.encoders.precision import own_settings
from mst_clipiqa.encoders.threads import run_in_new_thread_after_fork
from mst_clipiqa.errors import ImageError, PromptError, as_sentence
from mst_clipiqa.explain.explanation import Explanation
from mst_clipiqa.explain.fusion import fusion
from mst_clipiqa.explain.maps import window_maps
from mst_clipiqa.explain.results import Fusion, Maps, Word
from mst_clipiqa.explain.words import word_effects
from mst_clipiqa.images.decode import open_image
from mst_clipiqa.inputs.prompt_syntax import without_syntax
from mst_clipiqa.scoring.scorer import Scorer

__all__ = ["Explanation", "Fusion", "Maps", "Word", "explain"]


def explain(scorer: Scorer, image: Any, prompt: str | None = None) -> Explanation:
    """Explain the score of an image.

    Encodes 193 views (``Explanation.encoder_rows``), whatever the image's size, and the prompt twice for each of its
    words.

    Args:
        scorer: the model.
        image: a path, bytes, PIL image, uint8 array (H, W, 3) or float tensor (3, H, W) in [0, 1].
        prompt: the image's prompt; without it, only quality is explained.

    Raises:
        ImageError: the image cannot be read.
        PromptError: the prompt is empty and the model has a head that reads prompts.

    Example:
        >>> from mst_clipiqa import Scorer
        >>> found = explain(Scorer.load("mini"), "examples/coffee_blur.jpg")  # doctest: +SKIP
        >>> found.maps["quality"].fine.shape  # doctest: +SKIP
        (8, 8)
    """
    with own_settings(scorer.encoder.encoders.device):
        return run_in_new_thread_after_fork(lambda: _explained(scorer, image, prompt))


def _explained(scorer: Scorer, image: Any, prompt: str | None) -> Explanation:
    try:
        found_image = open_image(image, scorer.encoder.opening)
    except ImageError as error:
        raise ImageError(as_sentence(str(error), image)) from error
    opened = found_image.image
    encoded = dataclasses.replace(scorer.encode([opened])[0], note=found_image.caution)
    score = scorer.score_encoded([encoded], [prompt])[0]
    if score.status != "ok":
        raise PromptError(as_sentence(score.reason))
    predictor = scorer.predictor
    names = [name for name, value in score.targets.items() if value is not None]
    words = without_syntax(prompt or "")[0]  # what the scorer reads of it
    read = predictor.prompts.encode([words])[0] if words.strip() else None
    maps, rows = window_maps(predictor, opened, (encoded.f_c, encoded.f_f), dict.fromkeys(names, read))
    reading = [name for name in names if predictor.config.targets[name].head != "template"]
    return Explanation(
        score=score,
        prompt=prompt,
        image=opened,
        fusion={name: fusion(predictor, name, encoded, read) for name in names},
        words={name: word_effects(predictor, name, encoded, words) for name in reading},
        maps=maps,
        encoder_rows=1 + rows,
    )
