"""Figures in docs/ are those of the JSON files in docs/performance, which the scripts of speed/ write."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from scipy.special import ndtri, stdtrit

from mst_clipiqa import cli
from mst_clipiqa.adapt.fit import AdaptRecipe
from mst_clipiqa.analysis.change import Change
from mst_clipiqa.analysis.compare import Comparison
from mst_clipiqa.analysis.gate import Checked
from mst_clipiqa.analysis.settings import SettingEffect
from mst_clipiqa.evaluate.means import quantile_interval, share_interval
from mst_clipiqa.model.mst_clipiqa import MSTCLIPIQA
from mst_clipiqa.scoring.controls import EDGE_COLUMNS, NEGATIVE_COLUMNS, REFERENCE_COLUMNS

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"


def page(name: str) -> str:
    """Return a page with each of its paragraphs on one line."""
    return re.sub(r"(?<=\S)\n(?=[^\n|#-])", " ", (DOCS / f"{name}.md").read_text(encoding="utf-8"))


def result(name: str) -> Any:
    return json.loads((DOCS / "performance" / f"{name}.json").read_text(encoding="utf-8"))


def test_how_it_works_counts_the_trained_parameters() -> None:
    counts = [sum(weight.numel() for weight in MSTCLIPIQA(512, head).parameters()) for head in ("template", "prompt")]
    few, many = (f"{count / 1e6:.2f} million" for count in counts)
    assert f"{few} parameters for quality, {many} for correspondence" in page("how-it-works")


def test_explain_says_how_often_the_maps_are_right() -> None:
    found, text = result("explain_truth"), page("explain")
    assert f"With `--tries {found['tries']}` and `{found['model']}`" in text
    for name in ("coarse", "fine", "both"):
        values = [f"{found['regions'][name][kind]:.2f}" for kind in ("all", "blur", "noise", "jpeg")]
        assert f"| {name} | {' | '.join(values)} |" in text
    assert f"in {found['regions']['both']['all']:.2f} of these tries" in text


def test_explain_says_how_often_the_words_are_right() -> None:
    words, text = result("explain_truth")["words"], page("explain")
    assert f"in {words['tries']} tries, the caption" in text
    assert f"scored below the right one in {words['wrong below right']:.2f}," in text
    assert f"lowered the score most in {words['wrong is the lowest word']:.2f} (" in text


@pytest.mark.parametrize(("target", "head"), [("quality", "template"), ("correspondence", "prompt")])
def test_train_compares_the_recipes(target: str, head: str) -> None:
    rows = {row["recipe"]: row for row in result("recipes")["rows"] if row["target"] == target}
    paper, fast = rows["paper"], rows["fast"]
    text = page("train")
    seconds = f"| one training for {target}, {head} head: `paper`, `fast` | "
    assert f"{seconds}{paper['seconds']:.1f} s, {fast['seconds']:.1f} s |" in text
    assert f"| {paper['validation_srcc']:.3f}, {fast['validation_srcc']:.3f} |".replace(" 0.", " .") in text


def test_train_compares_ten_splits_with_the_published_procedure() -> None:
    found, text = result("protocol"), page("train")
    assert f"| {found['published']['seconds'] / 3600:.0f} hours |" in text
    assert f"| {found['ours']['seconds'] / 60:.1f} minutes, {found['times_faster']:,.0f} times faster" in text
    assert f"{found['published']['peak_mb']:,.0f} MB as published" in text
    assert f"{found['ours']['peak_mb']:,.0f} MB for ours, which is {found['memory_ratio']:.1f} times" in " ".join(
        text.split()
    )


def test_train_says_how_long_the_whole_command_takes() -> None:
    found, text = result("benchmark_command"), page("train")
    assert f"| {found['splits']} splits x 2 heads x 2 targets, {found['images']:,} images; cache empty " in text
    assert f"cache empty | {found['empty_cache_seconds']:.0f} s |" in text
    assert f"cache full | {found['full_cache_seconds']:.0f} s |" in text


def test_scale_says_how_fast_merged_tokens_are() -> None:
    rows, text = {row["merged"]: row for row in result("merge")["counts"]}, page("scale")
    most, few = rows[16], rows[8]
    assert f"leaves {most['tokens']:.0%} ".replace("%", " %") in text
    assert f"is {most['times_whole']:.2f} times as fast; R = 8 leaves {few['tokens']:.0%}".replace("%", " %") in text
    assert f"is {few['times_whole']:.2f} times as fast ([Performance]" in text


def test_scale_says_how_fast_integers_are() -> None:
    found, text = result("int8"), " ".join(page("scale").split())
    rows = {row["encoders"]: row for row in found["encoders"]}
    whole, fewer = rows["int8"], rows["int8 and merged tokens"]
    assert found["auto"] == "fp32" and fewer["merged"] == 16
    assert (
        f"is {whole['times_auto']:.2f} times as fast as in fp32, and with `--merge 16` {fewer['times_auto']:.2f}"
        in text
    )
    assert f"| {whole['times_auto']:.2f} times as fast as fp32 where a CPU lacks bf16" in page("decisions")


def test_pages_say_what_few_prompts_and_images_are_worth() -> None:
    factors = {n: (n / (n - 1)) ** 0.5 * stdtrit(n - 1, 0.975) / ndtri(0.975) for n in (12, 24, 48)}
    first, second, third = (f"{100 * (factor - 1):.0f} %" for factor in factors.values())
    assert f"by {first} over 12, {second} over 24 and {third} over 48" in " ".join(page("reliability").split())
    text = " ".join(page("gate").split())
    assert f"goes down to {100 * share_interval([True] * 10).low:.0f} %" in text
    known = [quantile_interval(list(range(n)), 0.1).undefined is None for n in (36, 37)]
    assert known == [False, True] and "The 10 % quantile has an interval from 37 images on" in text


def test_scale_says_what_a_card_does() -> None:
    found, text = result("gpu"), " ".join(page("scale").split())
    (compiled,) = [row for row in found["fine_encoder"] if "compile_seconds" in row]
    assert found["measured"] and "H100" in found["machine"]["gpu"] and found["machine"]["cores"] == 16
    assert f"encoded {found['encode_per_second']:,.0f} images per second" in text
    assert f"which is {100 * found['share_of_matmul']:.0f} % of its rate" in text
    assert f"decoded {found['decode_per_second']:,.0f} JPEG files" in text
    assert f"it was {found['whole_per_second']:.0f} per second" in text
    gain = compiled["compiled_images_per_second"] / compiled["replayed_images_per_second"]
    assert f"{gain:.2f} times as fast and pays after {compiled['pays_after_images']:,.0f} images" in text


def test_scale_says_how_memory_grows() -> None:
    found = result("memory")
    few, many = found["peak_mb"]["500"], found["peak_mb"]["20000"]
    assert f"took {found['ratio']:.2f} times the memory of one with 500 ({many:.0f} and {few:.0f} MB)" in page("scale")


def test_serve_says_how_memory_grows_in_a_longer_run() -> None:
    found = json.loads((DOCS / "soak_serve.json").read_text(encoding="utf-8"))
    assert (found["soak"], found["clients"], found["lost"], found["errors"]) == ("serve", 64, 0, {})
    text = " ".join(page("serve").split())
    assert f"{found['answered']:,} responses in five minutes, none lost." in text and found["minutes"] == 5.0
    assert f"Memory changed by {found['mb_per_minute']} MB per minute" in text


def test_scale_says_what_kills_left() -> None:
    rows = [json.loads(line) for line in (DOCS / "kill_score.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["format"] for row in rows] == ["csv", "jsonl", "parquet"]
    assert all(row["equal"] for row in rows)
    ((kills, images, tables),) = {(row["kills"], row["rows"], row["tables"]) for row in rows}
    text = page("scale")
    assert f"SIGKILL at {kills} random moments of `score -o FILE --resume` over {images} images" in text
    assert f"{tables} tables each as CSV, JSON Lines and Parquet" in text


def test_scale_says_that_bits_are_the_same() -> None:
    found = json.loads((DOCS / "same_bits.json").read_text(encoding="utf-8"))
    assert (found["different"], found["failed"]) == (0, 0)
    kinds = ", ".join(f"{count} {name}" for name, count in found["kinds"].items())
    precisions = " and in ".join(found["precision"])
    assert f"{found['images']} images ({kinds}) with `{found['model']}` in {precisions}" in page("scale")


def test_decisions_compare_the_backends() -> None:
    rates = {row["backend"]: row["images_per_second"] for row in result("backends")["backends"]}
    text = page("decisions")
    assert f"ViT-B in int8 is {rates['onnx int8'] / rates['torch bf16']:.1f} times as fast as torch in bf16" in text
    assert f"is {rates['openvino bf16'] / rates['torch bf16']:.1f} times as fast as torch in bf16" in text


def test_metric_says_what_gradient_ascent_did() -> None:
    found, text = result("ascent"), page("metric")
    score, psnr = found["score"], found["psnr_to_clean"]
    assert f"| clean | {score['clean']:.2f} | |" in text
    for name in ("noisy", "raised"):
        assert f"| {name} | {score[name]:.2f} | {psnr[name]:.1f} dB |" in text
    assert f"--noise {found['noise']} --steps {found['steps']}" in text
    assert score["noisy"] < score["clean"] < score["raised"] and psnr["raised"] < psnr["noisy"]


def test_controls_say_how_often_they_are_right() -> None:
    found, text = result("controls_truth"), page("controls")
    assert f"With `--tries {found['tries']}` and `{found['model']}`" in text
    negative, reference = found["negative"], found["reference"]
    for words, values in (
        ("as one word", [negative["word"]]),
        ('"a blue ball"', [negative["phrase"]]),
        ("another image, coarse and fine", [reference["coarse, copy"], reference["fine, copy"]]),
        ("quality 60), coarse and fine", [reference["coarse, degraded copy"], reference["fine, degraded copy"]]),
        ("better than another image", [found["edges"]]),
    ):
        assert f"{words} | {', '.join(f'{value:.2f}' for value in values)} |" in text
    assert ("`negative_match` is experimental" in text) == (negative["phrase"] < 0.8)


def test_controls_compare_settings_as_raters_do() -> None:
    text = page("controls")
    for row in result("settings")["rows"]:
        cells = [
            f"{row[kind]:+.2f} ({row[f'{kind} low']:+.2f} to {row[f'{kind} high']:+.2f})"
            for kind in ("rating", "score")
        ]
        name = f"{row['generator']} {row['setting']} | {row['target']}"
        assert f"| {name} | {cells[0]} | {cells[1]} | {row['outcome']} |" in text
    missed = [(row["setting"], row["target"]) for row in result("settings")["rows"] if row["outcome"] == "missed"]
    assert missed == [("lowcorr", "quality")]


def test_adapt_says_what_adaptation_changed() -> None:
    found, text = result("adapt"), page("adapt")
    fusion = [row for row in found["rows"] if row["train"] == "fusion"]
    for row in fusion:
        name = row["left out"] + (", with 10 % of the ratings" if row["labels"] else "")
        ladders = f"{row['ladders before']:.3f} | {row['ladders after']:.3f}"
        gain = f"{row['gain low']:+.3f} to {row['gain high']:+.3f}"
        ratings = f"{row['rated']} | {row['srcc before']:.3f} | {row['srcc after']:.3f}"
        assert f"| {name} | {ladders} | {gain} | {ratings} |" in text
    for one in found["means"]:
        assert f"{one['srcc before']:.3f} to {one['srcc after']:.3f}" in text
    kept = sum(row["kept with ratings"] for row in fusion if not row["labels"])
    assert f"the gate would have kept {kept}." in text
    unchecked = [row for row in fusion if row["kept without ratings"] and not row["labels"]]
    assert f"Without ratings it would have kept {len(unchecked)}, " in text
    assert all(row["srcc after"] < row["srcc before"] for row in unchecked)
    assert all(row["shuffled ladders refused"] for row in found["rows"] if not row["labels"])
    seconds = [row["encoding seconds of CPU"] for row in found["rows"]]
    assert f"took {min(seconds):.0f} to {max(seconds):.0f} s of one core" in text
    defaults = dataclasses.asdict(AdaptRecipe())
    assert found["recipe"] == defaults


PAGES = [ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "examples/README.md")]
PAGES += [*sorted(DOCS.glob("*.md")), ROOT / "mini_training/README.md", ROOT / "mst_clipiqa/weights/mini/README.md"]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_file_and_module_that_a_page_names_exists(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    files = {name for name in re.findall(r"`([\w./-]+\.(?:py|md))`", text) if not name.startswith("my-model")}
    scripts = re.findall(r"python -m ((?:speed|mini_training|mutation|fuzz)[\w.]*)", text)
    modules = {name.replace(".", "/") for name in scripts}
    folders = (ROOT, ROOT / "mst_clipiqa", path.parent)
    assert [name for name in sorted(files) if not any((folder / name).is_file() for folder in folders)] == []
    assert [name for name in sorted(modules) if not ((ROOT / f"{name}.py").is_file() or (ROOT / name).is_dir())] == []


def test_the_forms_of_the_data_in_the_journeys_are_classes_of_the_package() -> None:
    source = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "mst_clipiqa").rglob("*.py"))
    defined = set(re.findall(r"^class (\w+)|^(\w+)(?:: TypeAlias)? = ", source, re.MULTILINE))
    names = {name for pair in defined for name in pair}
    assert set(re.findall(r"`([A-Z]\w+)`", page("architecture"))) - names == set()


def commands_of(text: str) -> list[list[str]]:
    """Return the commands of a page, in blocks or in the steps of a workflow, as words."""
    joined = re.sub(r"\\\n\s*", "", text)
    found = re.findall(r"^\s*(?:- run: |run: )?mst-clipiqa (.+?)(?: \|.*| #.*)?$", joined, re.MULTILINE)
    return [shlex.split(line) for line in found]


ROWS: dict[str, Any] = {
    "compare": Comparison("quality", 1.0, 2.0, -1.0, 0.5, "B"),
    "drift": Change("quality", "", "prompt", "prompt", 1, 1, 1.0, 1.0, 0.0, 0.0, 0.0, 0.95),
    "compare-settings": SettingEffect("quality", "", "a", "b", 1, 1, 1.0, 1.0, 0.0, 0.0, 0.0, 0.95),
    "gate": Checked("--min-count", True, "3 rows are scored"),
}
"""A row of each command that writes columns of its own."""


@pytest.mark.parametrize("command", ROWS)
def test_the_columns_of_a_command_are_explained(command: str) -> None:
    text = (DOCS / "columns.md").read_text(encoding="utf-8").partition(f"\n## `{command}`\n")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| (`.+?`) \|", text, re.MULTILINE)
    assert [name for cell in cells for name in re.findall(r"`(\w+)`", cell)] == list(ROWS[command].to_row())


def test_the_columns_of_controls_are_explained() -> None:
    text = (DOCS / "columns.md").read_text(encoding="utf-8")
    names = [*NEGATIVE_COLUMNS, *REFERENCE_COLUMNS, *EDGE_COLUMNS]
    assert [name for name in names if f"`{name}`" not in text] == []


@pytest.mark.parametrize(
    "name", sorted(path.stem for path in DOCS.glob("*.md") if commands_of(path.read_text("utf-8")))
)
def test_the_flags_of_a_page_exist(name: str) -> None:
    lines = commands_of((DOCS / f"{name}.md").read_text(encoding="utf-8"))
    assert lines
    for command, *args in lines:
        within = args[:1] if command in ("cache", "data") else []  # groups of commands
        output = CliRunner().invoke(cli.group, [command, *within, "--help"]).output
        missing = [a for a in args if a.startswith("-") and not re.search(rf"(?<![\w-]){a}(?![\w-])", output)]
        assert missing == [], command


def test_the_workflow_of_the_gate_keeps_its_exit_code() -> None:
    (block,) = re.findall(
        r"^```yaml\n(.+?)^```", (DOCS / "gate.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    yaml = pytest.importorskip("yaml")
    steps = yaml.safe_load(block)["jobs"]["gate"]["steps"]
    (gate,) = (step for step in steps if "mst-clipiqa gate" in step.get("run", ""))
    assert gate["shell"] == "bash" or "|" not in gate["run"]
    assert [command for command, *_ in commands_of(block)] == ["score", "gate", "report"]
