"""The shell around the commands: light start, one-line errors, exit codes."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import click
import pytest
from click.testing import CliRunner, Result

import mst_clipiqa
from mst_clipiqa import cli
from mst_clipiqa.errors import DataError
from mst_clipiqa.scoring.scorer import Scorer

HEAVY = "{'torch', 'transformers', 'numpy', 'scipy', 'PIL'}"
EXAMPLES = Path(__file__).parents[2] / "examples"
Run = Callable[[Callable[[], object]], Result]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Put a body behind the command ``try``, and run it."""

    def with_body(body: Callable[[], object]) -> Result:
        module = ModuleType("mst_clipiqa.cli.commands.try")
        module.command = click.Command("try", callback=body)  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setitem(cli.COMMANDS, "try", "A command for a test.")
        return CliRunner().invoke(cli.group, ["try"])

    return with_body


def _python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **environment}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=env)


@pytest.mark.parametrize(
    "args", [["--help"], ["--version"], *([name, "--help"] for name in cli.COMMANDS)], ids=" ".join
)
def test_help_imports_nothing_heavy(args: list[str]) -> None:
    code = f"import sys; from mst_clipiqa.cli import group; group({args}, standalone_mode=False)"
    done = _python(f"{code}; print({HEAVY} & set(sys.modules))")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "set()"


@pytest.mark.parametrize("command", ["rank", "pick", "filter"])
def test_commands_that_only_read_a_table_import_nothing_heavy(command: str, tmp_path: Path) -> None:
    (tmp_path / "scores.csv").write_text("file,quality,prompt,familiarity,status\na.png,3.5,a cat,0.01,ok\n")
    args = [command, str(tmp_path / "scores.csv"), "-o", str(tmp_path / "out.csv")]
    done = _python(
        f"import sys; from mst_clipiqa.cli import group; group({args}, standalone_mode=False);"
        f"print({HEAVY} & set(sys.modules))"
    )
    assert "1 of 1 images is unlike" in done.stderr  # all of its work was done
    assert done.stdout.splitlines()[-1] == "set()"


def test_no_garbage_is_collected_while_a_model_is_loaded_nor_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []

    def load(*_: object) -> None:
        seen.append(gc.isenabled())
        raise DataError("Expected nothing.")

    monkeypatch.setattr(Scorer, "load", load)
    monkeypatch.setattr(sys, "argv", ["mst-clipiqa", "score", str(EXAMPLES)])
    monkeypatch.setattr(gc, "freeze", lambda: seen.append("frozen"))
    with pytest.raises(SystemExit):
        cli.main()
    assert seen == [False, "frozen", "frozen"]  # after loading, and at the end
    assert gc.isenabled()  # again


def test_a_quiet_command_imports_no_progress_bar() -> None:
    code = "import sys; from mst_clipiqa.cli.progress import progress"
    done = _python(f"{code}\nwith progress('x', quiet=True) as advance: advance(1)\nprint('rich' in sys.modules)")
    assert done.stdout.strip() == "False", done.stderr


def test_the_table_of_commands_is_the_folder_of_commands() -> None:
    files = {path.stem for path in (Path(cli.__file__).parent / "commands").glob("[!_]*.py")}
    assert {command.replace("-", "_") for command in cli.COMMANDS} == files, "cli.COMMANDS and commands/ differ"


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_loads_and_says_what_it_does(command: str) -> None:
    result = CliRunner().invoke(cli.group, [command, "--help"], prog_name="mst-clipiqa")
    assert result.exit_code == 0
    assert result.output.startswith(f"Usage: mst-clipiqa {command} ")


def test_help_lists_every_command_in_order() -> None:
    output = CliRunner().invoke(cli.group, ["--help"]).output
    places = [output.index(f"\n  {command}") for command in cli.COMMANDS]
    assert places == sorted(places)


def test_version() -> None:
    output = CliRunner().invoke(cli.group, ["--version"]).output
    assert output == f"mst-clipiqa, version {mst_clipiqa.__version__}\n"


def test_an_unknown_command_names_the_nearest() -> None:
    result = CliRunner().invoke(cli.group, ["scroe", "x.png"])
    assert result.exit_code == 2
    assert "There is no command 'scroe' (did you mean 'score'?)." in result.stderr


def test_an_unknown_command_without_a_neighbour_lists_all() -> None:
    result = CliRunner().invoke(cli.group, ["qqqq"])
    assert result.exit_code == 2
    assert "There is no command 'qqqq'; the commands are: score" in result.stderr


def test_an_unknown_flag_is_wrong_usage() -> None:
    result = CliRunner().invoke(cli.group, ["--verison"])
    assert result.exit_code == 2
    assert "--verison" in result.stderr


def test_no_arguments_show_the_help() -> None:
    result = CliRunner().invoke(cli.group, [])
    assert "Commands:" in result.output


@pytest.mark.parametrize(("answer", "code"), [(None, 0), (0, 0), (1, 1)])
def test_a_command_answers_with_its_exit_code(run: Run, answer: int | None, code: int) -> None:
    assert run(lambda: answer).exit_code == code


def test_a_command_may_leave_through_its_context(run: Run) -> None:
    assert run(lambda: click.get_current_context().exit(1)).exit_code == 1


def test_our_errors_are_one_line_on_stderr(run: Run) -> None:
    def body() -> None:
        raise DataError("Expected 3 columns, got 2: name the file's header.")

    result = run(body)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "Error: Expected 3 columns, got 2: name the file's header.\n"


def test_a_bug_keeps_its_traceback(run: Run) -> None:
    def body() -> None:
        raise ZeroDivisionError("a bug")

    assert isinstance(run(body).exception, ZeroDivisionError)


