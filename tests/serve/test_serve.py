"""The server: the command's scores over HTTP, and a sentence for whatever is not one."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import io
import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from starlette.testclient import TestClient
from torch import Tensor

from mst_clipiqa.errors import Rejected
from mst_clipiqa.features.cache import Cache
from mst_clipiqa.features.image_encoder import ImageEncoder
from mst_clipiqa.inputs.expand import expand
from mst_clipiqa.model.mstfe import Stream
from mst_clipiqa.model_folder import TrainedModel
from mst_clipiqa.scoring.answers import ANSWERS
from mst_clipiqa.scoring.controls import Controls, ControlSources
from mst_clipiqa.scoring.score_rows import FurtherColumns, score_rows
from mst_clipiqa.scoring.scorer import Scorer
from mst_clipiqa.serve.app import create_app
from mst_clipiqa.serve.body import HttpScoreRequest
from mst_clipiqa.serve.engine import Engine
from mst_clipiqa.serve.form import Upload
from mst_clipiqa.serve.metrics import Metrics
from mst_clipiqa.serve.results import CompareResponse, ErrorResponse, ScoreResponse, ScoreResult
from mst_clipiqa.serve.server import Server
from mst_clipiqa.serve.settings import Limits, Settings
from tests.closed_form import toy_model
from tests.fakes import FakePair
from tests.serving import b64, png, toy_scorer

SMALL = Limits(
    max_bytes=40_000, max_pixels=10_000, max_images=4, max_prompt=50, max_waiting=6, max_held=90_000, seconds=30.0
)
HOME = "http://127.0.0.1"


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return toy_scorer()


@pytest.fixture(scope="module")
def client(scorer: Scorer) -> Iterator[TestClient]:
    with TestClient(create_app(scorer, Settings(limits=SMALL)), HOME, raise_server_exceptions=False) as opened:
        yield opened


def images(*data: bytes) -> list[tuple[str, tuple[str, bytes]]]:
    return [("image", (f"{place}.png", one)) for place, one in enumerate(data)]


def said(response: Any, status: int) -> str:
    """Check that an answer is a no in one sentence, and return the sentence."""
    assert response.status_code == status, response.text
    assert list(response.json()) == ["error"]
    sentence: str = response.json()["error"]
    assert sentence.startswith("Expected")
    assert sentence.endswith(".")
    assert "Traceback" not in sentence and "\n" not in sentence
    assert ("retry-after" in response.headers) == (status == 503)
    return sentence


# ------------------------------------------------------------------------------------------------ scores


@pytest.mark.parametrize("prompt", [None, "a red fox"])
@pytest.mark.parametrize("kind", ["multipart", "json"])
def test_a_score_is_the_row_of_the_command(
    client: TestClient, scorer: Scorer, tmp_path: Path, kind: str, prompt: str | None
) -> None:
    data = [png(seed, seed / 4, 50 + seed) for seed in range(4)]
    for place, one in enumerate(data):
        (tmp_path / f"{place}.png").write_bytes(one)
    rows = list(score_rows(scorer, expand([str(tmp_path)], prompt=prompt)))
    if kind == "multipart":
        answer = client.post("/v1/score", files=images(*data), data={"prompt": prompt} if prompt else {})
    else:
        body = {"images": [{"data": b64(one), "name": f"{i}.png"} for i, one in enumerate(data)], "prompt": prompt}
        answer = client.post("/v1/score", json=body)
    assert answer.status_code == 200, answer.text
    assert len(rows) == 4
    for got, want in zip(answer.json()["results"], rows, strict=True):
        assert Path(str(want.pop("file"))).name == got["file"]
        for name in ("quality", "correspondence", "gate"):
            assert got[name] == pytest.approx(want.pop(name), abs=1e-5)
        assert {name: got[name] for name in want} == want


def test_prompts_one_for_all_one_for_each_or_several_for_one(client: TestClient) -> None:
    def prompts(answer: Any) -> list[tuple[str, str | None]]:
        assert answer.status_code == 200, answer.text
        return [(one["file"], one["prompt"]) for one in answer.json()["results"]]

    two, one = images(png(0), png(1)), images(png(0))
    each = {"prompt": ["a fox", "a car"]}
    assert prompts(client.post("/v1/score", files=two, data={"prompt": "x"})) == [("0.png", "x"), ("1.png", "x")]
    assert prompts(client.post("/v1/score", files=two, data=each)) == [("0.png", "a fox"), ("1.png", "a car")]
    assert prompts(client.post("/v1/score", files=one, data=each)) == [("0.png", "a fox"), ("0.png", "a car")]
    own = {"images": [{"data": b64(png(0)), "prompt": "mine"}, {"data": b64(png(1))}], "prompt": "x"}
    assert prompts(client.post("/v1/score", json=own)) == [("", "mine"), ("", "x")]
    listed = {"images": [{"data": f"data:image/png;base64,{b64(png(0))}"}], "prompts": ["a", "b"]}
    assert prompts(client.post("/v1/score", json=listed)) == [("", "a"), ("", "b")]
    three = client.post("/v1/score", files=images(png(0), png(1), png(2)), data=each)
    assert "one for each of 3 images, got 2" in said(three, 422)


def test_responses_are_as_the_documentation_says(client: TestClient) -> None:
    both, prompt = images(png(0), png(1)), {"prompt": "a fox"}
    scored = client.post("/v1/score", files=[*both, *images(b"no")], data=prompt).json()
    compared = client.post("/v1/compare", files=both, data=prompt).json()
    refused = client.post("/v1/score", json={}).json()
    for body, model in ((scored, ScoreResponse), (compared, CompareResponse), (refused, ErrorResponse)):
        assert json.loads(model.model_validate(body, strict=False).model_dump_json(exclude_unset=True)) == body
        assert body.keys() == model.model_fields.keys()
    answers = [name for names in ANSWERS for name in names]
    usual = tuple(name for name in ScoreResult.model_fields if name not in answers)
    assert {tuple(one) for one in scored["results"]} == {usual}
    small = png(2, 0.2, 32)
    everything = [*images(small, b"no"), ("reference", ("r", small)), ("control", ("c", small))]
    asked = client.post("/v1/score", files=everything, data={**prompt, "negative": "a car"}).json()
    assert {tuple(one) for one in asked["results"]} == {tuple(ScoreResult.model_fields)}


@pytest.mark.parametrize("kind", ["multipart", "json"])
def test_controls_are_answered_as_by_the_command(client: TestClient, scorer: Scorer, tmp_path: Path, kind: str) -> None:
    data = [png(seed, seed / 4, 40 + seed) for seed in range(3)]
    files = {"reference": png(5, 0.2, 40), "control": png(6, 0.2, 40)}
    for name, one in {**{f"{place}.png": one for place, one in enumerate(data)}, **files}.items():
        (tmp_path / name).write_bytes(one)
    names = [str(tmp_path / f"{place}.png") for place in range(3)]
    sources = ControlSources("a car", None, str(tmp_path / "reference"), f"edges:{tmp_path / 'control'}")
    further = FurtherColumns(controls=Controls(scorer, sources, []))
    rows = list(score_rows(scorer, expand(names, prompt="a red fox"), more=further))
    if kind == "multipart":
        sent = [*images(*data), *((name, (name, one)) for name, one in files.items())]
        answer = client.post("/v1/score", files=sent, data={"prompt": "a red fox", "negative": "a car"})
    else:
        body: dict[str, Any] = {"images": [{"data": b64(one)} for one in data], "prompt": "a red fox"}
        body |= {name: {"data": b64(one)} for name, one in files.items()} | {"negative": "a car"}
        answer = client.post("/v1/score", json=body)
    assert answer.status_code == 200, answer.text
    for got, want in zip(answer.json()["results"], rows, strict=True):
        for some in (("quality", "correspondence"), *ANSWERS):
            for name in some:
                assert isinstance(want[name], float)
                assert got[name] == pytest.approx(want[name], abs=1e-5)


def test_what_of_the_controls_cannot_be_answered_is_said(client: TestClient, scorer: Scorer) -> None:
    files = [*images(png()), ("reference", ("r", b"%PDF-1.4")), ("control", ("c", flat(200, 200)))]
    [one] = client.post("/v1/score", files=files).json()["results"]
    assert one["status"] == "ok" and one["reference_fine"] is None and one["edge_agreement"] is None
    assert "the reference cannot be read: expected an image" in one["reason"] and "got a PDF" in one["reason"]
    assert "the control map cannot be read: expected at most 10,000 pixels" in one["reason"]
    assert "negative_match" not in one
    twice = [*images(png()), ("control", ("c", b"1")), ("control", ("c", b"2"))]
    assert "Expected the field control once" in said(client.post("/v1/score", files=twice), 422)
    text = client.post("/v1/score", files=images(png()), data={"control": "map.png"})
    assert "Expected the fields image, reference and control (files)" in said(text, 422)
    long = client.post("/v1/score", files=images(png()), data={"negative": "x" * 51})
    assert "at most 50 characters, got 51" in said(long, 413)
    bad = {"images": [{"data": b64(png())}], "reference": {"data": "@@"}}
    assert "base64 in reference.data" in said(client.post("/v1/score", json=bad), 422)
    explained = client.post("/v1/explain", files=images(png()), data={"negative": "a car"})
    assert "Expected an image and a prompt to explain" in said(explained, 422)
    targets = {"quality": scorer.model.config.targets["quality"]}
    config = dataclasses.replace(scorer.model.config, targets=targets)
    one_target = Scorer(TrainedModel(config, {"quality": scorer.model.parts["quality"]}), scorer.encoder)
    with TestClient(create_app(one_target, Settings(limits=SMALL)), HOME) as other:
        refused = other.post("/v1/score", files=images(png()), data={"negative": "a car"})
    assert "Expected a model that scores correspondence for a negative prompt" in said(refused, 422)


def test_a_form_may_come_in_any_pieces(client: TestClient) -> None:
    part = b'--x\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n'
    empty = part % (b"image", b'; filename=""', b"")  # as a browser sends it for a field left empty
    whole = (
        part % (b"images", b'; filename="\xe9.png"', png()) + empty + part % (b"prompts", b"", "é".encode()) + b"--x--"
    )

    def pieces(size: int) -> Iterator[bytes]:
        yield from (whole[at : at + size] for at in range(0, len(whole), size))

    for size in (1, 7, 1000):
        headers = {"content-type": "multipart/form-data; boundary=x"}
        [one] = client.post("/v1/score", content=pieces(size), headers=headers).json()["results"]
        assert (one["file"], one["prompt"], one["status"]) == ("é.png", "é", "ok")


def test_words_intervals_and_levels(client: TestClient) -> None:
    [one] = client.post("/v1/score", files=images(png())).json()["results"]
    q = one["quality"]
    assert one["words"] == {"quality": ["bad", "poor", "fair", "good", "perfect"][int(q)]}  # the scale is 0..5
    assert one["intervals"]["quality"] == pytest.approx([max(0, q - 0.5), min(5, q + 0.5)], abs=1e-5)
    assert sum(one["levels"]) == pytest.approx(1, abs=1e-4)


def test_a_bad_image_among_good_ones_is_a_result(client: TestClient) -> None:
    answer = client.post("/v1/score", files=images(png(0), b"%PDF-1.4", png(1)))
    assert [one["status"] for one in answer.json()["results"]] == ["ok", "error", "ok"]
    bad = answer.json()["results"][1]
    assert "got a PDF document" in bad["reason"]
    assert bad["quality"] is None
    assert "got a PDF document" in said(client.post("/v1/score", files=images(b"%PDF-1.4")), 422)


def test_comparing(client: TestClient) -> None:
    both = images(png(0, 0.0), png(0, 1.0))
    answer = client.post("/v1/compare", files=both, data={"prompt": "a fox"}).json()
    assert [one["target"] for one in answer["comparisons"]] == ["quality", "correspondence"]
    a, b = (one["quality"] for one in answer["results"])
    assert answer["comparisons"][0]["difference"] == pytest.approx(a - b, abs=1e-5)
    assert answer["sentences"][0].startswith("Quality: ")
    assert "Expected 2 images and at most one prompt, got 1 image: send 2." in said(
        client.post("/v1/compare", files=both[:1]), 422
    )
    bad = said(client.post("/v1/compare", files=images(png(), b"no")), 422)
    assert (
        bad.startswith("Expected two images, but image B cannot be scored: expected an image (PNG")
        and "bytes that are none" in bad
    )


def test_scores_for_different_prompts_are_not_compared(client: TestClient) -> None:
    both = images(png(0), png(1))
    two = client.post("/v1/compare", files=both, data={"prompt": ["a fox", "a car"]})
    assert "at most one prompt, got different prompts: send one" in said(two, 422)
    own = {"images": [{"data": b64(png(0)), "prompt": "a fox"}, {"data": b64(png(1))}]}
    assert "different prompts" in said(client.post("/v1/compare", json=own), 422)
    assert client.post("/v1/compare", files=both, data={"prompt": ["a fox"] * 2}).status_code == 200


# ------------------------------------------------------------------------------------------------ limits


def test_too_many_bytes(client: TestClient) -> None:
    big = b"\x89PNG\r\n\x1a\n" + bytes(50_000)
    assert "at most 40,000 bytes, got 50," in said(client.post("/v1/score", files=images(big)), 413)

    def pieces() -> Iterator[bytes]:  # without a Content-Length
        for _ in range(100):
            yield bytes(1000)

    answer = client.post("/v1/score", content=pieces(), headers={"content-type": "application/json"})
    assert "at most 40,000 bytes, got more" in said(answer, 413)


def test_too_many_pixels(client: TestClient) -> None:
    assert "at most 10,000 pixels, got 101 x 100" in said(client.post("/v1/score", files=images(flat(101, 100))), 422)
    assert client.post("/v1/score", files=images(flat(100, 100))).status_code == 200


def flat(width: int, height: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height)).save(file, "PNG")
    return file.getvalue()


def test_too_many_images_or_prompts(client: TestClient) -> None:
    small = flat(8, 8)
    assert "at most 4 images" in said(client.post("/v1/score", files=images(*[small] * 5)), 413)
    assert "at most 4 images" in said(client.post("/v1/score", json={"images": [{"data": b64(small)}] * 5}), 413)
    many = {"images": [{"data": b64(small)}], "prompts": ["a"] * 5}
    assert "got 5" in said(client.post("/v1/score", json=many), 413)
    long = client.post("/v1/score", files=images(small), data={"prompt": "x" * 51})
    assert "at most 50 characters, got 51" in said(long, 413)
    longer = client.post("/v1/score", files=images(small), data={"prompt": "x" * 300})  # than a part may be
    assert "at most 50 characters, got more: shorten it" in said(longer, 413)
    nameless = client.post("/v1/score", files=[("image", (None, "x" * 300))])
    assert "got 'image': check its name and kind" in said(nameless, 422)
    name = client.post("/v1/score", json={"images": [{"data": b64(small), "name": "x" * 2000}]})
    assert "file names of at most 1,000" in said(name, 413)


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({}, "in 'images': field required"),
        ({"images": []}, "at least one image, got none"),
        ({"images": [{"data": "@@"}]}, "base64 in images.0.data"),
        ({"images": [{"data": "https://example.org/a.png"}]}, "URLs are not fetched"),
        ({"images": [{"data": ""}]}, "got nothing (0 bytes)"),
        ({"images": [{"dat": ""}]}, "in 'images.0.data': field required"),
        ({"images": [{"data": "", "path": "/etc/passwd"}]}, "'images.0.path': extra inputs"),
        ({"images": [{"data": b64(b"x"), "prompt": 3}]}, "'images.0.prompt': input should be a valid string"),
        ({"images": [{"data": ""}], "prompt": "a", "prompts": ["b"]}, "prompt or prompts, got both"),
        ({"images": [{"data": "", "prompt": "a"}] * 2, "prompts": ["b", "c"]}, "in the list or with the images"),
        ({"images": [{"data": b64(png())}], "prompt": " "}, "words in the prompt"),
    ],
)
def test_json_that_asks_for_nothing_we_can_do(client: TestClient, body: Any, sentence: str) -> None:
    response = client.post("/v1/score", json=body)
    assert response.status_code == 422
    assert sentence in response.json()["error"]


@pytest.mark.parametrize(
    ("path", "body", "sentence"),
    [
        ("score", {"images": [1] * 9000}, "in 'images.0': input should be an object"),
        ("score", {"images": [], "prompts": [1] * 9000}, "in 'prompts.0': input should be a valid string"),
        ("download", {"format": "csv", "rows": [1] * 9000}, "in 'rows.0': input should be an object"),
        ("download", {"format": "csv", "rows": [{str(i): [] for i in range(3000)}]}, "in 'rows.0.0.str': input should"),
        ("download", {"format": "csv", "rows": [{}], "thumbnails": [1] * 9000}, "in 'thumbnails.0': input should"),
    ],
)
def test_reading_stops_at_the_first_bad_item(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, path: str, body: Any, sentence: str
) -> None:
    monkeypatch.setattr("mst_clipiqa.serve.reading._MAX_ERRORS", 3)  # a value of a row has three types: three errors
    assert sentence in said(client.post(f"/v1/{path}", json=body), 422)


def test_reading_stops_at_the_first_item_too_many(client: TestClient) -> None:
    many = {"images": [{"data": ""}] * 4 + [{"data": "", "no": "such"}] * 100}  # the last are not looked at
    assert "at most 4 images or prompts per request, got 104" in said(client.post("/v1/score", json=many), 413)
    keys = {"images": [], **{str(place): 0 for place in range(500)}}
    assert "got 500 errors" in said(client.post("/v1/score", json=keys), 422)


def test_a_limit_may_be_any_number(scorer: Scorer) -> None:
    limits = Limits(max_images=10**30)
    with TestClient(create_app(scorer, Settings(limits=limits)), HOME) as opened:
        assert opened.post("/v1/score", json={"images": [{"data": b64(png())}]}).status_code == 200


def test_bodies_of_another_kind(client: TestClient) -> None:
    def post(content: bytes, kind: str) -> Any:
        return client.post("/v1/score", content=content, headers={"content-type": kind})

    assert "in 'the body': invalid JSON" in said(post(b"{", "application/json"), 422)
    assert "invalid JSON" in said(post(b"[" * 30_000, "application/json"), 422)
    assert "hex escape" in said(post(b'{"images":[{"data":"","prompt":"\\ud800"}]}', "application/json"), 422)
    assert "got 'text/plain'" in said(post(b"hello", "text/plain"), 415)
    assert "it names no boundary" in said(post(b"--x", "multipart/form-data"), 400)
    nameless = b"--x\r\nContent-Disposition: form-data\r\n\r\nx\r\n--x--"
    assert "a part has no name" in said(post(nameless, "multipart/form-data; boundary=x"), 400)
    cut = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n' + png()
    assert "it ends too early" in said(post(cut, "multipart/form-data; boundary=x"), 400)
    assert "it cannot be parsed" in said(post(b"no such boundary", "multipart/form-data; boundary=x"), 400)
    part = b'--x\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n--x--\r\n'
    strange = "multipart/form-data; boundary=x; charset=unicode_escape"
    assert "got 'image'" in said(post(part % (b"image", b"x"), "multipart/form-data; boundary=x"), 422)
    assert "the charset 'unicode_escape'" in said(post(part % (b"prompt", b"\\ud800"), strange), 415)


def test_a_full_queue_says_when_to_come_back(scorer: Scorer) -> None:
    async def crowd() -> tuple[list[Any], bool]:
        engine = Engine(scorer, SMALL, Metrics())
        one = HttpScoreRequest((Upload("", png()),), ((None,),))
        answers = await asyncio.gather(*(engine.score(one) for _ in range(9)), return_exceptions=True)
        is_full = engine.is_full
        await engine.close()
        return answers, is_full

    answers, is_full = asyncio.run(crowd())
    refused = [one for one in answers if isinstance(one, Rejected)]
    assert [len(one) for one in answers if isinstance(one, list)] == [1] * 6
    assert len(refused) == 3
    assert {(one.status, one.retry_after) for one in refused} == {(503, 1)}
    assert "6 scores are waiting" in refused[0].sentence
    assert not is_full  # again


def test_bodies_that_fill_the_memory_are_sent_away(scorer: Scorer) -> None:
    limits = Limits(max_held=1000)
    with TestClient(create_app(scorer, Settings(limits=limits)), HOME) as client:
        assert "others fill it now" in said(client.post("/v1/score", files=images(png())), 503)
        assert client.app.state.server.memory.bytes == 0  # type: ignore[attr-defined]


class SlowPair(FakePair):
    """Takes its time."""

    def encode_chunk(self, stream: Stream, views: Tensor) -> Tensor:
        import time

        time.sleep(0.15)
        return super().encode_chunk(stream, views)


def test_who_waits_too_long_is_sent_away_and_the_others_are_answered() -> None:
    async def crowd() -> list[Any]:
        slow = toy_scorer(batch_size=2)
        slow.encoder = ImageEncoder(SlowPair(), batch_size=2)
        engine = Engine(slow, Limits(seconds=5), Metrics())
        one = HttpScoreRequest((Upload("", png()),), ((None,),))
        tasks = [asyncio.create_task(engine.score(one)) for _ in range(6)]
        await asyncio.sleep(0.1)
        tasks[0].cancel()  # a client that hangs up, in the batch that is being worked on
        tasks[3].cancel()  # and one that still waits
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        engine.limits = Limits(seconds=0.1)
        answers += await asyncio.gather(engine.score(one), return_exceptions=True)
        engine.limits = Limits(seconds=5)
        answers += [await engine.score(one)]
        assert engine.waiting == 0
        await engine.close()
        return answers

    answers = asyncio.run(crowd())
    assert isinstance(answers[0], asyncio.CancelledError)
    assert isinstance(answers[3], asyncio.CancelledError)
    assert all(one[0].status == "ok" for one in (answers[1], answers[2], answers[4], answers[5], answers[7]))
    assert isinstance(answers[6], Rejected)
    assert (answers[6].status, answers[6].retry_after) == (503, 1)


def test_requests_of_many_clients_are_batched() -> None:
    async def crowd() -> tuple[Any, Metrics]:
        scorer, metrics = toy_scorer(batch_size=8), Metrics()
        engine = Engine(scorer, Limits(), metrics)
        asks = [HttpScoreRequest((Upload("", png(seed, 0.5)),), ((None,),)) for seed in range(20)]
        answers = await asyncio.gather(*map(engine.score, asks))
        await engine.close()
        alone = [scorer(ask.images[0].data).quality for ask in asks]
        assert [one[0].quality for one in answers] == pytest.approx(alone, abs=1e-5)
        return answers, metrics

    answers, metrics = asyncio.run(crowd())
    assert len({one[0].quality for one in answers}) > 15
    assert metrics.registry.get_sample_value("mst_clipiqa_batch_images_sum") == 20
    steps = metrics.registry.get_sample_value("mst_clipiqa_batch_images_count")
    assert steps is not None and steps < 20


# ------------------------------------------------------------------------------------------------ what else is asked


def test_freed_memory_is_returned_once_there_is_no_work(scorer: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    returned: list[str] = []
    monkeypatch.setattr("mst_clipiqa.serve.engine._IDLE", 1.0)
    monkeypatch.setattr("mst_clipiqa.serve.engine.return_freed_memory", lambda: returned.append("all"))

    async def ask() -> None:
        engine = Engine(scorer, Limits(), Metrics())
        one = HttpScoreRequest((Upload("", png()),), ((None,),))
        for _ in range(3):
            await engine.score(one)
            await asyncio.sleep(0.1)
        assert returned == []
        await asyncio.sleep(1.5)
        assert returned == ["all"]
        await engine.score(one)
        await engine.close()
        await asyncio.sleep(1.2)
        assert returned == ["all"]

    asyncio.run(ask())


def test_nothing_is_written_to_disk(
    client: TestClient, scorer: Scorer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))  # where nothing can be made
    with TestClient(create_app(scorer, Settings()), HOME) as large:
        file = io.BytesIO()
        Image.new("RGB", (900, 900)).save(file, "BMP")
        assert len(file.getvalue()) > 2 * 2**20
        assert large.post("/v1/score", files=images(file.getvalue())).status_code == 200


def test_a_cache_that_fails_is_done_without(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pair = FakePair()
    with Cache(tmp_path) as cache:
        scorer = Scorer(toy_model(pair), ImageEncoder(pair, cache=cache))
        with TestClient(create_app(scorer, Settings()), HOME) as client:
            answers = [client.post("/v1/score", files=images(png(1)), data={"prompt": "a ball"}).json()]
            with cache.writing() as db:
                db.execute("DROP TABLE images")
            for seed in (1, 2):
                answer = client.post("/v1/score", files=images(png(seed)), data={"prompt": f"a ball {seed}"})
                assert answer.status_code == 200
                answers.append(answer.json())
    assert answers[1]["results"][0]["quality"] == answers[0]["results"][0]["quality"]
    (said,) = caplog.messages
    assert "no such table: images" in said and said.endswith(" Until the next start, features are not cached.")


def test_health_metrics_and_documentation(client: TestClient) -> None:
    assert client.get("/healthz").json() == client.get("/readyz").json() == {"status": "ok"}
    client.post("/v1/score", files=images(png()))
    text = client.get("/metrics").text
    assert re.search(r'mst_clipiqa_images_total\{status="ok"\} [1-9]', text)
    assert re.search(r'mst_clipiqa_requests_total\{path="/v1/score",status="200"\} [1-9]', text)
    assert 'path="/v1/score?' not in text
    assert "Expected one of the paths in /docs" in said(client.get("/no/such"), 404)
    wrong = client.get("/v1/score")
    assert said(wrong, 405) == "Expected POST for '/v1/score', got GET: send the request with that method."
    assert wrong.headers["allow"] == "POST"
    assert said(client.post("/healthz"), 405).startswith("Expected GET for '/healthz', got POST")
    assert said(client.post("/static/main.js"), 405).startswith("Expected GET or HEAD for '/static/main.js'")
    assert 'path="other"' in client.get("/metrics").text
    schema = client.get("/openapi.json").json()
    assert {"/v1/score", "/v1/compare", "/v1/download", "/healthz", "/readyz", "/metrics"} <= schema["paths"].keys()
    body = schema["paths"]["/v1/score"]["post"]["requestBody"]["content"]
    assert body.keys() == {"multipart/form-data", "application/json"}
    assert "//" not in re.sub(r'"https?://[^"]*"', "", client.get("/docs").text).replace("<!doctype", "")


def test_every_reference_of_the_schema_leads_somewhere(client: TestClient) -> None:
    schema = client.get("/openapi.json").json()
    for reference in re.findall(r'"\$ref": "#/([^"]+)"', json.dumps(schema)):
        place = schema
        for step in reference.split("/"):
            place = place[step]


def test_a_full_server_is_not_ready(client: TestClient) -> None:
    server: Server = client.app.state.server  # type: ignore[attr-defined]
    server.engine.waiting += SMALL.max_waiting
    try:
        said(client.get("/readyz"), 503)
        assert client.get("/healthz").status_code == 200
    finally:
        server.engine.waiting -= SMALL.max_waiting


def test_a_defect_of_ours_shows_nothing_of_our_insides(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    server: Server = client.app.state.server  # type: ignore[attr-defined]

    def broken(*_: Any) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(server.engine.scorer, "score_encoded", broken)
    answer = client.post("/v1/score", files=images(png()))
    assert "the server has a defect" in said(answer, 500)
    assert "secret" not in answer.text
    assert "RuntimeError: secret" in caplog.text
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["cache-control"] == "no-store"
    assert 'path="/v1/score",status="500"' in client.get("/metrics").text
    monkeypatch.undo()
    assert client.post("/v1/score", files=images(png())).status_code == 200


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=8) | st.sampled_from([b64(png(size=8)), "images"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["images", "data", "name", "prompt", "prompts"]) | st.text(max_size=3), inner)
    ),
    max_leaves=8,
)
FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FUZZ
@given(body=ANYTHING)
def test_any_json_gets_an_answer(client: TestClient, body: Any) -> None:
    content = json.dumps(body).encode()
    response = client.post("/v1/score", content=content, headers={"content-type": "application/json"})
    assert response.status_code in (200, 413, 422), response.text


@FUZZ
@given(data=st.data())
def test_any_multipart_gets_an_answer(client: TestClient, data: st.DataObject) -> None:
    whole = (
        b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
        + png(size=8)
        + b'\r\n--x\r\nContent-Disposition: form-data; name="prompt"\r\n\r\na fox\r\n--x--\r\n'
    )
    bits = bytearray(whole)
    for at in data.draw(st.lists(st.integers(0, len(bits) - 1), max_size=6)):
        bits[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(bits)))
    kind = "multipart/form-data; boundary=x"
    response = client.post("/v1/score", content=bytes(bits[:cut]), headers={"content-type": kind})
    assert response.status_code in (200, 400, 413, 422), response.text


# ------------------------------------------------------------------------------------------------ explanations


def test_base64_may_have_line_breaks(client: TestClient) -> None:
    lines = base64.encodebytes(png()).decode()
    assert lines.count("\n") > 1
    answer = client.post("/v1/score", json={"images": [{"name": "a.png", "data": lines.replace("\n", "\r\n")}]})
    assert answer.json()["results"][0]["status"] == "ok", answer.text


def test_an_explanation_is_that_of_the_package(client: TestClient, scorer: Scorer) -> None:
    from mst_clipiqa.explain import explain

    want = explain(scorer, png(), "a fox")
    answer = client.post("/v1/explain", files=images(png()), data={"prompt": "a fox"})
    assert answer.status_code == 200, answer.text
    assert answer.json()["explanation"] == json.loads(json.dumps(want.to_json()))
    overlay = Image.open(io.BytesIO(base64.b64decode(answer.json()["overlays"]["quality"]["fine"])))
    assert overlay.size == want.overlay("fine").size
    assert list(answer.json()["overlays"]["quality"]) == ["both", "coarse", "fine"]


def test_what_cannot_be_explained(client: TestClient) -> None:
    assert "got 2" in said(client.post("/v1/explain", files=images(png(), png())), 422)
    assert "got a PDF document" in said(client.post("/v1/explain", files=images(b"%PDF-1.4")), 422)
    assert "words in the prompt" in said(client.post("/v1/explain", files=images(png()), data={"prompt": " "}), 422)
