"""The rated sets: one test for each trap of their label files, on small files of the same shape."""

from __future__ import annotations

import math
import sys
from collections import Counter
from pathlib import Path

import pytest

from mst_clipiqa.data import SETS, RatedSet, Record, load_rated_set
from mst_clipiqa.data.sets import OWN_FORMATS
from mst_clipiqa.data.survey import survey
from mst_clipiqa.errors import DataError, UsageError
from tests.rated_files import (
    AGIQA_3K_HEADER,
    agiqa_1k,
    agiqa_3k,
    aigciqa2023,
    aigciqa2023_mat,
    aigiqa_20k,
    images,
    pku_aigiqa_4k,
    write,
    write_mat,
    write_xlsx,
)


def by_name(rated: RatedSet) -> dict[str, Record]:
    return {record.name: record for record in rated.records}


# AGIQA-1K ---------------------------------------------------------------------------------------------------


def test_agiqa_1k_keeps_the_right_one_of_two_ratings_under_one_name(tmp_path: Path) -> None:
    twin = ("dreamStudio_8_9_1_1.jpg", "alien, wearing shirt, wild, realistic style", 0.4414155439958131)
    agiqa_1k(tmp_path, [twin])
    rated = load_rated_set("agiqa-1k", tmp_path, images=False)
    assert len(rated) == 8
    assert by_name(rated)["dreamStudio_8_9_1_1.jpg"].targets == {"overall": 2.084115711537598}
    assert rated.notes == (
        "row 10 of AIGC_MOS_Zscore.xlsx is left out: dreamStudio_8_9_1_1.jpg is rated twice, "
        "0.441 is not its own score",
    )


def test_agiqa_1k_keeps_it_whichever_row_comes_first(tmp_path: Path) -> None:
    name = "dreamStudio_8_9_1_1.jpg"
    rows = [("Image", "Prompt", "MOS"), (name, "a, b, c, d", 0.441416), (name, "a, b, c, d", 2.0841)]
    write_xlsx(tmp_path / "AIGC_MOS_Zscore.xlsx", rows)
    assert load_rated_set("agiqa-1k", tmp_path, images=False).records[0].targets == {"overall": 2.0841}


def test_two_scores_for_any_other_name_are_an_error(tmp_path: Path) -> None:
    agiqa_1k(tmp_path, [("deepai_0_0_0_0.jpg", "bird, driving aircraft, city, anime style", 4.5)])
    with pytest.raises(DataError) as caught:
        load_rated_set("agiqa-1k", tmp_path, images=False)
    assert str(caught.value) == (
        "Expected one overall score for deepai_0_0_0_0.jpg, got 1 in row 2 of AIGC_MOS_Zscore.xlsx and 4.5 in "
        "row 10 of AIGC_MOS_Zscore.xlsx: keep one of them, or their mean."
    )


def test_agiqa_1k_groups_by_object_and_action_of_the_prompt(tmp_path: Path) -> None:
    agiqa_1k(tmp_path)
    rated = load_rated_set("AGIQA-1K", tmp_path, images=False)
    sizes = Counter(record.group for record in rated.records)
    # the numbers in a dreamStudio name say something else than its prompt, so the name must not be read
    assert sizes == {"agiqa-1k/bird, driving aircraft": 4, "agiqa-1k/alien, wearing shirt": 4}
    assert {r.generator for r in rated.records} == {"deepai", "dreamStudio"}
    assert Counter(r.style for r in rated.records) == {"anime style": 4, "realistic style": 4}
    assert rated.ranges == {"overall": (0.0, 5.0)}


def test_agiqa_1k_does_not_take_raw_means_for_the_mos(tmp_path: Path) -> None:
    write(tmp_path / "AIGC_all.csv", "Image,Score", "deepai_0_0_0_0.jpg,2.5")
    with pytest.raises(DataError, match=r"AIGC_all\.csv cannot be used: it holds raw means"):
        load_rated_set("agiqa-1k", tmp_path, images=False)


