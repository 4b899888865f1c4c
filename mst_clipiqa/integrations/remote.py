"""The reward function over HTTP: images go to ``mst-clipiqa serve`` as PNG in JSON, and scores come back as JSON."""

from __future__ import annotations

import base64
import io
import json
import math
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, cast
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from mst_clipiqa.errors import ImageError, UsageError, as_reason, shown
from mst_clipiqa.images.decode import open_image
from mst_clipiqa.integrations.mixing import (
    HALF_AND_HALF,
    OneScore,
    RewardInfo,
    RewardMix,
    image_list,
    mixed,
    prompt_list,
)
from mst_clipiqa.scoring.predictor import NOT_TEXT

_TRIES = 5
_pause = time.sleep
_LONGEST_WAIT = 30.0  # seconds, whatever the server asks for
_LONGEST_RESPONSE = 2**26  # of a response
_ROOM = 2**16  # bytes of a request that are neither images nor prompts
_UNSCORED = (413, 422)  # statuses of a request with something that cannot be scored


@dataclass(frozen=True)
class RemoteRewards:
    """A reward function whose scores come from a server; ``mst_clipiqa_remote_score`` makes one.

    Attributes:
        url: where ``mst-clipiqa serve`` runs, such as "http://127.0.0.1:8000".
        mix: what rewards are made of.
        token: the server's token, or None if it has none.
        seconds: how long to wait for a response.
    """

    url: str
    mix: RewardMix = field(default_factory=RewardMix)
    token: str | None = None
    seconds: float = 60.0

    def __call__(
        self, images: Any, prompts: Iterable[str], metadata: Any = None
    ) -> tuple[NDArray[np.float32], RewardInfo]:
        """Return the rewards of images, float32 (N,), and what they were mixed from; ``metadata`` is ignored.

        Raises:
            UsageError: the server cannot be reached, refuses the request, or has no target with a weight.
        """
        sources = image_list(images)
        texts = prompt_list(prompts, len(sources))
        bodies = [_body(image, prompt) for image, prompt in zip(sources, texts, strict=True)]
        scores = [one if isinstance(one, OneScore) else None for one in bodies]
        sent = [place for place, score in enumerate(scores) if score is None]
        for places in self._portions(sent, bodies):
            for place, score in zip(places, self._scores([bodies[place] for place in places]), strict=True):
                scores[place] = score
        return mixed([score for score in scores if score is not None], texts, self.mix, self._ranges)

    @cached_property
    def _about(self) -> dict[str, Any]:
        """The server's description of its model and limits."""
        about = self._ask("/v1/info", None)
        self.mix.check(about["ranges"])
        return about

    @property
    def _ranges(self) -> dict[str, Sequence[float]]:
        return cast("dict[str, Sequence[float]]", self._about["ranges"])

    def _portions(self, places: Sequence[int], bodies: Sequence[Any]) -> Iterator[list[int]]:
        """Yield the places of images that fit into one request each."""
        limits = self._about["limits"]
        portion: list[int] = []
        size = _ROOM
        for place in places:
            more = len(json.dumps(bodies[place])) + 2
            if portion and (len(portion) == limits["max_images"] or size + more > limits["max_bytes"]):
                yield portion
                portion, size = [], _ROOM
            portion.append(place)
            size += more
        if portion:
            yield portion

    def _scores(self, bodies: Sequence[Any]) -> list[OneScore]:
        """Return the scores of images; if the server refuses them together, each is sent alone for its own reason.

        A server accepts or refuses a whole request: one prompt that is too long would cost all images their scores.
        """
        try:
            found = self._ask("/v1/score", {"images": list(bodies)})["results"]
        except _Unscored as error:
            if len(bodies) > 1:
                return [score for body in bodies for score in self._scores([body])]
            return [OneScore({}, as_reason(error))]
        names = self._ranges
        return [OneScore({name: one.get(name) for name in names}, one["reason"] or "") for one in found]

    def _ask(self, path: str, body: Mapping[str, Any] | None) -> dict[str, Any]:
        """Return the server's JSON; if it is busy, wait as long as it says and try again."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} | (
            {"Authorization": f"Bearer {self.token}"} if self.token else {}
        )
        request = urllib.request.Request(self.url.rstrip("/") + path, data, headers)
        for left in reversed(range(_TRIES)):
            try:
                with urllib.request.urlopen(request, timeout=self.seconds) as response:
                    return cast("dict[str, Any]", json.loads(response.read(_LONGEST_RESPONSE)))
            except urllib.error.HTTPError as error:
                sentence = _sentence(error)
                if error.code in _UNSCORED and body is not None:
                    raise _Unscored(sentence) from error
                if error.code != 503 or not left:
                    raise UsageError(f"Expected scores from {self.url}, got status {error.code}: {sentence}") from error
                _pause(_wait(error.headers.get("Retry-After")))
            except (OSError, ValueError) as error:  # no connection, no time left, or no JSON
                raise UsageError(
                    f"Expected mst-clipiqa serve at {self.url}, got no response from it ({error}): start it there, or "
                    "give another address."
                ) from error
        raise UsageError(f"Expected scores from {self.url}, got none in {_TRIES} tries: try again later.")


class _Unscored(Exception):
    """The server refused a request, because of one of its images or all of them."""


def mst_clipiqa_remote_score(
    url: str = "http://127.0.0.1:8000",
    *,
    token: str | None = None,
    weights: Mapping[str, float] = HALF_AND_HALF,
    failed: float = math.nan,
    seconds: float = 60.0,
) -> RemoteRewards:
    """Return the reward function of ``rewards.mst_clipiqa_score`` with the model of a server; nothing is pickled.

    Images travel as PNG, without loss, so that rewards equal those of the same model here.

    Args:
        url: where ``mst-clipiqa serve`` runs.
        token: the server's token, if it has one.
        weights: what the reward mixes, target -> weight (``RewardMix``).
        failed: the reward of an image that could not be scored.
        seconds: how long to wait for a response.

    Raises:
        UsageError: the address is not one of HTTP.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise UsageError(f"Expected the address of a server such as http://127.0.0.1:8000, got {shown(url)}.")
    return RemoteRewards(url, RewardMix(weights, failed), token, seconds)


def _body(image: Any, prompt: object) -> dict[str, Any] | OneScore:
    """Return an image and its prompt as JSON, or why it cannot be sent."""
    if prompt is not None and not isinstance(prompt, str):
        return OneScore({}, NOT_TEXT.format(type(prompt).__name__))
    try:
        file = io.BytesIO()
        open_image(image).image.save(file, "PNG", compress_level=1)
    except ImageError as error:
        return OneScore({}, as_reason(error))
    return {"data": base64.b64encode(file.getvalue()).decode(), "prompt": prompt}


def _sentence(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.loads(error.read(_LONGEST_RESPONSE))["error"])
    except (OSError, ValueError, KeyError, TypeError):
        return "no reason was given."


def _wait(retry_after: str | None) -> float:
    """Return how many seconds to wait before another try."""
    return min(float(retry_after), _LONGEST_WAIT) if retry_after and retry_after.isdecimal() else 1.0
