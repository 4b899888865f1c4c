"""Names of columns mean the same in every format of label files."""

from __future__ import annotations

from pathlib import Path

import pytest

from mst_clipiqa.data import load_rated_set
from mst_clipiqa.data.label_files import read_rows
from mst_clipiqa.data.stored_sets import _row
from mst_clipiqa.errors import DataError


def test_keys_of_json_may_have_spaces_for_underscores(tmp_path: Path) -> None:
    (tmp_path / "metadata.jsonl").write_text('{"File Name": "a.png", "MOS Quality": 3.5}\n')
    (record,) = load_rated_set("imagefolder", tmp_path, images=False).records
    assert (record.name, record.targets) == ("a.png", {"quality": 3.5})
    assert _row("row 1", "a.png", {"MOS Quality": 3.5}).cells == {"mos_quality": "3.5", "file": "a.png"}


def test_two_keys_of_one_name_must_agree(tmp_path: Path) -> None:
    path = tmp_path / "metadata.jsonl"
    path.write_text('{"file_name": "a.png", "mos": 3, "MOS": 4}\n')
    with pytest.raises(
        DataError, match=r"^Expected one column 'mos' in line 1 of metadata\.jsonl, got two, which hold"
    ):
        read_rows(path)