def test_agiqa_1k_reads_the_csv_copy_where_there_is_no_spreadsheet(tmp_path: Path) -> None:
    write(tmp_path / "all.csv", "Image,Prompt,MOS", 'deepai_0_0_0_0.jpg,"bird, driving aircraft, city, x",2.7934')
    assert load_rated_set("agiqa-1k", tmp_path, images=False).records[0].targets == {"overall": 2.7934}


# AGIQA-3K ---------------------------------------------------------------------------------------------------


def test_agiqa_3k_is_read_with_its_dots_and_line_ends(tmp_path: Path) -> None:
    agiqa_3k(tmp_path, newline="\r\n")
    rated = load_rated_set("agiqa-3k", tmp_path, images=False)
    record = by_name(rated)["sd1.5_lowstep_004.jpg"]
    assert record.generator == "sd1.5"
    assert record.setting == "sd1.5_lowstep"
    assert record.group == "agiqa-3k/004"
    assert record.prompt == "prompt 4, with a comma"
    assert record.targets == {"quality": 1.9, "correspondence": 2.6}
    assert record.deviations == {"quality": 0.25, "correspondence": 0.5}
    assert record.style == "sci-fi style"
    assert record.split is None
    assert Counter(r.generator for r in rated.records) == {"sd1.5": 12, "xl2.2": 6}
    assert len(rated.groups) == 6


@pytest.mark.parametrize("folder", ["", "images", "img", "image", "all", "AGIQA-3K"])
def test_agiqa_3k_images_are_found_in_every_layout(tmp_path: Path, folder: str) -> None:
    names = agiqa_3k(tmp_path)
    images(tmp_path / folder, names)
    rated = load_rated_set("agiqa-3k", tmp_path)
    assert [record.file for record in rated.records] == [tmp_path / folder / name for name in names]


def test_labels_may_lie_in_a_sub_folder(tmp_path: Path) -> None:
    names = agiqa_3k(tmp_path / "labels" / "AGIQA-3K")
    images(tmp_path / "images", names)
    rated = load_rated_set("agiqa-3k", tmp_path)
    assert rated.labels == (tmp_path / "labels" / "AGIQA-3K" / "data.csv",)
    assert rated.records[0].file == tmp_path / "images" / names[0]


def test_images_may_lie_beside_labels_in_a_sub_folder(tmp_path: Path) -> None:
    names = agiqa_3k(tmp_path / "AGIQA-3K")
    images(tmp_path / "AGIQA-3K" / "images", names)
    assert len(load_rated_set("agiqa-3k", tmp_path)) == len(names)


def test_two_folders_with_labels_are_not_guessed_between(tmp_path: Path) -> None:
    agiqa_3k(tmp_path / "one")
    agiqa_3k(tmp_path / "two")
    with pytest.raises(DataError, match=r"Expected the labels in one folder in .*, got .*one' and .*two': give"):
        load_rated_set("agiqa-3k", tmp_path)


def test_a_name_of_another_shape_is_an_error(tmp_path: Path) -> None:
    write(tmp_path / "data.csv", AGIQA_3K_HEADER, "sd1.5_normal.jpg,p,,,,1,1,1,1")
    with pytest.raises(DataError, match=r"as in AGIQA-3K in line 2 of data\.csv, got 'sd1\.5_normal\.jpg'"):
        load_rated_set("agiqa-3k", tmp_path)


# AIGCIQA2023 ------------------------------------------------------------------------------------------------


def test_aigciqa2023_names_hold_the_model_and_prompts_lose_their_quotes(tmp_path: Path) -> None:
    names = aigciqa2023(tmp_path)
    rated = load_rated_set("aigciqa2023", tmp_path, images=False)
    records = by_name(rated)
    assert list(records) == names  # image_name alone would leave 8 of 48
    assert records["DALLE/000-1.png"].prompt == "a corgi"
    assert records["DALLE/001-1.png"].prompt == 'a cartoon of a dog saying "I see what you did there"'
    assert records["stable-diffusion/001-4.png"].generator == "stable-diffusion"
    assert Counter(r.group for r in rated.records) == {"aigciqa2023/000": 24, "aigciqa2023/001": 24}


