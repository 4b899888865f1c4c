"""The command ``mst-clipiqa``: one group of commands, each imported only when it is called.

Exit codes: 0 success, 1 some images or rows failed (the command says so), 2 wrong usage or an input that stops the
work, 3 a condition of gate or drift does not hold or an adapted model is no better, 130 interrupted, 141 the reader of
our output went away. A command answers with its exit code, or None for 0.
"""

from __future__ import annotations

import errno
import gc
import importlib
import io
import os
import sys
from contextlib import suppress
from pathlib import Path

import click

from mst_clipiqa._version import __version__
from mst_clipiqa.errors import MstClipiqaError, disk_advice, nearest, shown

_INTERRUPTED = 130  # the exit code

# name -> its line in `--help`. commands/<name>.py (- as _) defines `command`; a test keeps table and folder in step.
COMMANDS = {
    "score": "Score images for quality and for correspondence to their prompt.",
    "score-cluster": "Score images on a Ray cluster, each exactly once.",
    "rank": "Sort images, best first.",
    "pick": "Keep the best images of each prompt.",
    "filter": "List, copy or move the images with high enough scores.",
    "explain": "Explain why an image got its score.",
    "compare": "Tell which of two images is better, and how certain that is.",
    "drift": "Tell whether new scores differ from old ones.",
    "compare-settings": "Tell what a generation setting changed, prompt by prompt.",
    "gate": "Check scores against conditions, for scripts and CI.",
    "report": "Write scores and images as one page for a browser.",
    "serve": "Serve a web page and an HTTP service for scoring.",
    "data": "Check a rated set before you use it.",
    "train": "Train a model on a rated set or on pairs.",
    "adapt": "Adapt a model to other images without their ratings.",
    "evaluate": "Measure how well a model agrees with human ratings.",
    "benchmark": "Train and test on many splits; compare with published results.",
    "compare-results": "Tell whether one benchmark result beats another.",
    "convert": "Convert a checkpoint of the published code to a model folder.",
    "export": "Export a model's image encoders to ONNX Runtime.",
    "calibrate": "Measure how much of an image a model needs to see.",
    "cache": "Show, check or empty the feature cache.",
}


class CommandGroup(click.Group):
    """A group that lists its commands from a table and imports only the one that is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command; None if there is no such command."""
        if cmd_name not in COMMANDS:
            return None
        command = importlib.import_module(_module(cmd_name)).command
        if not isinstance(command, click.Command):
            raise TypeError(f"{_module(cmd_name)}.command is not a click command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that the arguments begin with; an error for an unknown one names the nearest."""
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            hint = nearest(args[0], COMMANDS) or f"; the commands are: {', '.join(COMMANDS)}"
            raise click.UsageError(f"There is no command {args[0]!r}{hint}.", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table into ``--help``, without importing any command."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> object:
        """Run the command, and turn an error into one line and an exit code."""
        try:
            code = super().invoke(ctx)
            sys.stdout.flush()  # here and not at exit, where a broken pipe can no longer be caught
        except MstClipiqaError as error:
            click.echo(f"Error: {error}", err=True)
            ctx.exit(2)
        except KeyboardInterrupt:
            click.echo("Interrupted.", err=True)
            ctx.exit(_INTERRUPTED)
        except OSError as error:
            if _is_broken_pipe(error):
                _forget_stdout()
                ctx.exit(141)
            # A path that is too long, a folder without permission.
            wanted = f"a file or folder that can be used, got {shown(error.filename)}"
            wanted = wanted if error.filename else "to be able to read and write, got a system error"
            advice = f": {found}" if (found := disk_advice(error)) else ""
            click.echo(f"Error: Expected {wanted} ({error.strerror or error}){advice}.", err=True)
            ctx.exit(2)
        ctx.exit(code if isinstance(code, int) else 0)


def _module(command: str) -> str:
    return f"mst_clipiqa.cli.commands.{command.replace('-', '_')}"


def _is_broken_pipe(error: OSError) -> bool:
    """Return whether the reader of our output went away, for which Windows has another name."""
    is_nameless = error.errno == errno.EINVAL and error.filename is None
    return isinstance(error, BrokenPipeError) or (os.name == "nt" and is_nameless)


def _replace_closed() -> None:
    """Open the null device for streams that the caller has closed, so that no file gets their descriptor."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 - open to the end


class _Messages(io.TextIOWrapper):
    """Stderr as far as it can be written: a full disk or a reader that went away loses messages, never the run."""

    def write(self, text: str, /) -> int:
        """Write a message; its length."""
        with suppress(OSError):
            super().write(text)
        return len(text)

    def flush(self) -> None:
        """Write what is buffered."""
        with suppress(OSError):
            super().flush()


def _keep_running_without_stderr() -> None:
    """Let no message that cannot be written end the run or change its exit code."""
    if isinstance(stderr := sys.stderr, io.TextIOWrapper):
        sys.stderr = _Messages(stderr.buffer, stderr.encoding, stderr.errors, line_buffering=True)


def _escape_what_cannot_be_written() -> None:
    """Let stdout write what its encoding lacks, and names that are not Unicode, as escapes, as stderr does."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _forget_stdout() -> None:
    """Point stdout at /dev/null, so that the interpreter's last flush does not fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@click.group(cls=CommandGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="mst-clipiqa")
def group() -> None:
    """Score generated images: how good they look, and how well they show their prompt.

    Data goes to stdout, progress to stderr. Exit codes: 0 success, 1 some images or rows failed, 2 wrong usage,
    3 a condition does not hold (gate, drift --fail-if-worse) or the adapted model is no better (adapt).
    """


def main() -> None:
    """Run the command line; this is the entry point of the script ``mst-clipiqa``."""
    # Pillow then keeps up to 32 MB of freed memory for the next images. Without it, each decode allocates from the
    # system, which costs a third of the decoding time.
    os.environ.setdefault("PILLOW_BLOCK_SIZE", "4m")
    os.environ.setdefault("PILLOW_BLOCKS_MAX", "8")
    _replace_closed()
    _keep_running_without_stderr()
    _escape_what_cannot_be_written()
    try:
        group(prog_name="mst-clipiqa")
    except SystemExit as end:
        if end.code == _INTERRUPTED:  # all files are closed by now; only threads are left, and none is waited for
            for stream in (sys.stdout, sys.stderr):
                with suppress(OSError, ValueError):  # a reader that went away
                    stream.flush()
            os._exit(_INTERRUPTED)
        raise
    finally:
        gc.freeze()  # else the interpreter goes through all objects of torch before it ends
