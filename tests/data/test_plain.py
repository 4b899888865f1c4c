"""Rated sets of your own: csv tables, Hugging Face image folders, pyiqa's meta_info."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from mst_clipiqa.data import load_rated_set, rated_for, same_text
from mst_clipiqa.data.survey import survey
from mst_clipiqa.errors import DataError, UsageError
from mst_clipiqa.model_folder import prompt_hash
from tests.rated_files import images, write


@pytest.mark.parametrize("file", ["image_name", "name", "Image", "file_name", "img_path", "path"])
@pytest.mark.parametrize("mos", ["mos", "MOS", "gt_score", "mos_quality", "mosz1", "quality", "MOS_q"])
def test_columns_as_met_in_the_wild(tmp_path: Path, file: str, mos: str) -> None:
    write(tmp_path / "mine.csv", f"{mos},{file},Prompt", "3.5,a.png,a cat", "1.5,b/c.AVIF,a dog")
    rated = load_rated_set("csv", tmp_path, images=False)
    assert [(r.name, r.prompt, r.targets) for r in rated.records] == [
        ("a.png", "a cat", {"quality": 3.5}),
        ("b/c.AVIF", "a dog", {"quality": 1.5}),
    ]


def test_several_targets_deviations_groups_and_generators(tmp_path: Path) -> None:
    header = "name,prompt,prompt_id,generator,style,mos_quality,std_quality,mos_align,split"
    write(tmp_path / "mine.csv", header, "a.png,a cat,7,sdxl,oil,3.5,0.5,2.5,val")
    (record,) = load_rated_set("csv", tmp_path, images=False).records
    assert record.targets == {"quality": 3.5, "correspondence": 2.5}
    assert record.deviations == {"quality": 0.5}
    assert (record.group, record.generator, record.style, record.split) == ("csv/7", "sdxl", "oil", "validation")


def test_a_plain_mos_beside_quality_is_not_read_twice(tmp_path: Path) -> None:
    write(tmp_path / "mine.csv", "name,quality,mos", "a.png,3.5,9.5")
    rated = load_rated_set("csv", tmp_path, images=False)
    assert rated.records[0].targets == {"quality": 3.5}
    assert not any("is read as quality" in note for note in rated.notes)


@pytest.mark.parametrize(
    ("lines", "prompt"), [(("a.png,3.5", "b.png,4"), None), (("a.png,a cat,3.5", "b.png,a dog,4"), "a cat")]
)
def test_a_table_without_a_header_keeps_its_first_row(tmp_path: Path, lines: tuple[str, str], prompt: str) -> None:
    write(tmp_path / "mine.csv", *lines)
    rated = load_rated_set("csv", tmp_path, images=False)
    assert [r.targets["quality"] for r in rated.records] == [3.5, 4.0]
    assert rated.records[0].prompt == prompt


def test_a_wide_table_without_a_header_is_an_error(tmp_path: Path) -> None:
    write(tmp_path / "mine.csv", "a.png,3.5,1,2,3")
    with pytest.raises(DataError, match=r"Expected a header row in .*mine\.csv', got 'a\.png, 3\.5, 1, 2, 3': write"):
        load_rated_set("csv", tmp_path)


@pytest.mark.parametrize(
    ("scores", "ends"),
    [(("0.2", "0.9"), (0, 1)), (("1.2", "4.9"), (0, 5)), (("1", "9"), (0, 10)), (("20", "80"), (0, 100))],
)
def test_an_unknown_scale_is_guessed_and_said(tmp_path: Path, scores: tuple[str, str], ends: tuple[int, int]) -> None:
    write(tmp_path / "mine.csv", "name,mos", f"a.png,{scores[0]}", f"b.png,{scores[1]}")
    rated = load_rated_set("csv", tmp_path, images=False)
    assert rated.ranges == {"quality": ends}
    said = f"the scale {ends[0]}..{ends[1]} is guessed from the scores; give the right one with --range if it differs"
    assert said in rated.notes


def test_a_given_scale_is_kept_and_checked(tmp_path: Path) -> None:
    write(tmp_path / "mine.csv", "name,mos", "a.png,1.5", "b.png,4.5")
    rated = load_rated_set("csv", tmp_path, images=False, score_range=(1, 5))
    assert rated.ranges == {"quality": (1, 5)}
    assert not any("guessed" in note for note in rated.notes)
    with pytest.raises(
        DataError, match=r"Expected quality between 1 and 4, .* line 3 of mine\.csv \(b\.png\), got 4\.5"
    ):
        load_rated_set("csv", tmp_path, images=False, score_range=(1, 4))


def test_a_known_set_has_its_own_scale(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Expected no score range for agiqa-3k"):
        load_rated_set("agiqa-3k", tmp_path, score_range=(1, 5))


def test_names_with_folders_are_found_with_or_without_them(tmp_path: Path) -> None:
    write(tmp_path / "mine.csv", "name,mos", "/elsewhere/x/a.png,1.5", "/elsewhere/y/b.png,4.5")
    images(tmp_path / "images", ["a.png", "b.png"])
    assert [r.file for r in load_rated_set("csv", tmp_path).records] == [
        tmp_path / "images/a.png",
        tmp_path / "images/b.png",
    ]


def test_two_images_never_share_a_file(tmp_path: Path) -> None:
    write(tmp_path / "mine.csv", "name,mos", "x/a.png,1.5", "y/a.png,4.5")
    images(tmp_path / "images", ["a.png"])
    with pytest.raises(DataError, match=r"2 are missing \(x/a\.png, y/a\.png\)"):
        load_rated_set("csv", tmp_path)


def test_the_file_itself_may_be_the_root(tmp_path: Path) -> None:
    write(tmp_path / "other.csv", "name,mos", "z.png,1")
    path = write(tmp_path / "mine.csv", "name,mos", "a.png,1.5")
    images(tmp_path, ["a.png"])
    assert [r.file for r in load_rated_set("csv", path).records] == [tmp_path / "a.png"]
    with pytest.raises(DataError, match=r"Expected one label file \(\*\.csv\) in .*, got mine\.csv, other\.csv: give"):
        load_rated_set("csv", tmp_path)


def test_without_a_score_the_columns_are_named(tmp_path: Path) -> None:
    write(tmp_path / "mine.csv", "name,dmos", "a.png,1.5")  # dmos is better when lower: not to be taken for a mos
    with pytest.raises(
        DataError, match=r"Expected a column with scores .*got the columns name, dmos: rename the column"
    ):
        load_rated_set("csv", tmp_path)


def test_without_an_image_the_row_is_named(tmp_path: Path) -> None:
    write(tmp_path / "mine.csv", "thing,mos", "a.png,1.5")
    with pytest.raises(
        DataError,
        match=r"Expected an image's file name in a column such as file, .* in line 2 of mine\.csv, got none: rename",
    ):
        load_rated_set("csv", tmp_path)


def test_a_name_without_an_extension_is_named(tmp_path: Path) -> None:
    write(tmp_path / "mine.csv", "name,mos", "a,1.5")
    with pytest.raises(
        DataError,
        match=r"Expected a file name that ends as an image's does \(\.png, \.jpg, \.\.\.\) in line 2 of mine\.csv, "
        r"got 'a': add the extension, or rename the column with the images to file\.",
    ):
        load_rated_set("csv", tmp_path)


def test_one_missing_image_is_counted_as_one(tmp_path: Path) -> None:
    write(tmp_path / "mine.csv", "name,mos", "a.png,1.5", "b.png,2.5")
    images(tmp_path, ["a.png"])
    with pytest.raises(
        DataError, match=r"Expected 2 images of csv in .*, but 1 is missing \(b\.png\): download it, or allow"
    ):
        load_rated_set("csv", tmp_path)
    write(tmp_path / "mine.csv", "name,mos", "b.png,2.5")
    with pytest.raises(DataError, match=r"Expected 1 image of csv in .*, but 1 is missing \(b\.png\): download it\."):
        load_rated_set("csv", tmp_path)


def test_a_table_of_nothing_but_a_header_is_an_error(tmp_path: Path) -> None:
    write(tmp_path / "mine.csv", "name,mos")
    with pytest.raises(DataError, match=r"Expected rated images in .*mine\.csv', got no row"):
        load_rated_set("csv", tmp_path)
    write(tmp_path / "mine.csv", "")
    with pytest.raises(DataError, match=r"Expected rated images in .*mine\.csv', got no row"):
        load_rated_set("csv", tmp_path)


def test_a_table_in_another_encoding_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_bytes(b"name,mos\n\xc3\xbc.png,1\n\xfc.png,2\n")
    with pytest.raises(DataError, match=r"Expected text in UTF-8 in line 3 of mine\.csv, got other bytes"):
        load_rated_set("csv", tmp_path)


def test_an_image_folder_with_metadata(tmp_path: Path) -> None:
    write(tmp_path / "metadata.csv", "file_name,text,mos", "a.png,a cat,1.5", "b/c.png,a dog,4.5")
    images(tmp_path, ["a.png", "b/c.png"])
    rated = load_rated_set("imagefolder", tmp_path)
    assert [(r.file, r.prompt) for r in rated.records] == [
        (tmp_path / "a.png", "a cat"),
        (tmp_path / "b/c.png", "a dog"),
    ]


def test_an_image_folder_with_parts_and_json_lines(tmp_path: Path) -> None:
    for part, score in (("train", 1.5), ("test", 4.5)):
        line = json.dumps({"file_name": "a.png", "prompt": f"a cat, {part}", "quality": score, "generator": None})
        write(tmp_path / part / "metadata.jsonl", line, "")
        images(tmp_path / part, ["a.png"])
    rated = load_rated_set("imagefolder", tmp_path)
    assert [(r.name, r.split, r.targets["quality"]) for r in rated.records] == [
        ("test/a.png", "test", 4.5),
        ("train/a.png", "train", 1.5),
    ]
    assert rated.records[0].file == tmp_path / "test/a.png"


def test_a_broken_json_line_is_named(tmp_path: Path) -> None:
    write(tmp_path / "metadata.jsonl", '{"file_name": "a.png", "mos": 1}', "{")
    with pytest.raises(DataError, match=r"Expected one JSON object per line, but line 2 of metadata\.jsonl is not"):
        load_rated_set("imagefolder", tmp_path)


def test_pyiqa_meta_info(tmp_path: Path) -> None:
    header = "img_name,mos,std,split,ratio802_seed123_split_01"
    path = write(tmp_path / "meta_info_MineDataset.csv", header, "a.jpg,63.5,18.6,train,test", "b.jpg,21,9,val,train")
    write(tmp_path / "notes.csv", "unrelated")
    for root in (tmp_path, path):
        rated = load_rated_set("pyiqa", root, images=False)
        assert [r.split for r in rated.records] == ["train", "validation"]
        assert rated.records[0].deviations == {"quality": 18.6}
        assert rated.ranges == {"quality": (0, 100)}
        assert rated.records[0].prompt is None
        assert len(rated.groups) == 2
    assert "column 'mos' of meta_info_MineDataset.csv is read as quality" in rated.notes


def test_pyiqa_meta_info_with_random_splits_only(tmp_path: Path) -> None:
    header = "img_path,score,ratio802_seed123_split_01,ratio802_seed123_split_02"
    write(tmp_path / "meta_info_MineDataset.csv", header, "a.jpg,0.5,train,test", "b.jpg,0.25,test,train")
    rated = load_rated_set("pyiqa", tmp_path, images=False)
    assert [r.split for r in rated.records] == ["train", "test"]
    assert "column 'ratio802_seed123_split_01' is read as the official split" in rated.notes


def test_same_text_and_prompt_hash_agree_on_what_one_prompt_is() -> None:
    for one, other in (("A  Red\nfox ", "a red fox"), ("ÄPFEL", "äpfel")):
        assert same_text(one) == same_text(other)
        assert prompt_hash(one) == prompt_hash(other)
    for one, other in (("a red fox", "a red box"), ("Straße", "strasse")):
        assert same_text(one) != same_text(other)
        assert prompt_hash(one) != prompt_hash(other)
    # Shipped models list hashes made this way.
    assert prompt_hash("A red  Fox") == hashlib.sha256(b"a red fox").hexdigest()[:16]


def test_each_score_has_its_own_guessed_scale(tmp_path: Path) -> None:
    images(tmp_path, ["a.png", "b.png"])
    write(tmp_path / "labels.csv", "file,quality,correspondence", "a.png,80,4", "b.png,20,2")
    found = load_rated_set("csv", tmp_path)
    assert found.ranges == {"quality": (0, 100), "correspondence": (0, 5)}
    assert "the scales 0..100 of quality and 0..5 of correspondence are guessed from the scores; " in found.notes[0]
    assert load_rated_set("csv", tmp_path, score_range=(0, 100)).ranges == dict.fromkeys(found.ranges, (0, 100))


@pytest.mark.parametrize("sign", [",", ";", "\t"])
def test_a_table_without_a_header_may_be_separated_by_other_signs(tmp_path: Path, sign: str) -> None:
    images(tmp_path, ["a.png", "b.png"])
    write(tmp_path / "labels.csv", f"a.png{sign}4.5", f"b.png{sign}2")
    found = load_rated_set("csv", tmp_path)
    assert [(r.prompt, r.targets) for r in found.records] == [(None, {"quality": 4.5}), (None, {"quality": 2.0})]


def test_a_row_may_lack_one_of_two_scores(tmp_path: Path) -> None:
    write(
        tmp_path / "labels.csv",
        "file,prompt,quality,correspondence,std_quality,std_correspondence",
        "a.png,a cat,3.5,,0.5,0.4",
        "b.png,a cat,,2.5,,0.3",
        "c.png,a dog,4,1,0.2,0.1",
    )
    images(tmp_path, ["a.png", "b.png", "c.png"])
    rated = load_rated_set("csv", tmp_path)
    assert [r.targets for r in rated.records] == [
        {"quality": 3.5},
        {"correspondence": 2.5},
        {"quality": 4.0, "correspondence": 1.0},
    ]
    assert [r.deviations for r in rated.records] == [
        {"quality": 0.5},
        {"correspondence": 0.3},
        {"quality": 0.2, "correspondence": 0.1},
    ]
    assert "3 images: 2 with a rating of quality, 2 with a rating of correspondence" in rated.notes
    assert [r.name for r in rated_for(rated.records, "quality")] == ["a.png", "c.png"]


def test_two_rows_of_one_image_may_have_one_score_each(tmp_path: Path) -> None:
    write(tmp_path / "labels.csv", "file,quality,correspondence", "a.png,3,", "a.png,,2", "b.png,1,1")
    rated = load_rated_set("csv", tmp_path, images=False)
    assert [r.targets for r in rated.records] == [
        {"quality": 3.0, "correspondence": 2.0},
        {"quality": 1.0, "correspondence": 1.0},
    ]
    assert not any("a rating of" in note for note in rated.notes)


def test_a_row_without_any_score_is_an_error(tmp_path: Path) -> None:
    write(tmp_path / "labels.csv", "file,quality,correspondence", "a.png,3,2", "b.png,,")
    with pytest.raises(
        DataError, match=r"a rating of quality or correspondence in line 3 of labels.csv \(b.png\), got none:"
    ):
        load_rated_set("csv", tmp_path, images=False)
    write(tmp_path / "labels.csv", "file,quality,correspondence", "a.png,3,2", "b.png,,bad")
    with pytest.raises(DataError, match=r"Expected a number in column 'correspondence' in line 3 .* got 'bad'"):
        load_rated_set("csv", tmp_path, images=False)


def test_rows_of_json_may_lack_a_key(tmp_path: Path) -> None:
    write(
        tmp_path / "metadata.jsonl",
        '{"file_name": "a.png", "quality": 3}',
        '{"file_name": "b.png", "quality": 2, "correspondence": 4, "split": "test"}',
        '{"file_name": "c.png", "correspondence": 1, "split": "train"}',
    )
    rated = load_rated_set("imagefolder", tmp_path, images=False)
    assert [(r.targets, r.split) for r in rated.records] == [
        ({"quality": 3.0}, None),
        ({"quality": 2.0, "correspondence": 4.0}, "test"),
        ({"correspondence": 1.0}, "train"),
    ]


def test_column_names_may_have_spaces_for_underscores(tmp_path: Path) -> None:
    write(tmp_path / "mine.csv", "Image  Name,MOS Quality,Mos Align", "a.png,3.5,2")
    (record,) = load_rated_set("csv", tmp_path, images=False).records
    assert (record.name, record.targets) == ("a.png", {"quality": 3.5, "correspondence": 2.0})


def test_two_columns_of_one_name_must_agree(tmp_path: Path) -> None:
    write(tmp_path / "mine.csv", "file,mos,MOS,", "a.png,3,3,x", "b.png,3,4,y")
    message = r"^Expected one column 'mos' in line 3 of mine\.csv, got two, which hold '3' and '4': rename one of them"
    with pytest.raises(DataError, match=message):
        load_rated_set("csv", tmp_path, images=False)
    write(tmp_path / "mine.csv", "file,mos,MOS,,", "a.png,3,3,x,y", "b.png,4,4,y,z")
    assert [r.targets["quality"] for r in load_rated_set("csv", tmp_path, images=False).records] == [3.0, 4.0]


def test_a_wrong_deviation_is_said_of_its_image(tmp_path: Path) -> None:
    write(tmp_path / "mine.csv", "file,quality,std_quality", "a.png,3,nan")
    message = r"^Expected a number in column 'std_quality' in line 2 of mine\.csv \(a\.png\), got 'nan'"
    with pytest.raises(DataError, match=message):
        load_rated_set("csv", tmp_path, images=False)


def test_the_column_of_a_wrong_number_is_named_as_in_the_file(tmp_path: Path) -> None:
    write(tmp_path / "mine.csv", "file,mos_quality,std", "a.png,3,nan")
    with pytest.raises(DataError, match=r"^Expected a number in column 'std' in line 2"):
        load_rated_set("csv", tmp_path, images=False)
    write(tmp_path / "mine.csv", "file,mos_quality,std", "a.png,x,1")
    with pytest.raises(DataError, match=r"^Expected a number in column 'mos_quality' in line 2"):
        load_rated_set("csv", tmp_path, images=False)


@pytest.mark.parametrize("score", [150, -3])
def test_one_score_for_all_images_has_a_scale(tmp_path: Path, score: int) -> None:
    write(tmp_path / "mine.csv", "file,mos", f"a.png,{score}", f"b.png,{score}")
    rated = load_rated_set("csv", tmp_path, images=False)
    assert rated.ranges == {"quality": (score, score + 1)}
    assert survey(rated, 2, (), ()).targets[0].histogram == (2, *[0] * 9)


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("r.json", r"write one JSON object per line into a \.jsonl file"),
        ("r.xls", r"save it as \.xlsx or \.csv"),
        ("r.ODS", r"save it as \.xlsx or \.csv"),
    ],
)
def test_labels_in_other_forms_are_refused_with_what_to_do(tmp_path: Path, name: str, advice: str) -> None:
    path = write(tmp_path / name, '[{"file": "a.png", "mos": 3}]')
    said = rf"^Expected labels in a \.csv, \.tsv, \.xlsx, \.jsonl or \.parquet file, got '.*{name}': {advice}\.$"
    for form, root in (("csv", path), ("csv", tmp_path), ("imagefolder", tmp_path)):
        with pytest.raises(DataError, match=said):
            load_rated_set(form, root)
    write(tmp_path / "mine.csv", "file,mos", "a.png,3")  # beside it, the other is not what is meant
    assert load_rated_set("csv", tmp_path, images=False).targets == ("quality",)


def test_an_image_folder_without_metadata_is_told_to_have_some(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"got none: add one\.$"):
        load_rated_set("imagefolder", tmp_path)