def test_aigciqa2023_columns_are_quality_authenticity_correspondence(tmp_path: Path) -> None:
    aigciqa2023(tmp_path)
    targets = load_rated_set("aigciqa2023", tmp_path, images=False).records[0].targets
    assert targets == {"quality": 1.51, "authenticity": 1.81, "correspondence": 2.11}


@pytest.mark.parametrize(("scale", "ends"), [(1.0, (0.0, 5.0)), (20.0, (0.0, 100.0))])
def test_aigciqa2023_tells_its_two_scales_apart(tmp_path: Path, scale: float, ends: tuple[float, float]) -> None:
    aigciqa2023(tmp_path, scale)
    assert set(load_rated_set("aigciqa2023", tmp_path, images=False).ranges.values()) == {ends}


@pytest.mark.parametrize(("scale", "wrong", "low", "high"), [(1.0, "60.1", 0, 5), (20.0, "3.005", 5, 100)])
def test_aigciqa2023_notices_a_row_of_the_other_scale(
    tmp_path: Path, scale: float, wrong: str, low: int, high: int
) -> None:
    aigciqa2023(tmp_path, scale)
    path = tmp_path / "all_set.csv"
    lines = path.read_text().splitlines()
    cells = lines[4].split(",")
    lines[4] = ",".join([*cells[:2], wrong, *cells[3:]])
    path.write_text("\n".join(lines))
    message = (
        rf"Expected quality between {low} and {high}, .* line 5 of all_set\.csv \(Controlnet/000-4\.png\), got {wrong}:"
    )
    with pytest.raises(DataError, match=message):
        load_rated_set("aigciqa2023", tmp_path, images=False)


def test_a_set_beyond_every_scale_is_held_against_the_largest(tmp_path: Path) -> None:
    aigciqa2023(tmp_path, 1000.0)
    with pytest.raises(DataError, match=r"Expected quality between 0 and 100"):
        load_rated_set("aigciqa2023", tmp_path, images=False)


def test_aigciqa2023_folder_per_model(tmp_path: Path) -> None:
    images(tmp_path / "Image", aigciqa2023(tmp_path))
    rated = load_rated_set("aigciqa2023", tmp_path)
    assert by_name(rated)["Glide/001-2.png"].file == tmp_path / "Image/Glide/001-2.png"


