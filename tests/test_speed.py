"""The benchmarks run, at sizes that prove nothing else, and their page holds what they found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mst_clipiqa.encoders.clip import load_clip_pair
from mst_clipiqa.encoders.pair import PromptTokens

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from speed import (  # noqa: E402
    arithmetic,
    benchmark_command,
    claims,
    cost,
    decode,
    gpu,
    machine,
    memory,
    merge,
    mini,
    plots,
    prompts,
    report,
    shared,
)
from speed.images import distinct, jpegs  # noqa: E402
from tests.closed_form import save_clip  # noqa: E402
from tests.fakes import FakePair  # noqa: E402
from tests.rated_files import agiqa_3k  # noqa: E402


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def test_images_are_as_many_and_as_large_as_asked_for(tmp_path: Path) -> None:
    count = distinct() + 14
    files = jpegs(tmp_path, count, side=64)
    assert len(set(files)) == count
    assert size_of(files[-1]) == (64, 64)
    assert len({file.stat().st_ino for file in files}) == distinct() < count  # the rest are links
    assert len({file.read_bytes() for file in files}) == distinct()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    def once(work: Any, times: int = 5) -> float:
        work()
        return 0.5

    for module in (mini, cost, decode):
        monkeypatch.setattr(module, "median_seconds", once)
    monkeypatch.setattr(mini, "LAYOUTS", mini.LAYOUTS[:1])
    monkeypatch.setattr(cost, "SIDES", (64,))
    monkeypatch.setattr(cost, "WORDS", (0, 4))
    monkeypatch.setattr(decode, "SIDES", (64,))


@pytest.mark.usefixtures("quick")
def test_results_become_a_page(tmp_path: Path) -> None:
    one = mini.measure(2, tmp_path / "mini")
    assert one["images_per_second"] == one["decode_per_second"] == 4.0
    two = cost.measure(1, tmp_path / "cost")
    assert [row["side"] for row in two["sizes"]] == [64]
    three = decode.measure(1, tmp_path)
    assert [row["format"] for row in three["decoding"]] == list(decode.FORMATS)
    assert three["encoding_per_second"] == 2.0
    found = {
        "decode": {"claim": "Decoding.", **three, "machine": machine.machine()},
        "cost": {"claim": "Cost of an image.", **two, "machine": machine.machine()},
        "mini": {"claim": "Files to scores.", **one, "machine": machine.machine()},
    }
    page = report.page(json.loads(json.dumps(found)))
    assert "| images per second | 4 | at least 3.4: met |" in page
    assert f"## cost\n\n{report.claim('cost')} Script: `speed/cost.py`.\n\n| side |" in page
    plots.draw_rates(found, tmp_path / "rates.png")
    plots.draw_claims(found, tmp_path / "claims.png")
    assert size_of(tmp_path / "rates.png")[0] > 300 < size_of(tmp_path / "claims.png")[0]


def test_each_prompt_that_is_timed_is_new_and_has_its_length(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = FakePair()
    seen: list[list[str]] = []

    def encode(texts: list[str]) -> PromptTokens:
        seen.append(texts)
        return FakePair.encode_prompts(pair, texts)

    monkeypatch.setattr(pair, "encode_prompts", encode)
    monkeypatch.setattr(pair, "prompts_at_once", 16)
    row = prompts.row("fake", pair, words=7, count=5)
    texts = [text for group in seen for text in group]
    assert {len(text.split()) for text in texts} == {7}
    assert len(set(texts)) == len(texts) == 1 + 2 * (prompts.TIMES + 1) * 5
    assert {len(group) for group in seen[1 : 1 + (prompts.TIMES + 1) * 5]} == {1}
    assert row["times_faster_together"] == row["alone_milliseconds"] / row["together_milliseconds"]


def test_a_missed_bar_is_called_missed() -> None:
    one = {
        "ratio": 1.2,
        "times_faster": 2.0,
        "bars": {"ratio": 1.15, "times_faster": 4.0},
        "machine": machine.machine(),
    }
    page = report.page({"memory": one})
    assert "| ratio | 1.2 | at most 1.15: **missed** |" in page
    assert "| times faster | 2 | at least 4: **missed** |" in page


def test_a_section_from_another_machine_names_it_and_rows_may_have_values_of_their_own() -> None:
    usual = machine.machine() | {"gpu": None}
    card = usual | {"gpu": "A card", "cores": 16}
    rows = [{"chunk": 1, "rate": 2.0}, {"chunk": 3, "rate": 4.0, "more": 5.0}]
    page = report.page({"cost": {"a": 1, "machine": usual}, "gpu": {"rows": rows, "machine": card}})
    assert "on A card, 16 cores of" in page.split("## gpu")[1]
    assert "on A card" not in page.split("## gpu")[0]
    older = usual | {"capability": "AVX2"}
    found = {"cost": {"a": 1, "machine": usual | {"capability": "AVX512"}}, "mini": {"a": 1, "machine": older}}
    newer = report.page(found)
    assert list(report.measured_here(found)) == ["cost"]  # what the chart of rates shows
    assert "with AVX2." in newer.split("## mini")[1]
    assert "with AVX2." not in newer.split("## mini")[0]
    assert "| chunk | rate | more |\n|---|---|---|\n| 1 | 2 |  |\n| 3 | 4 | 5 |" in page


def test_the_claims_say_what_was_missed_and_why() -> None:
    one = {
        "seconds": 2.0,
        "help_seconds": 0.05,
        "bars": {"seconds": 1.5, "help_seconds": 0.1, "gone": 1},
        "machine": {},
    }
    header, *rows = report.claims({"startup": one})
    assert header[3] == "why it is missed"
    why = "most of it is the import of torch"
    assert rows == [
        ("seconds to score one image, start included", "2", "at most 1.5: **missed**", why, "[startup](#startup)", ""),
        ("seconds of `--help`", "0.05", "at most 0.1: met", "", "[startup](#startup)", ""),
    ]


def test_figures_without_a_bar_have_a_row_where_their_result_is_there() -> None:
    rows = [{"format": kind, "side": 512, "times_encoding": rate} for kind, rate in (("png", 9.0), ("jpg", 4.0))]
    found = {
        "decode": {"decoding": rows, "machine": {"date": "2026-11-27"}},
        "shared": {"mb_per_further_process": 335.2, "machine": {}},
        "int8": {"measured": False, "machine": {}},
    }
    what = "JPEG files of 512 x 512 decoded per second, times the images that `mini` encodes"
    memory = "memory of each further process, such as an actor of `score-cluster`, MB"
    assert report.claims(found)[1:] == [
        (what, "4", "none", "", "[decode](#decode)", "2026-11-27"),
        (memory, "335.2", "none", "", "[shared](#shared)", ""),
    ]
    assert "int8" in {name for name, _ in claims.FIGURES}


def test_a_share_of_a_bar_is_1_where_the_bar_is_just_met() -> None:
    assert claims.share_of_bar("seconds", 1.5, 1.5) == claims.share_of_bar("share", 0.5, 0.5) == 1
    assert claims.share_of_bar("seconds", 3.0, 1.5) == 0.5 and not claims.is_met("seconds", 3.0, 1.5)
    assert claims.share_of_bar("share", 1.0, 0.5) == 2 and claims.is_met("share", 1.0, 0.5)


def test_the_share_of_tokens_is_counted_block_by_block() -> None:
    assert merge.share(9, 0) == 1.0
    assert merge.share(9, 2, blocks=3) == (7 + 5 + 5) / 3 / 9
    assert 0.45 < merge.share(197, merge.HALF) < 0.55


def test_the_page_of_the_docs_is_made_from_the_results_beside_it() -> None:
    results = report.load(report.DOCS / "performance")
    assert report.page(results) == (report.DOCS / "performance.md").read_text(encoding="utf-8")


def test_the_script_for_a_card_runs_on_the_cpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    coarse, fine = save_clip(tmp_path / "32", 32), save_clip(tmp_path / "16", 16)
    monkeypatch.setattr(gpu, "random_pair", lambda: load_clip_pair(str(coarse), str(fine), "tiny"))
    monkeypatch.setattr(gpu, "median_seconds", lambda work, *_: (work(), 0.5)[1])
    found = json.loads(json.dumps(gpu.measure(2, tmp_path / "images")))
    assert found["cosine_to_fp32"] > 0.999
    if not found["measured"]:  # nothing is claimed without a card
        assert found["note"] and "bars" not in found and found["fp32_largest_difference"] == 0
    assert found["encode_per_second"] == found["whole_per_second"] == 4
    assert found["gradient"]["images_per_second"] == 4


def test_the_rate_of_arithmetic_is_measured_in_batches_as_score_makes_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    coarse, fine = save_clip(tmp_path / "32", 32), save_clip(tmp_path / "16", 16)
    monkeypatch.setattr(arithmetic, "random_pair", lambda: load_clip_pair(str(coarse), str(fine), "tiny"))
    monkeypatch.setattr(arithmetic, "matmul_flops", lambda *_: 1e9)
    monkeypatch.setattr(arithmetic, "median_seconds", lambda work, *_: (work(), 0.5)[1])
    found = arithmetic.measure(3, tmp_path)
    assert found["images_per_second"] == 6 and found["share"] == found["encoder_gflops"]


def test_nothing_is_shown_of_a_card_where_there_was_none(tmp_path: Path) -> None:
    one = {"measured": False, "note": "not measured", "cosine_to_fp32": 0.9999, "gradient": {"batch": 4}}
    one |= {"whole_per_second": 3.5, "machine": machine.machine()}
    (tmp_path / "gpu.json").write_text(json.dumps(one))
    found = report.load(tmp_path)
    page = report.page(found)
    assert "| measured | no |" in page
    assert "| note | not measured |" in page
    assert not any(word in page for word in ("cosine to", "gradient |", "3.5", "0.9999"))
    (tmp_path / "gpu.json").write_text(json.dumps(one | {"measured": True}))
    assert "| cosine to fp32 | 0.9999 |" in report.page(report.load(tmp_path))


def test_other_decoders_are_compared_with_pillow(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def brighter(data: bytes) -> Any:
        return np.asarray(decode.pillow(data)) // 2 + 100

    monkeypatch.setattr(decode, "other_decoders", lambda: {"brighter": brighter})
    (row,) = decode.compared(jpegs(tmp_path, 1, side=64)[0].read_bytes(), turns=3)
    assert row["decoder"] == "brighter"
    assert row["largest_difference"] > 20
    assert 0 < row["times_pillow"] < 20


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").is_file(), reason="this needs Linux")
def test_the_memory_of_a_process_is_read() -> None:
    assert 50 < shared.proportional_mb(os.getpid()) < 10_000


def test_the_child_of_the_memory_benchmark_runs(tmp_path: Path) -> None:
    assert memory.peak(tmp_path / "3", 3) > 50


def test_the_second_benchmark_that_is_timed_finds_the_features_of_the_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    commands: list[list[str]] = []
    monkeypatch.setattr(subprocess, "run", lambda command, check: commands.append(command))
    agiqa_3k(tmp_path / "set")
    output = tmp_path / "found.json"
    monkeypatch.setattr(sys, "argv", ["", "--root", str(tmp_path / "set"), "--splits", "3", "-o", str(output)])
    benchmark_command.main()
    first, second = commands
    assert first[:-1] == second[:-1] and first[-1] != second[-1]  # one cache, two outputs
    assert json.loads(output.read_text())["splits"] == 3
