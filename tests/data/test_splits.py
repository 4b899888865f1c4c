"""Splits: disjoint by prompt, repeatable, and no way from training to the test part."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from mst_clipiqa.data import Record, Split, TrainingPart, identical, leakage, load_rated_set, make_split
from mst_clipiqa.errors import DataError, UsageError
from tests.rated_files import agiqa_3k, aigciqa2023, aigiqa_20k, images, pku_aigiqa_4k, write


def records(groups: int = 20, each: int = 3) -> list[Record]:
    return [
        Record(
            f"{group:02d}-{k}.png", Path(f"{group:02d}-{k}.png"), f"prompt {group}", f"mine/{group:02d}", "g", {"q": 1}
        )
        for group in range(groups)
        for k in range(each)
    ]


def names(part: tuple[Record, ...]) -> list[str]:
    return [record.name for record in part]


def groups(part: tuple[Record, ...]) -> set[str]:
    return {record.group for record in part}


@pytest.mark.parametrize("seed", range(5))
def test_by_prompt_no_prompt_is_in_two_parts(seed: int) -> None:
    split = make_split(records(), seed=seed)
    parts = [groups(split.train), groups(split.validation), groups(split.test)]
    assert [len(part) for part in parts] == [14, 2, 4]
    assert len(set.union(*parts)) == 20
    assert split.leakage == 0.0
    assert leakage(split.train, split.validation) == 0.0


def test_same_seed_same_split_whatever_the_order() -> None:
    given = records()
    shuffled = random.Random(1).sample(given, len(given))
    for by in ("prompt", "image"):
        assert make_split(given, by, seed=4) == make_split(shuffled, by, seed=4)
        assert make_split(given, by, seed=4).test != make_split(given, by, seed=5).test


def test_a_split_is_the_same_tomorrow() -> None:
    # written down once: another drawing would make old results incomparable
    assert sorted(groups(make_split(records(), seed=0).test)) == ["mine/04", "mine/05", "mine/15", "mine/18"]
    assert sorted(groups(make_split(records(), seed=0).validation)) == ["mine/13", "mine/17"]


def test_a_missing_image_does_not_move_the_others() -> None:
    given = records()
    split, smaller = make_split(given), make_split([r for r in given if r.name != "03-1.png"])
    assert groups(split.test) == groups(smaller.test)
    assert groups(split.validation) == groups(smaller.validation)


def test_by_image_says_how_much_it_leaks_and_still_validates_on_other_prompts() -> None:
    split = make_split(records(), "image")
    assert len(split.test) == 12
    assert split.leakage is not None
    assert split.leakage > 0.5
    assert not groups(split.train) & groups(split.validation)


def test_leakage_counts_test_images_by_group_or_by_text() -> None:
    a, b, c, d = records(groups=4, each=1)
    same_text = dataclasses.replace(c, prompt="  PROMPT 0 ")
    assert leakage([a, b], [c, d]) == 0.0
    assert leakage([a, b], [same_text, d]) == 0.5
    assert leakage([a], [dataclasses.replace(a, name="other.png"), d]) == 0.5


def test_leakage_is_unknown_where_prompts_are(tmp_path: Path) -> None:
    aigiqa_20k(tmp_path)
    split = make_split(load_rated_set("aigiqa-20k", tmp_path, images=False).records, "official")
    assert names(split.test) == ["MJ_0001.png"]
    assert split.leakage is None


def test_ids_that_share_a_text_stay_together(tmp_path: Path) -> None:
    pku_aigiqa_4k(tmp_path)
    rated = load_rated_set("pku-aigiqa-4k", tmp_path, images=False)
    more = [dataclasses.replace(r, name="x" + r.name, prompt="other", group=f"{r.group}x") for r in rated.records]
    for seed in range(6):
        split = make_split([*rated.records, *more[:8], *more[8:]], seed=seed, test_share=0.4, validation_share=0)
        assert len({r.name in names(split.test) for r in rated.records}) == 1


def test_training_sees_no_test_part() -> None:
    split = make_split(records())
    part = split.for_training()
    test = set(names(split.test))

    def everything(value: object) -> Iterator[object]:
        yield value
        if dataclasses.is_dataclass(value):
            for field in dataclasses.fields(value):
                yield from everything(getattr(value, field.name))
        elif isinstance(value, tuple | list | dict):
            for item in value:
                yield from everything(item)

    assert isinstance(part, TrainingPart)
    assert {field.name for field in dataclasses.fields(part)} == {"train", "validation", "protocol"}
    assert not [item for item in everything(part) if isinstance(item, Record) and item.name in test]
    assert not [item for item in everything(part) if isinstance(item, Split)]


def test_the_protocol_is_said_in_words() -> None:
    assert make_split(records(), seed=7).protocol == (
        "random split by prompt, seed 7: 42 / 6 / 12 images of 14 / 2 / 4 prompts (train / validation / test)"
    )


def test_the_bytes_of_an_image_are_read_once(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(b"a")
    record = Record("a.png", file, None, "mine/a", "g", {"q": 1})
    first = record.sha256
    file.unlink()
    assert record.sha256 == first == "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"


def test_identical_images_are_found_and_kept_in_one_part(tmp_path: Path) -> None:
    given = agiqa_3k(tmp_path, groups=10)
    images(tmp_path, given)
    twins = ("sd1.5_normal_001.jpg", "sd1.5_normal_004.jpg", "xl2.2_normal_008.jpg")
    for name in twins:
        (tmp_path / name).write_bytes(b"black")
    (tmp_path / "sd1.5_normal_002.jpg").write_bytes(b"white")  # as many bytes, another image
    rated = load_rated_set("agiqa-3k", tmp_path)
    same = identical(rated.records)
    assert [names(group) for group in same] == [list(twins)]
    parted = 0
    for seed in range(8):
        plain, kept = (make_split(rated.records, seed=seed, together=t) for t in ((), same))
        where = [
            [sum(n in names(part) for n in twins) for part in (s.train, s.validation, s.test)] for s in (plain, kept)
        ]
        parted += max(where[0]) < 3
        assert max(where[1]) == 3
        assert kept.leakage == 0.0
        assert "identical images kept in one part" in kept.protocol
    assert parted  # without being asked, they are parted


def test_a_fixed_split_cannot_keep_images_together(tmp_path: Path) -> None:
    given = records()
    with pytest.raises(UsageError, match="to keep images together, got the fixed split 'official'"):
        make_split(given, "official", together=[given[:2]])


def test_official_parts_and_validation_cut_from_training(tmp_path: Path) -> None:
    pku_aigiqa_4k(tmp_path)
    rated = load_rated_set("pku-aigiqa-4k", tmp_path, images=False).records
    given = [dataclasses.replace(r, prompt=None, group=r.group + r.name[0]) for r in rated]
    split = make_split(given, "official")
    assert {r.split for r in split.test} == {"test"}
    assert {r.split for r in (*split.train, *split.validation)} == {"train"}
    assert len(groups(split.validation)) == 1
    assert not groups(split.validation) & groups(split.train)
    assert split.leakage == 1.0


def test_official_validation_is_taken_where_there_is_one(tmp_path: Path) -> None:
    aigiqa_20k(tmp_path)
    split = make_split(load_rated_set("aigiqa-20k", tmp_path, images=False).records, "official")
    assert names(split.validation) == ["SD1.5_0001.png", "SD1.5_0002.png"]
    assert len(split.train) == 4


def test_images_in_no_official_part_are_counted() -> None:
    parts = ["train", "test", None]
    given = [dataclasses.replace(r, split=parts[i % 3]) for i, r in enumerate(records())]
    split = make_split(given, "official")
    assert sum(map(len, (split.train, split.validation, split.test))) == 40
    assert split.notes == ("the official split leaves out 20 images whose split column names no part",)
    assert make_split([r for r in given if r.split], "official").notes == ()


def test_a_set_without_an_official_split() -> None:
    with pytest.raises(DataError, match="Expected an official split, got no train and no test part: split by prompt"):
        make_split(records(), "official")


def test_a_saved_split_is_read_back(tmp_path: Path) -> None:
    split = make_split(records(), seed=3)
    split.save(tmp_path / "split.json")
    again = make_split(records(), tmp_path / "split.json")
    assert (again.train, again.validation, again.test) == (split.train, split.validation, split.test)
    assert again.protocol.startswith("the split in split.json: 42 / 6 / 12 images")


def test_a_csv_split_file(tmp_path: Path) -> None:
    lines = [f"{r.name},{'test' if r.group == 'mine/03' else 'train'}" for r in records()]
    split = make_split(records(), write(tmp_path / "split.csv", "image_name,split", *lines))
    assert names(split.test) == ["03-0.png", "03-1.png", "03-2.png"]
    assert len(groups(split.validation)) == 3  # 15 % of 19 prompts
    write(tmp_path / "split.csv", "image_name,split", "00-0.png,fold 1")
    with pytest.raises(DataError, match=r"Expected train, validation or test .* in line 2 of split\.csv, got 'fold 1'"):
        make_split(records(), tmp_path / "split.csv")


def test_a_folder_of_train_and_val_tests_on_val(tmp_path: Path) -> None:
    given = records()
    write(tmp_path / "fold" / "train.csv", "name", *names(tuple(given[6:])))
    write(tmp_path / "fold" / "val.csv", "name", *names(tuple(given[:6])))
    split = make_split(given, tmp_path / "fold", validation_share=0)
    assert names(split.test) == names(tuple(given[:6]))
    assert names(split.train) == names(tuple(given[6:]))
    assert split.validation == ()


def test_a_folder_without_header_rows_keeps_the_first_image(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", *[f"{name},a prompt,3.5" for name in names(tuple(records()[3:]))])
    write(tmp_path / "val.csv", *[f"{name},a prompt,3.5" for name in names(tuple(records()[:3]))])
    split = make_split(records(), tmp_path)
    assert names(split.test) == ["00-0.png", "00-1.png", "00-2.png"]


def test_folds_of_aigciqa2023_name_the_model_beside_the_image(tmp_path: Path) -> None:
    aigciqa2023(tmp_path)
    rated = load_rated_set("aigciqa2023", tmp_path, images=False).records
    for part, chosen in (("train", rated[8:]), ("val", rated[:8])):
        lines = [f"{r.generator},{r.name.split('/')[1]},1,1,1,p" for r in chosen]
        write(tmp_path / "fold" / f"{part}.csv", "model,image_name,mosz1,mosz2,mosz3,prompt", *lines)
    split = make_split(rated, tmp_path / "fold", validation_share=0)
    assert names(split.test) == sorted(names(rated[:8]))
    assert len(split.train) == 40
    assert split.leakage == 1.0


def test_an_image_in_two_parts_of_a_file_is_tested_on_only(tmp_path: Path) -> None:
    given = names(tuple(records()))
    path = tmp_path / "split.json"
    path.write_text(json.dumps({"train": given[1:], "test": given[:2], "seed": 3}))
    split = make_split(records(), path, validation_share=0)
    assert names(split.test) == given[:2]
    assert names(split.train) == given[2:]
    assert split.notes == ("1 image of two parts removed from train (the first: '00-1.png')",)


def test_what_a_split_file_leaves_out_or_adds_is_said(tmp_path: Path) -> None:
    given = names(tuple(records()))
    (tmp_path / "split.json").write_text(json.dumps({"train": [*given[3:-2], "other.png"], "test": given[:3]}))
    assert make_split(records(), tmp_path / "split.json").notes == (
        "the split file has 1 name of no image of this set",
        "the split file leaves out 2 images",
    )


def test_a_split_file_of_another_set(tmp_path: Path) -> None:
    (tmp_path / "split.json").write_text(json.dumps({"train": ["x.png"], "test": ["y.png"]}))
    with pytest.raises(
        DataError, match=r"Expected a train part with images of this set in .*, got 1 name, none of them"
    ):
        make_split(records(), tmp_path / "split.json")


@pytest.mark.parametrize("text", ["[1]", '{"train": "a"}', "{"])
def test_a_json_file_that_is_no_split(tmp_path: Path, text: str) -> None:
    (tmp_path / "split.json").write_text(text)
    with pytest.raises(DataError, match=r"Expected .* in .*split\.json"):
        make_split(records(), tmp_path / "split.json")


def test_a_word_that_is_no_way_to_split() -> None:
    with pytest.raises(
        DataError, match=r"Expected 'prompt', 'image', 'official' or a split file, found no file 'prompts'"
    ):
        make_split(records(), "prompts")


def test_shares_and_sizes_that_make_no_sense() -> None:
    with pytest.raises(UsageError, match=r"Expected test_share and validation_share from 0 to below 1, got 1 and 0\.1"):
        make_split(records(), test_share=1)
    with pytest.raises(
        UsageError, match=r"Expected test_share and validation_share from 0 to below 1, got 0\.2 and 1\.5"
    ):
        make_split(records(), test_share=0.2, validation_share=1.5)
    with pytest.raises(DataError, match="Expected at least two prompts to choose a test part from, got 1"):
        make_split(records(groups=1))
    with pytest.raises(DataError, match="got one name twice"):
        make_split([*records(), *records()])


def test_a_share_of_nothing_is_nothing_and_a_small_one_is_one_prompt() -> None:
    assert make_split(records(), test_share=0).test == ()
    assert make_split(records(), validation_share=0).validation == ()
    assert len(groups(make_split(records(), test_share=0.001).test)) == 1


@pytest.mark.parametrize(
    ("test", "validation"), [(1.0, 0.1), (1.5, 0.1), (-0.1, 0.1), (0.2, 1.0), (0.2, 7.0), (0.2, -1.0)]
)
def test_shares_off_the_scale_are_refused(test: float, validation: float) -> None:
    with pytest.raises(
        UsageError,
        match=rf"Expected test_share and validation_share from 0 to below 1, got {test:g} and {validation:g}",
    ):
        make_split(records(), test_share=test, validation_share=validation)


def test_a_share_of_none_leaves_a_part_empty() -> None:
    split = make_split(records(), test_share=0, validation_share=0)
    assert (len(split.train), split.validation, split.test) == (60, (), ())


def test_a_column_of_models_beside_names_of_the_set_is_no_folder(tmp_path: Path) -> None:
    given = names(tuple(records()))
    rows = [f"{name},sd1.5,{'test' if i < 6 else 'train'}" for i, name in enumerate(given)]
    write(tmp_path / "split.csv", "file,model,split", *rows)
    assert names(make_split(records(), tmp_path / "split.csv").test) == given[:6]
    for part, some in (("test", given[:6]), ("train", given[6:])):
        write(tmp_path / "parts" / f"{part}.csv", "file,model,mos", *[f"{name},sd1.5,3" for name in some])
    assert names(make_split(records(), tmp_path / "parts").test) == given[:6]


@pytest.mark.parametrize("name", ["split.json", "SPLIT.JSON"])
def test_a_split_in_json_may_have_a_byte_order_mark(tmp_path: Path, name: str) -> None:
    given = names(tuple(records()))
    (tmp_path / name).write_text(json.dumps({"train": given[6:], "test": given[:6]}), encoding="utf-8-sig")
    assert names(make_split(records(), tmp_path / name).test) == given[:6]
