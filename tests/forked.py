"""Processes for a test to kill or to run side by side, forked from one that has imported what they need.

A process that imports it all anew takes seconds; a fork of the tests' own would inherit torch's threads.
"""

from __future__ import annotations

import io
import multiprocessing
from collections.abc import Callable
from contextlib import redirect_stdout
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from typing import Any

import torch

_IMPORTED = ["mst_clipiqa.benchmark.runs", "speed.kill_cache", "speed.kill_score", "tests.features.elsewhere"]


def context() -> ForkServerContext:
    """Return what starts processes that have imported what they need, and otherwise begin as spawned ones do."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(_IMPORTED)
    return found


def started(work: Callable[..., None], *args: Any) -> tuple[BaseProcess, Connection]:
    """Start ``work(*args, sender)`` in a process; return it, and the end that receives what it sends.

    Args:
        work: a function of a module that imports little more than it needs.
        args: what it gets, pickled.
    """
    forking = context()
    receiver, sender = forking.Pipe(duplex=False)
    process = forking.Process(target=work, args=(*args, sender))
    process.start()
    sender.close()
    return process, receiver


def answer(main: Callable[[list[str]], int], *arguments: str) -> tuple[int, str]:
    """Return the exit code and the standard output of a script's ``main`` that runs, and forks, in a process."""
    process, answers = started(_answer, main, arguments)
    code, said = answers.recv()
    process.join()
    return code, said


def _answer(main: Callable[[list[str]], int], arguments: tuple[str, ...], sender: Connection) -> None:
    torch.set_num_threads(1)  # so that one batch is encoded at a time, however many cores there are
    with redirect_stdout(io.StringIO()) as said:
        code = main([*arguments])
    sender.send((code, said.getvalue()))
