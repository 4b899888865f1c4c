"""Small label files in the published layouts, and stand-ins for images, for the tests of ``data``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

AGIQA_3K_HEADER = "name,prompt,adj1,adj2,style,mos_quality,std_quality,mos_align,std_align"
MODELS = ("Controlnet", "DALLE", "Glide", "Lafite", "stable-diffusion", "Unidiffuser")


def write(path: Path, *lines: str, newline: str = "\n", bom: bool = False) -> Path:
    """Write a text file, its folders included."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((b"\xef\xbb\xbf" if bom else b"") + newline.join([*lines, ""]).encode())
    return path


def write_xlsx(path: Path, rows: Iterable[Sequence[Any]]) -> Path:
    """Write a spreadsheet of one sheet."""
    import openpyxl

    path.parent.mkdir(parents=True, exist_ok=True)
    book = openpyxl.Workbook()
    for row in rows:
        book.worksheets[0].append(list(row))
    book.save(path)
    return path


def write_mat(path: Path, variable: str, values: Sequence[float]) -> Path:
    """Write a MATLAB file with one column."""
    import numpy
    from scipy.io import savemat

    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {variable: numpy.array(values, dtype=float)[:, None]})
    return path


def images(folder: Path, names: Iterable[str]) -> None:
    """Write a file for each name; the readers only check that files exist."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"image " + name.encode())


def agiqa_1k(root: Path, extra: Iterable[Sequence[Any]] = ()) -> list[str]:
    """Write a little AGIQA-1K: two object-action pairs in two places and styles, by two generators."""
    rows: list[Sequence[Any]] = [("Image", "Prompt", "MOS")]
    for number, pair in enumerate(("bird, driving aircraft", "alien, wearing shirt")):
        for place, where in enumerate(("city", "wild")):
            for style, how in enumerate(("anime style", "realistic style")):
                generator = "dreamStudio" if number else "deepai"
                name = f"{generator}_{8 * number}_{9 * number}_{place}_{style}.jpg"
                score = 2.084115711537598 if name == "dreamStudio_8_9_1_1.jpg" else 1 + number + place / 2
                rows.append((name, f"{pair}, {where}, {how}", score))
    rows += list(extra)
    write_xlsx(root / "AIGC_MOS_Zscore.xlsx", rows)
    return [row[0] for row in rows[1:]]


def agiqa_3k(root: Path, groups: int = 6, newline: str = "\r\n") -> list[str]:
    """Write a little AGIQA-3K: two generators with dots in their names, two settings, some prompts."""
    settings = ("sd1.5_normal", "sd1.5_lowstep", "xl2.2_normal")
    lines, names = [AGIQA_3K_HEADER], []
    for group in range(groups):
        for number, setting in enumerate(settings):
            names.append(f"{setting}_{group:03d}.jpg")
            style = "" if group % 2 else "sci-fi style"
            scores = f"{0.5 + number + group / 10:.9f},0.25,{4 - number - group / 10:.9f},0.5"
            lines.append(f'{names[-1]},"prompt {group}, with a comma",,,{style},{scores}')
    write(root / "data.csv", *lines, newline=newline)
    return names


def aigciqa2023(root: Path, scale: float = 1.0) -> list[str]:
    """Write a little AIGCIQA2023 as one csv: six models, two prompts, four copies each."""
    prompts = ('"a corgi"', '"a cartoon of a dog saying "I see what you did there""')
    lines, names = ["model,image_name,mosz1,mosz2,mosz3,prompt"], []
    for number, model in enumerate(MODELS):
        for prompt, text in enumerate(prompts):
            for copy in range(1, 5):
                names.append(f"{model}/{prompt:03d}-{copy}.png")
                scores = [scale * (1.5 + target + number / 20 + copy / 100) for target in (0.0, 0.3, 0.6)]
                quoted = '"' + text.replace('"', '""') + '"'
                lines.append(f"{model},{prompt:03d}-{copy}.png,{scores[0]},{scores[1]},{scores[2]},{quoted}")
    write(root / "all_set.csv", *lines)
    return names


def aigciqa2023_mat(root: Path, names: Sequence[str]) -> list[float]:
    """Write the official pieces for these images: .mat scores and deviations, pic-index, prompts without header."""
    values = [30.0 + i for i in range(len(names))]
    for target in (1, 2, 3):
        write_mat(root / f"DATA/MOS/mosz{target}.mat", "MOSz", [v + target / 10 for v in values])
        write_mat(root / f"DATA/STD/SD{target}.mat", "SD", [9.0 + target] * len(names))
    write_xlsx(root / "pic-index.xlsx", [name.split("/") for name in names])
    prompts = [("Basic", "Animals", "a corgi"), ("Complex", "People", 'a cartoon of a dog saying "I see"')]
    write_xlsx(root / "AIGCIQA2023_Prompts.xlsx", prompts)
    return values


def aigiqa_20k(root: Path) -> list[str]:
    """Write a little AIGIQA-20K: the official train file twice, val prompts and scores in two files, test scores."""
    train = ["DALLE2_0000.png", "LCM_SD1.5_0000.png", "LCM_SD1.5_0001.png", "SD1.5_0000.png"]
    prompts = ["a cat", "a cat", '"a saint\\\'s halo, dark"', "a dog"]
    body = [f"{name},{text},{2 + i / 8}" for i, (name, text) in enumerate(zip(train, prompts, strict=True))]
    write(root / "info_train_no_header.csv", *body)
    write(root / "info_train_with_header.csv", "name,prompt,mos", *body)
    write(root / "info_val_no_header.csv", "SD1.5_0001.png,a red house", "SD1.5_0002.png,A  Cat")
    header = "impath,mos,label,classname"
    folder = "/somewhere/else/AIGCQA-30K"
    write(root / "train.csv", header, *[f"{folder}/train/{n},{2 + i / 8},5,perfect" for i, n in enumerate(train)])
    write(
        root / "val.csv", header, f"{folder}/val/SD1.5_0001.png,4.5,5,perfect", f"{folder}/val/SD1.5_0002.png,4,5,good"
    )
    write(root / "test.csv", header, f"{folder}/test/MJ_0001.png,0.125,1,bad")
    return [*train, "SD1.5_0001.png", "SD1.5_0002.png", "MJ_0001.png"]


def pku_aigiqa_4k(root: Path, first: Sequence[str] = ()) -> list[str]:
    """Write a little PKU-AIGIQA-4K: two generators, two prompt ids that share one text, four copies each."""
    lines, names = ["Image_prompt,Text_prompt,Generated_image,MOS_q,MOS_a,MOS_c,MOS", *first], []
    for number, generator in enumerate(("SD", "MJ")):
        for prompt in (1099, 1196):
            for copy in ("00", "01", "10", "11"):
                names.append(f"{generator}_{prompt}_{copy}.jpg")
                q, a, c = 2.5 + number, 2.25 + number, 3.5
                lines.append(f',"there is a clock, on a table",{names[-1]},{q},{a},{c},{q + a + c}')
    write(root / "full.csv", *lines, newline="\r\n", bom=True)
    return names