def test_aigciqa2023_flat_folder_is_numbered_by_row_not_sorted_as_text(tmp_path: Path) -> None:
    names = aigciqa2023(tmp_path)
    # the number of an image is its row among all 2,400, whatever rows the label file has
    numbers = [100 * 4 * (i // 8) + i % 8 for i in range(len(names))]
    images(tmp_path / "Image" / "allimg", [f"{number}.png" for number in numbers])
    rated = load_rated_set("aigciqa2023", tmp_path)
    assert {r.name: r.file.name for r in rated.records} == {
        name: f"{number}.png" for name, number in zip(names, numbers, strict=True)
    }
    assert by_name(rated)["DALLE/001-1.png"].file.name == "404.png"


def test_aigciqa2023_flat_folder_with_the_model_in_front(tmp_path: Path) -> None:
    names = aigciqa2023(tmp_path)
    images(tmp_path / "Image", [name.replace("/", "") for name in names])
    assert by_name(load_rated_set("aigciqa2023", tmp_path))["Lafite/001-1.png"].file.name == "Lafite001-1.png"


def test_aigciqa2023_from_the_official_mat_files(tmp_path: Path) -> None:
    names = [f"{model}/00{p}-{k}.png" for model in ("Controlnet", "DALLE") for p in (0, 1) for k in (1, 2, 3, 4)]
    values = aigciqa2023_mat(tmp_path, names)
    rated = load_rated_set("aigciqa2023", tmp_path, images=False)
    assert [r.name for r in rated.records] == names
    assert [r.targets["quality"] for r in rated.records] == [pytest.approx(v + 0.1) for v in values]
    assert rated.records[0].targets["correspondence"] == pytest.approx(30.3)
    assert rated.records[0].deviations == {"quality": 10, "authenticity": 11, "correspondence": 12}
    assert rated.ranges["quality"] == (0.0, 100.0)
    assert rated.records[0].prompt == "a corgi"  # the first row of a spreadsheet without a header is a prompt
    assert rated.records[4].prompt == 'a cartoon of a dog saying "I see"'
    assert [rated.records[i].style for i in (0, 4)] == ["Basic", "Complex"]


def test_aigciqa2023_mat_files_with_names_and_categories_glued_on(tmp_path: Path) -> None:
    names = ["Controlnet/000-1.png", "DALLE/000-1.png"]
    aigciqa2023_mat(tmp_path, names)
    (tmp_path / "pic-index.xlsx").unlink()
    (tmp_path / "AIGCIQA2023_Prompts.xlsx").unlink()
    lines = [name.replace("/", "\\") + ",a corgi.Animals.Basic" for name in names]
    write(tmp_path / "merged_output_aigciqa2023.csv", "name,prompt", *lines)
    rated = load_rated_set("aigciqa2023", tmp_path, images=False)
    assert [(r.name, r.prompt) for r in rated.records] == [(name, "a corgi") for name in names]
    assert rated.notes == ("AIGCIQA2023_Prompts.xlsx was not found, so the styles are unknown",)


def test_aigciqa2023_whole_mat_files_need_no_index(tmp_path: Path) -> None:
    for target in (1, 2, 3):
        write_mat(tmp_path / f"mosz{target}.mat", "MOSz", [30 + i / 100 for i in range(2400)])
    rated = load_rated_set("aigciqa2023", tmp_path, images=False)
    assert [rated.records[i].name for i in (0, 5, 400, 2399)] == [
        "Controlnet/000-1.png",
        "Controlnet/001-2.png",
        "DALLE/000-1.png",
        "Unidiffuser/099-4.png",
    ]


def test_aigciqa2023_mat_files_that_do_not_fit_are_errors(tmp_path: Path) -> None:
    aigciqa2023_mat(tmp_path, ["Controlnet/000-1.png", "DALLE/000-1.png"])
    write_mat(tmp_path / "DATA/MOS/mosz2.mat", "MOSz", [30.0])
    with pytest.raises(DataError, match=r"Expected 2 rows in the \.mat file of authenticity, got 1"):
        load_rated_set("aigciqa2023", tmp_path, images=False)
    write_mat(tmp_path / "DATA/MOS/mosz2.mat", "MOSz", [30.0, math.nan])
    with pytest.raises(DataError, match=r"Expected a number in row 2 of mosz2\.mat \(DALLE/000-1\.png\), got nan"):
        load_rated_set("aigciqa2023", tmp_path, images=False)
    write_mat(tmp_path / "DATA/MOS/mosz2.mat", "MOS", [30.0, 31.0])
    with pytest.raises(DataError, match=r"Expected the variable 'MOSz' in .*mosz2\.mat', got MOS"):
        load_rated_set("aigciqa2023", tmp_path, images=False)
    (tmp_path / "DATA/MOS/mosz2.mat").write_bytes(b"MATLAB 7.3 MAT-file" + bytes(200))
    with pytest.raises(DataError, match=r"Expected a MATLAB file of version 5 to 7\.2, but .*mosz2\.mat"):
        load_rated_set("aigciqa2023", tmp_path, images=False)


def test_aigciqa2023_mat_files_of_a_part_need_an_index(tmp_path: Path) -> None:
    for target in (1, 2, 3):
        (tmp_path / "mats").mkdir(exist_ok=True)
        write_mat(tmp_path / f"mats/mosz{target}.mat", "MOSz", [30.0, 31.0])
    with pytest.raises(DataError, match=r"Expected pic-index\.xlsx beside \.mat files of 2 rows"):
        load_rated_set("aigciqa2023", tmp_path, images=False)


def test_a_survey_counts_ratings_in_equal_steps_of_the_scale(tmp_path: Path) -> None:
    ratings = [1.0, 1.1, 3.0, 4.9, 5.0]
    records = [
        Record(f"{i}.png", tmp_path / f"{i}.png", "a fox", "fox", "gen", {"quality": y}) for i, y in enumerate(ratings)
    ]
    (found,) = survey(RatedSet("own", tmp_path, tuple(records), {"quality": (1.0, 5.0)}), 5, (), ()).targets
    steps = len(found.histogram)
    assert found.histogram[0] == 2 and found.histogram[-1] == 2 and sum(found.histogram) == 5
    assert found.histogram[steps // 2] == 1
    assert (found.minimum, found.maximum, found.mean) == pytest.approx((1.0, 5.0, 3.0))


# AIGIQA-20K -------------------------------------------------------------------------------------------------


def test_aigiqa_20k_brings_scores_prompts_and_parts_together(tmp_path: Path) -> None:
    names = aigiqa_20k(tmp_path)
    rated = load_rated_set("aigiqa-20k", tmp_path, images=False)
    records = by_name(rated)
    assert sorted(records) == sorted(names)  # the first row of a file without a header is an image as well
    assert records["DALLE2_0000.png"].targets == {"overall": 2.0}
    assert records["SD1.5_0001.png"].prompt == "a red house"
    assert records["SD1.5_0001.png"].targets == {"overall": 4.5}
    assert Counter(r.split for r in rated.records) == {"train": 4, "validation": 2, "test": 1}
    assert rated.notes == ("no prompt for 1 image, so it is unknown which images share one",)
    assert rated.ranges == {"overall": (0.0, 5.0)}


def test_aigiqa_20k_generators_hold_underscores_and_dots(tmp_path: Path) -> None:
    aigiqa_20k(tmp_path)
    records = load_rated_set("aigiqa-20k", tmp_path, images=False).records
    assert Counter(r.generator for r in records) == {"SD1.5": 3, "LCM_SD1.5": 2, "DALLE2": 1, "MJ": 1}


def test_aigiqa_20k_groups_by_prompt_and_unknown_prompts_stand_alone(tmp_path: Path) -> None:
    aigiqa_20k(tmp_path)
    records = by_name(load_rated_set("aigiqa-20k", tmp_path, images=False))
    same = {records[name].group for name in ("DALLE2_0000.png", "LCM_SD1.5_0000.png", "SD1.5_0002.png")}
    assert len(same) == 1  # "a cat" and "A  Cat"
    assert records["MJ_0001.png"].prompt is None
    assert not records["MJ_0001.png"].prompt_known
    assert records["SD1.5_0000.png"].prompt_known
    assert records["LCM_SD1.5_0001.png"].prompt == "a saint's halo, dark"


def test_aigiqa_20k_train_part_alone_without_a_header(tmp_path: Path) -> None:
    write(tmp_path / "info_train.csv", "MJ_0000.png,a cat,3.5", "MJ_0001.png,a dog,4.5")
    write(tmp_path / "info_val.csv", "MJ_0002.png,a cow")
    rated = load_rated_set("aigiqa-20k", tmp_path, images=False)
    assert [r.name for r in rated.records] == ["MJ_0000.png", "MJ_0001.png"]
    assert rated.notes == ("1 image is left out: no label file found here has a score for it (line 1 of info_val.csv)",)


def test_aigiqa_20k_does_not_take_folds_of_others_for_the_official_files(tmp_path: Path) -> None:
    aigiqa_20k(tmp_path)
    write(tmp_path / "folds" / "1" / "train.csv", "DALLE2_0000.png,a cat,1.0")
    write(tmp_path / "folds" / "2" / "train.csv", "DALLE2_0000.png,a cat,1.5")
    assert by_name(load_rated_set("aigiqa-20k", tmp_path, images=False))["DALLE2_0000.png"].targets == {"overall": 2.0}


def test_aigiqa_20k_images_in_folders_of_the_parts(tmp_path: Path) -> None:
    names = aigiqa_20k(tmp_path)
    folders = ["train"] * 4 + ["val"] * 2 + ["test"]
    for folder, name in zip(folders, names, strict=True):
        images(tmp_path / folder, [name])
    records = by_name(load_rated_set("aigiqa-20k", tmp_path))
    assert [Path(str(records[name].file)).parent.name for name in names] == folders


def test_one_image_in_two_official_parts_is_an_error(tmp_path: Path) -> None:
    header = "impath,mos,label,classname"
    write(tmp_path / "train.csv", header, "/x/MJ_0000.png,3.5,1,bad")
    write(tmp_path / "test.csv", header, "/x/MJ_0000.png,3.5,1,bad")
    with pytest.raises(
        DataError, match=r"Expected one official part for MJ_0000\.png, got 'train' in line 2 of train\.csv"
    ):
        load_rated_set("aigiqa-20k", tmp_path, images=False)


# PKU-AIGIQA-4K ----------------------------------------------------------------------------------------------


def test_pku_reads_three_scores_and_not_their_sum(tmp_path: Path) -> None:
    names = pku_aigiqa_4k(tmp_path)
    rated = load_rated_set("pku-aigiqa-4k", tmp_path, images=False)
    assert [r.name for r in rated.records] == names
    assert rated.records[0].targets == {"quality": 2.5, "authenticity": 2.25, "correspondence": 3.5}
    assert rated.ranges == dict.fromkeys(("quality", "authenticity", "correspondence"), (0.0, 5.0))
    assert rated.records[0].prompt == "there is a clock, on a table"  # the file begins with a byte order mark


def test_pku_groups_by_id_though_two_ids_share_a_text(tmp_path: Path) -> None:
    pku_aigiqa_4k(tmp_path)
    rated = load_rated_set("pku-aigiqa-4k", tmp_path, images=False)
    assert Counter(r.group for r in rated.records) == {"pku-aigiqa-4k/1099": 8, "pku-aigiqa-4k/1196": 8}


def test_pku_official_test_part_is_each_fourth_image(tmp_path: Path) -> None:
    names = pku_aigiqa_4k(tmp_path)
    rated = load_rated_set("pku-aigiqa-4k", tmp_path, images=False)
    assert [r.name for r in rated.records if r.split == "test"] == names[3::4]
    assert Counter(r.split for r in rated.records) == {"train": 12, "test": 4}


def test_pku_leaves_out_images_made_from_images(tmp_path: Path) -> None:
    names = pku_aigiqa_4k(tmp_path, first=["0.jpg,a cat,MJ_0_00.jpg,3,3,3,9"])
    rated = load_rated_set("pku-aigiqa-4k", tmp_path, images=False)
    assert [r.name for r in rated.records] == names
    assert rated.notes == ("left out: 1 image generated from an image, not from text",)


# every set --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("cell", "shown"), [("nan", "'nan'"), ("", "''"), ("good", "'good'"), ("inf", "'inf'")])
def test_a_score_that_is_no_number_names_row_and_file(tmp_path: Path, cell: str, shown: str) -> None:
    write(tmp_path / "data.csv", AGIQA_3K_HEADER, f"sd1.5_normal_000.jpg,p,,,,{cell},1,1,1")
    with pytest.raises(DataError) as caught:
        load_rated_set("agiqa-3k", tmp_path, images=False)
    assert str(caught.value) == (
        f"Expected a number in column 'mos_quality' in line 2 of data.csv (sd1.5_normal_000.jpg), got {shown}: "
        "correct the row or remove it."
    )


@pytest.mark.parametrize("score", ["5.01", "-0.5"])
def test_a_score_off_the_scale_names_row_and_file(tmp_path: Path, score: str) -> None:
    good = "sd1.5_normal_000.jpg,p,,,,3,1,1,1"
    write(tmp_path / "data.csv", AGIQA_3K_HEADER, good, f"sd1.5_normal_001.jpg,q,,,,1,1,{score},1")
    message = (
        rf"Expected correspondence between 0 and 5, .* line 3 of data\.csv \(sd1\.5_normal_001\.jpg\), got {score}:"
    )
    with pytest.raises(DataError, match=message):
        load_rated_set("agiqa-3k", tmp_path, images=False)


def test_missing_images_are_one_error_with_the_first_five(tmp_path: Path) -> None:
    names = agiqa_3k(tmp_path)
    images(tmp_path, names[7:])
    with pytest.raises(DataError) as caught:
        load_rated_set("agiqa-3k", tmp_path)
    assert str(caught.value) == (
        f"Expected 18 images of agiqa-3k in '{tmp_path}', but 7 are missing ({', '.join(names[:5])}, ...): "
        "download them, or allow missing images (--allow-missing)."
    )


def test_missing_images_may_be_left_out_and_are_counted(tmp_path: Path) -> None:
    names = agiqa_3k(tmp_path)
    images(tmp_path, names[7:])
    rated = load_rated_set("agiqa-3k", tmp_path, allow_missing=True)
    assert [r.name for r in rated.records] == names[7:]
    assert rated.missing == tuple(names[:7])
    assert "missing and left out: 7 of 18 images" in rated.notes


def test_no_image_at_all_is_an_error_even_then(tmp_path: Path) -> None:
    agiqa_3k(tmp_path)
    with pytest.raises(DataError, match="18 are missing"):
        load_rated_set("agiqa-3k", tmp_path, allow_missing=True)


def test_names_are_read_as_people_write_them(tmp_path: Path) -> None:
    agiqa_3k(tmp_path)
    assert {load_rated_set(name, tmp_path, images=False).name for name in ("AGIQA-3K", "agiqa3k", "agiqa_3k")} == {
        "agiqa-3k"
    }
    with pytest.raises(
        UsageError, match=r"set \(agiqa-1k, .*\), got 'agiqa-4k' \(did you mean 'agiqa-3k'\?\): correct it"
    ):
        load_rated_set("agiqa-4k", tmp_path)


def test_a_root_that_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Expected the folder of agiqa-3k, found no folder .*nowhere"):
        load_rated_set("agiqa-3k", tmp_path / "nowhere")


def test_a_folder_without_labels_names_them(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Expected the labels of AGIQA-3K \(data\.csv\) in .*, got none"):
        load_rated_set("agiqa-3k", tmp_path)


def test_a_ragged_row_is_named(tmp_path: Path) -> None:
    write(tmp_path / "data.csv", AGIQA_3K_HEADER, "sd1.5_normal_000.jpg,a, b,,,,1,1,1,1")
    with pytest.raises(
        DataError, match=r"Expected 9 cells in line 2 of data\.csv, got 10: quote cells that hold commas"
    ):
        load_rated_set("agiqa-3k", tmp_path)


def test_a_spreadsheet_that_is_none(tmp_path: Path) -> None:
    write(tmp_path / "AIGC_MOS_Zscore.xlsx", "version https://git-lfs.github.com/spec/v1")
    with pytest.raises(
        DataError, match=r"Expected a spreadsheet, but .*AIGC_MOS_Zscore\.xlsx' is another kind of file"
    ):
        load_rated_set("agiqa-1k", tmp_path)


def test_a_spreadsheet_without_its_reader_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    agiqa_1k(tmp_path)
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(UsageError, match=r'openpyxl, which is not installed: pip install "mst-clipiqa\[data\]"'):
        load_rated_set("agiqa-1k", tmp_path)


def test_the_table_is_complete() -> None:
    for name, info in SETS.items():
        assert info.title, name
        assert info.targets, name
        assert info.licence, name
        assert info.deviations.keys() <= info.targets.keys(), name
    assert all(SETS[name].citation for name in SETS if name not in OWN_FORMATS)
