"""What all routes share: the model, its engine, the limits, the memory budget and the counters."""

from __future__ import annotations

from starlette.requests import Request

from mst_clipiqa.errors import Rejected, UsageError, counted
from mst_clipiqa.scoring.score import Score, ScoreRequest
from mst_clipiqa.scoring.scorer import Scorer
from mst_clipiqa.serve.body import HttpScoreRequest, read_score_request
from mst_clipiqa.serve.engine import Engine
from mst_clipiqa.serve.metrics import Metrics
from mst_clipiqa.serve.reading import MemoryBudget
from mst_clipiqa.serve.settings import Settings


class Server:
    """The state behind the routes; one per application.

    Args:
        scorer: the model.
        settings: token and limits.
    """

    def __init__(self, scorer: Scorer, settings: Settings) -> None:
        self.scorer = scorer
        self.settings = settings
        self.metrics = Metrics()
        self.engine = Engine(scorer, settings.limits, self.metrics)
        self.memory = MemoryBudget(settings.limits.max_held)
        self.metrics.held.set_function(lambda: self.memory.bytes)

    async def scores(self, request: Request, count: int | None = None) -> tuple[HttpScoreRequest, list[Score]]:
        """Return the body of a request and its scores.

        Args:
            request: the HTTP request.
            count: how many images the body must have, all with the same prompt or none; None for any number.

        Raises:
            Rejected: the body is invalid, or no image could be scored.
        """
        with self.memory.reserve() as reservation:
            asked = await read_score_request(request, self.settings.limits, reservation)
            if count is not None:
                _check_comparable(asked, count)
            try:
                controls = asked.controls
                self.scorer.answers.check(ScoreRequest(None, negative=controls.negative, reference=controls.reference))
            except UsageError as error:
                raise Rejected(422, str(error)) from error
            scores = await self.engine.score(asked)
        if all(score.status == "error" for score in scores):
            raise Rejected(422, scores[0].reason)
        return asked, scores


def _check_comparable(asked: HttpScoreRequest, count: int) -> None:
    """Reject anything but ``count`` images with the same prompt or none: scores of two prompts do not compare."""
    expected = f"Expected {counted(count, 'image')} and at most one prompt"
    if len(asked.images) != count:
        raise Rejected(422, f"{expected}, got {counted(len(asked.images), 'image')}: send {count}.")
    if asked.count != count or len(set(asked.prompts)) > 1:
        raise Rejected(422, f"{expected}, got different prompts: send one.")
