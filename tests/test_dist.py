"""What people install: the sdist and the wheel, each built, installed on its own, and asked for a score.

Run by ``make dist-check``, because building takes longer than the rest of the suite should wait. The packages that ours
needs are lent by the environment that runs the tests.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email.message import Message
from email.parser import BytesParser
from pathlib import Path

import pytest

import mst_clipiqa

pytestmark = pytest.mark.dist
ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = "Scripts" if os.name == "nt" else "bin"


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """Run a command without this checkout on its path; return its output, or fail with what it printed."""
    variables = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MST_CLIPIQA_CACHE")}
    done = subprocess.run([str(part) for part in command], cwd=cwd, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Build the sdist from the checkout, and the wheel from the sdist."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", folder, ROOT)
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return {"sdist": sdist, "wheel": wheel}


def names_in_sdist(sdist: Path) -> set[str]:
    with tarfile.open(sdist) as archive:
        return {member.name.partition("/")[2] for member in archive if member.isfile()}


def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return BytesParser().parsebytes(archive.read(name))


def test_the_sdist_holds_every_file_of_the_checkout(built: dict[str, Path]) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    tracked = set(run("git", "ls-files", "-z", cwd=ROOT).rstrip("\0").split("\0"))
    there = {name for name in tracked if (ROOT / name).is_file()}
    assert there - names_in_sdist(built["sdist"]) == set()


def test_the_sdist_holds_nothing_that_was_built(built: dict[str, Path]) -> None:
    names = names_in_sdist(built["sdist"])
    assert [n for n in sorted(names) if n.endswith(".pyc") or n.startswith((".venv", "docs/_build", "dist/"))] == []


def test_the_wheel_holds_the_package_and_nothing_else(built: dict[str, Path]) -> None:
    with zipfile.ZipFile(built["wheel"]) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
    inside = {name for name in names if name.startswith("mst_clipiqa/")}
    assert {name.split("/")[0] for name in set(names) - inside} == {f"mst_clipiqa-{mst_clipiqa.__version__}.dist-info"}
    package = ROOT / "mst_clipiqa"
    files = {path for path in package.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    assert inside == {path.relative_to(ROOT).as_posix() for path in files}


def test_the_metadata_says_what_people_search_for(built: dict[str, Path]) -> None:
    said = metadata(built["wheel"])
    assert said["Version"] == mst_clipiqa.__version__
    assert said["License-Expression"] == "Apache-2.0"
    assert set(said.get_all("License-File", [])) == {"LICENSE", "NOTICE"}
    assert said["Author"]
    assert said["Keywords"]
    assert said["Description-Content-Type"] == "text/markdown"
    assert "arxiv.org" in said["Project-URL"]


def test_an_index_would_take_both(built: dict[str, Path]) -> None:
    run(sys.executable, "-m", "twine", "check", "--strict", *built.values())


@pytest.mark.parametrize("kind", ["sdist", "wheel"])
def test_it_installs_on_its_own_and_scores(kind: str, built: dict[str, Path], tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", venv)
    python = venv / SCRIPTS / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", built[kind])
    packages = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    # A line of a .pth file only extends the path: an editable installation in that folder is not activated.
    lent = [folder for folder in sys.path if Path(folder).name == "site-packages"]
    (packages / "lent.pth").write_text("\n".join(lent), encoding="utf-8")
    shutil.copy(ROOT / "examples" / "red_ball.png", tmp_path)
    where = run(python, "-c", "import mst_clipiqa; print(mst_clipiqa.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(packages)
    command = venv / SCRIPTS / "mst-clipiqa"
    row = json.loads(run(command, "score", "red_ball.png", "--prompt", "a red ball", "--json", cwd=tmp_path))
    assert (row["status"], row["model"]) == ("ok", "mini")
    assert 0 < row["quality"] < 5
    assert 0 < row["correspondence"] < 5
