"""Tables of pairs: what is read, and what is refused with the row that is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from mst_clipiqa.data import load_preferences, make_split
from mst_clipiqa.errors import DataError
from tests.rated_files import images, write

HEADER = "image_a,image_b,prompt,preferred,strength"


def test_pairs_are_read_with_ties_and_strengths(tmp_path: Path) -> None:
    images(tmp_path, ["x/1.png", "x/2.png", "3.png"])
    table = write(
        tmp_path / "pairs.csv",
        HEADER,
        "x/1.png,x/2.png,A  cat,a,",
        "x\\2.png,3.png,a cat,Image_B,2.5",
        "1.png,3.png,,tie,1",
    )
    images(tmp_path, ["1.png"])
    found = load_preferences(table)
    assert [(p.a.name, p.b.name, p.preferred, p.strength) for p in found.pairs] == [
        ("pairs/x/1.png", "pairs/x/2.png", 1.0, 1.0),
        ("pairs/x/2.png#2", "pairs/3.png", 0.0, 2.5),  # the same image, with its prompt spelled in another way
        ("pairs/1.png", "pairs/3.png#2", 0.5, 1.0),
    ]
    assert {p.a.group for p in found.pairs[:2]} == {"pairs of pairs.csv/a cat"}
    assert all(Path(str(record.file)).is_file() and not record.targets for record in found.images.records)
    assert len(found.images.records) == 6


def test_images_without_prompts_are_in_one_group_with_those_that_pairs_link(tmp_path: Path) -> None:
    names = [f"{i}.png" for i in range(12)]
    images(tmp_path, names)
    chain = [f"{i}.png,{i + 1}.png,a" for i in range(5)]
    others = [f"{i}.png,{i + 1}.png,b" for i in (6, 8, 10)]
    found = load_preferences(
        write(
            tmp_path / "pairs.tsv", *(row.replace(",", "\t") for row in ("image_a,image_b,preferred", *chain, *others))
        )
    )
    assert len({record.group for record in found.images.records}) == 4
    assert len({pair.a.group for pair in found.pairs[:5]}) == 1
    for seed in range(4):
        split = make_split(found.images.records, seed=seed, test_share=0.5, validation_share=0.5)
        kept = [found.among(part) for part in (split.train, split.validation, split.test)]
        assert sum(map(len, kept)) == len(found.pairs)  # a split by prompt never divides a pair


def test_missing_images_are_said_or_left_out(tmp_path: Path) -> None:
    images(tmp_path / "there", ["1.png", "2.png"])
    table = write(tmp_path / "pairs.csv", HEADER, "1.png,2.png,p,a,", "2.png,gone.png,p,b,")
    with pytest.raises(
        DataError, match=r"Expected the images of 'pairs.csv' in .*, but 1 of them is missing, first 'gone.png'"
    ):
        load_preferences(table, tmp_path / "there")
    found = load_preferences(table, tmp_path / "there", allow_missing=True)
    assert [pair.b.name for pair in found.pairs] == ["pairs/2.png"]
    assert found.images.notes == ("1 image is missing, and its pairs are left out",)
    with pytest.raises(DataError, match=r"Expected pairs of images in .*, got none"):
        load_preferences(write(tmp_path / "no.csv", HEADER, "x.png,y.png,p,a,"), allow_missing=True)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            ["image_a,image_b,prompt,prefered", "1.png,2.png,p,a"],
            r"Expected a column preferred in each row of .*prefered",
        ),
        ([HEADER], "Expected a column image_a in each row of .*its columns are: none"),
        ([HEADER, "1.png,1.png,p,a,"], "Expected two images in row 1 of 'pairs.csv', got '1.png and 1.png'"),
        ([HEADER, "1.png,,p,a,"], "Expected two images in row 1"),
        (
            [HEADER, "1.png,2.png,p,a,", "1.png,2.png,p,c,"],
            "Expected a, b or tie in column preferred in row 2 .*, got 'c'",
        ),
        (
            [HEADER, "1.png,2.png,p,a,0"],
            "Expected a number above 0 in column strength in row 1 of 'pairs.csv', got '0'",
        ),
        ([HEADER, "1.png,2.png,p,a,often"], "Expected a number above 0 .* got 'often'"),
    ],
)
def test_a_bad_table_is_refused(tmp_path: Path, lines: list[str], message: str) -> None:
    images(tmp_path, ["1.png", "2.png"])
    with pytest.raises(DataError, match=message):
        load_preferences(write(tmp_path / "pairs.csv", *lines))