def test_an_interrupt_is_one_line(run: Run) -> None:
    def body() -> None:
        raise KeyboardInterrupt

    result = run(body)
    assert (result.exit_code, result.stdout, result.stderr) == (130, "", "Interrupted.\n")


def test_an_interrupt_waits_for_no_thread_and_loses_no_output() -> None:
    code = """
import threading, time
from mst_clipiqa import cli
def command(prog_name):
    threading.Thread(target=time.sleep, args=(50,)).start()
    print("a row")
    raise SystemExit(130)
cli.group = command
cli.main()
"""
    began = time.monotonic()
    done = _python(code)
    assert (done.returncode, done.stdout) == (130, "a row\n"), done.stderr
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("size", [10, 1_000_000], ids=["fits a buffer", "fits no buffer"])
def test_a_reader_that_goes_away_is_no_error(size: int) -> None:
    code = f"""
import sys, types, click
from mst_clipiqa import cli
def body():
    sys.stdin.read()
    sys.stdout.write("x" * {size})
module = types.ModuleType("mst_clipiqa.cli.commands.try")
module.command = click.Command("try", callback=body)
sys.modules[module.__name__] = module
cli.COMMANDS["try"] = ""
sys.argv = ["mst-clipiqa", "try"]
cli.main()
"""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], env=env, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        if process.stdin is None or process.stdout is None or process.stderr is None:
            raise RuntimeError("no pipes")
        process.stdout.close()
        process.stdin.close()  # only now does the command write
        stderr = process.stderr.read()
    assert (process.returncode, stderr) == (141, b"")


def test_what_an_encoding_lacks_is_written_as_an_escape(tmp_path: Path) -> None:
    code = "import sys; from mst_clipiqa import cli; sys.argv = ['', '--version']\ntry: cli.main()\nexcept SystemExit: "
    done = _python(code + r"print('e\u0301\U0001f600\udcff')", PYTHONIOENCODING="ascii:strict")
    assert done.stdout.splitlines()[-1] == r"e\u0301\U0001f600\udcff", done.stderr


def test_the_module_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "mst_clipiqa", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout.split(",")[0]) == (0, "mst-clipiqa")


def test_a_path_that_the_system_refuses_is_one_line(run: Run) -> None:
    def body() -> None:
        Path("a" * 300).is_dir()

    done = run(body)
    assert done.exit_code == 2
    assert done.stderr.startswith("Error: Expected a file or folder that can be used, got 'aaa")
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")
@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&-"])
def test_a_closed_stream_is_no_traceback_and_no_damage(closed: str, tmp_path: Path) -> None:
    (tmp_path / "scores.csv").write_text("file,quality\na.png,1\nb.png,\n")
    command = f"{sys.executable} -m mst_clipiqa rank scores.csv -o ranked.csv {closed}"
    environment = {**os.environ, "PYTHONPATH": str(Path(mst_clipiqa.__file__).parents[1])}
    done = subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout) == (1, "")  # a row was left out
    assert "Traceback" not in done.stderr
    assert (tmp_path / "ranked.csv").read_text() == "file,quality,rank\na.png,1,1\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize("stderr", ["2> /dev/full", "2> >(true)", "2>&1 > /dev/null | true"])
def test_messages_that_cannot_be_written_change_no_exit_code(stderr: str, tmp_path: Path) -> None:
    (tmp_path / "scores.csv").write_text("file,quality\na.png,1\nb.png,\n")  # one row is left out, which is said
    main = "import time; from mst_clipiqa.cli import main; time.sleep(0.2); main()"  # the reader has gone by then
    command = f"{sys.executable} -c '{main}' rank scores.csv -o ranked.csv {stderr}; exit ${{PIPESTATUS[0]}}"
    environment = {**os.environ, "PYTHONPATH": str(Path(mst_clipiqa.__file__).parents[1])}
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (1, "")
    assert (tmp_path / "ranked.csv").read_text() == "file,quality,rank\na.png,1,1\n"
    (tmp_path / "scores.csv").unlink()
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert done.returncode == 2


def test_a_system_error_without_a_file_is_said(run: Run) -> None:
    def full() -> None:
        raise OSError(28, "No space left on device")

    assert run(full).stderr == (
        "Error: Expected to be able to read and write, got a system error (No space left on device): free some space.\n"
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_stdout_says_what_helps(tmp_path: Path) -> None:
    (tmp_path / "scores.csv").write_text("file,quality\na.png,1\n")
    command = f"{sys.executable} -m mst_clipiqa rank scores.csv > /dev/full"
    environment = {**os.environ, "PYTHONPATH": str(Path(mst_clipiqa.__file__).parents[1])}
    done = subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert done.returncode == 2
    assert "(No space left on device): free some space.\n" in done.stderr


def test_an_option_that_commands_share_is_described_in_one_way() -> None:
    names = ["--device", "--precision", "--merge", "--batch-size", "--workers", "--color", "--granularity", "--frames"]
    names += ["--text-encoder", "--prompts-from", "--file-column", "--prompt-column", "--recursive", "--pair-by"]
    found: dict[str, set[object]] = {name: set() for name in names}
    for name in cli.COMMANDS:
        command = cli.group.get_command(None, name)  # type: ignore[arg-type]
        for option in [] if command is None else command.params:
            if isinstance(option, click.Option) and option.opts[0] in found:
                found[option.opts[0]].add((option.help, repr(option.default), str(option.show_default)))
    assert {name: texts for name, texts in found.items() if len(texts) != 1} == {}
