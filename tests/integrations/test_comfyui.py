"""The nodes, imported and called as ComfyUI does: from their folder, by the names in their mappings."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from mst_clipiqa.errors import ImageError, PromptError
from tests.fakes import draw
from tests.serving import toy_scorer

FOLDER = Path(__file__).resolve().parents[2] / "integrations" / "comfyui"
WORKFLOW = json.loads((FOLDER / "example_workflows" / "keep_best.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def package() -> Iterator[ModuleType]:
    name = "custom_nodes.mst-clipiqa"  # no identifier, as folders there
    spec = importlib.util.spec_from_file_location(name, FOLDER / "__init__.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    scorer = toy_scorer()
    module.nodes.loaded = lambda model: scorer
    yield module
    for found in [one for one in sys.modules if one.startswith(name)]:
        del sys.modules[found]


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    """A batch of four, each noisier than the one before; the third has a NaN."""
    batch = torch.stack([torch.tensor(list(draw(0, n / 4).tobytes())).view(64, 64, 3) / 255 for n in range(4)])
    batch[2, 5, 5, 0] = math.nan
    return batch


def run(package: ModuleType, node: str, **inputs: Any) -> Any:
    """Call a node as ComfyUI does: all inputs by name, those left out with their defaults."""
    made = package.NODE_CLASS_MAPPINGS[node]
    described = made.INPUT_TYPES()
    names = {**described["required"], **described.get("optional", {})}
    assert set(inputs) <= set(names)
    defaults = {n: kind[1]["default"] for n, kind in names.items() if len(kind) > 1 and "default" in kind[1]}
    found = getattr(made(), made.FUNCTION)(**{**defaults, **inputs})
    result = found["result"] if isinstance(found, dict) else found
    assert len(result) == len(made.RETURN_TYPES) == len(made.RETURN_NAMES)
    return result


def test_every_node_says_what_comfyui_asks(package: ModuleType) -> None:
    assert set(package.NODE_CLASS_MAPPINGS) == set(package.NODE_DISPLAY_NAME_MAPPINGS)
    for made in package.NODE_CLASS_MAPPINGS.values():
        assert callable(getattr(made, made.FUNCTION))
        assert made.CATEGORY and made.DESCRIPTION
        for kind, options in {**made.INPUT_TYPES()["required"], **made.INPUT_TYPES()["optional"]}.values():
            assert isinstance(kind, list) or kind in ("IMAGE", "STRING", "FLOAT", "INT")
            assert options["tooltip"].endswith(".")


def test_score_gives_a_number_per_image_and_a_reason_for_none(package: ModuleType, images: torch.Tensor) -> None:
    quality, correspondence, text = run(package, "MSTClipIQAScore", images=images, prompt="a red fox")
    want = toy_scorer()(images[0].numpy(), "a red fox")
    assert (quality[0], correspondence[0]) == (want.quality, want.correspondence)
    assert [math.isnan(value) for value in quality] == [False, False, True, False]
    lines = text.split("\n")
    assert lines[0] == f"image 1: quality {want.quality:.2f}, correspondence {want.correspondence:.2f}"
    assert lines[2].startswith("image 3: not scored; expected values in [0, 1], got NaN")
    quality, correspondence, text = run(package, "MSTClipIQAScore", images=images, prompt=" ")
    assert all(math.isnan(value) for value in correspondence) and not math.isnan(quality[0])


def test_values_out_of_range_are_clipped_as_in_the_saved_file(package: ModuleType, images: torch.Tensor) -> None:
    wild = images[:1] * 3 - 1
    one = run(package, "MSTClipIQAScore", images=wild)
    assert one[0] == run(package, "MSTClipIQAScore", images=wild.clamp(0, 1))[0] and not math.isnan(one[0][0])


def test_keep_best_keeps_the_best_first_and_never_a_failed_one(package: ModuleType, images: torch.Tensor) -> None:
    quality = run(package, "MSTClipIQAScore", images=images)[0]
    order = sorted((0, 1, 3), key=lambda place: -quality[place])
    kept, text = run(package, "MSTClipIQAKeepBest", images=images, k=2)
    assert torch.equal(kept, images[order[:2]])
    *best, failed = text.split("\n")
    assert [one.split(":")[0] for one in best] == [f"image {place + 1}" for place in order[:2]]
    assert failed.startswith("image 3: not scored; expected values in [0, 1], got NaN")
    assert len(run(package, "MSTClipIQAKeepBest", images=images, k=9)[0]) == 3
    both = run(package, "MSTClipIQAScore", images=images, prompt="a red fox")[1]
    kept, _ = run(package, "MSTClipIQAKeepBest", images=images, k=1, prompt="a red fox", correspondence_share=1.0)
    assert torch.equal(kept[0], images[max((0, 1, 3), key=lambda place: both[place])])
    with pytest.raises(ImageError, match="got none: expected values"):
        run(package, "MSTClipIQAKeepBest", images=images[2:3], k=1)


def test_threshold_divides_a_batch(package: ModuleType, images: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    quality = run(package, "MSTClipIQAScore", images=images)[0]
    least = sorted(quality[place] for place in (0, 1, 3))[1]
    passed, rejected, count, text = run(package, "MSTClipIQAThreshold", images=images, minimum=least, target="quality")
    want = [place for place in (0, 1, 3) if quality[place] >= least]
    assert torch.equal(passed, images[want]) and count == len(want) == 2
    assert len(rejected) == 2 and rejected.isnan().any()  # the failed one is rejected
    assert len(text.split("\n")) == 4

    with pytest.raises(PromptError, match=r"^Expected a prompt for correspondence, got none: give it\.$"):
        run(package, "MSTClipIQAThreshold", images=images, minimum=0.0, target="correspondence", prompt=" ")

    everything = {"images": images[:2], "minimum": -1000.0, "target": "quality"}
    assert run(package, "MSTClipIQAThreshold", **everything)[1].shape == (0, 64, 64, 3)
    theirs = ModuleType("comfy_execution.graph_utils")
    theirs.ExecutionBlocker = lambda message: ("blocked", message)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "comfy_execution", ModuleType("comfy_execution"))
    monkeypatch.setitem(sys.modules, "comfy_execution.graph_utils", theirs)
    assert run(package, "MSTClipIQAThreshold", **everything)[1] == ("blocked", None)


def test_the_example_workflow_fits_the_nodes(package: ModuleType) -> None:
    nodes = {node["id"]: node for node in WORKFLOW["nodes"]}
    for number, start, output, end, slot, kind in WORKFLOW["links"]:
        assert nodes[start]["outputs"][output]["type"] == kind
        assert number in nodes[start]["outputs"][output]["links"]
        assert nodes[end]["inputs"][slot]["link"] == number
    ours = [node for node in nodes.values() if node["type"] in package.NODE_CLASS_MAPPINGS]
    assert {node["type"] for node in ours} == {"MSTClipIQAScore", "MSTClipIQAKeepBest"}
    for node in ours:
        made = package.NODE_CLASS_MAPPINGS[node["type"]]
        described = {**made.INPUT_TYPES()["required"], **made.INPUT_TYPES()["optional"]}
        widgets = [name for name, kind in described.items() if kind[0] != "IMAGE"]
        assert len(node["widgets_values"]) == len(widgets)
        assert {one["name"] for one in node["inputs"]} <= set(described)
        assert [(one["name"], one["type"]) for one in node["outputs"]] == list(
            zip(made.RETURN_NAMES, made.RETURN_TYPES, strict=True)
        )


def test_the_folder_is_one_that_comfyui_installs() -> None:
    project = tomllib.loads((FOLDER / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["name"] and "comfy" not in project["project"]["name"]
    assert project["project"]["dependencies"] == (FOLDER / "requirements.txt").read_text().split()
    assert {"PublisherId", "DisplayName"} <= set(project["tool"]["comfy"])
