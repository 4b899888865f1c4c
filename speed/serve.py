"""The server under 64 clients at once, beside ``score`` on a folder of the same images, on the same machine.

    python -m speed.serve [--turns 40] [-o FILE]

Each client sends one image with its prompt, waits for the answer, and sends the next; a 503 makes it wait as long as
Retry-After says. Every answered score is compared with the command's row for the file. ``score`` runs in a process of
its own over the same files. The two take turns, so that a machine that slows down slows both; the share is the median
over turns, starts are left out, and whichever is not running waits. Clients and server share the cores.

Memory is the server's resident set. It goes up and down within a turn, with the batches and as the server returns what
it has freed, so that a line through all seconds depends on where the turns begin and end. So each turn counts once,
with its largest memory, and the line goes through the turns after the warm-up, which has pauses like the rest. A line
through few turns can have any slope, so its standard error is added before it is compared with the bar.

The result is JSON on stdout; the exit code is 1 where a bar is missed, unless -o writes it to a file.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from speed.machine import machine, report
from speed.resident import growth, watched

PROMPTS = ("a red ball on a table", "a photo of a cat", "a castle at night", "two dogs in the snow")
TOLERANCE = 1e-5
BARS = {"share_of_score": 0.9, "memory_mb_per_minute": 1.0}


@dataclass
class Tally:
    """What the clients saw."""

    answered: int = 0
    busy: int = 0
    wrong: int = 0
    largest_difference: float = 0.0
    elapsed: float = 0.0
    errors: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)


def draw(folder: Path, count: int, side: int) -> list[Path]:
    """Write images of soft and sharp blobs, JPEG and PNG by turns, as large as generators make them."""
    paths = []
    for i in range(count):
        rng = np.random.default_rng(i)
        small = rng.integers(0, 255, (side // 32, side // 32, 3), dtype=np.uint8)
        image = Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC)
        image = image.filter(ImageFilter.GaussianBlur(i % 5))
        path = folder / f"{i:04}.{'jpg' if i % 2 else 'png'}"
        image.save(path)
        paths.append(path)
    return paths


def score(folder: Path) -> tuple[list[dict[str, Any]], Callable[[float], float]]:
    """Return the rows of the folder, scored in this process, and what measures images per second for some seconds."""
    from mst_clipiqa.scoring.score import ScoreRequest
    from mst_clipiqa.scoring.score_rows import to_row
    from mst_clipiqa.scoring.scorer import Scorer

    scorer = Scorer.load("mini")
    requests = [ScoreRequest[None](path, prompt_of(path)) for path in sorted(folder.iterdir())]
    rows = [to_row(one.image.name, one.prompt, found) for one, found in scorer.stream(requests)]

    def rate(seconds: float) -> float:
        start, count = time.perf_counter(), 0
        while count == 0 or time.perf_counter() - start < seconds:
            count += sum(1 for _ in scorer.many(requests))
        return count / (time.perf_counter() - start)

    return rows, rate


def score_on_demand(folder: Path) -> None:
    """Print the rows; then, for each number of seconds on stdin, the rate of so many seconds."""
    rows, rate = score(folder)
    print(json.dumps(rows), flush=True)
    for line in sys.stdin:
        print(rate(float(line)), flush=True)


def prompt_of(path: Path) -> str:
    return PROMPTS[int(path.stem) % len(PROMPTS)]


def request_of(path: Path) -> bytes:
    """Return a complete HTTP request, built once, so that the clients need little CPU."""
    part = '--x\r\nContent-Disposition: form-data; name="{}"{}\r\n\r\n'
    body = part.format("prompt", "").encode() + prompt_of(path).encode() + b"\r\n"
    body += part.format("image", f'; filename="{path.name}"').encode() + path.read_bytes() + b"\r\n--x--\r\n"
    head = f"POST /v1/score HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
    return (head + "Content-Type: multipart/form-data; boundary=x\r\n\r\n").encode() + body


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> tuple[int, str, bytes]:
    """Return status, head and body of a response."""
    writer.write(request)
    await writer.drain()
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    length = int(re.findall(r"content-length: (\d+)", head)[0])
    return int(head.split()[1]), head, await reader.readexactly(length)


async def client(port: int, work: list[tuple[bytes, dict[str, Any]]], end: float, tally: Tally) -> None:
    """Send requests until time is up; any response but a score or a 503 with Retry-After is an error."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    place = 0
    while time.perf_counter() < end:
        request, want = work[place % len(work)]
        start = time.perf_counter()
        try:
            status, head, body = await asyncio.wait_for(ask(reader, writer, request), 60)
        except (OSError, EOFError, TimeoutError) as error:
            tally.errors[type(error).__name__] += 1
            writer.close()
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            continue
        after = re.search(r"retry-after: (\d+)", head)
        if status == 503 and after:
            tally.busy += 1
            await asyncio.sleep(min(int(after[1]), max(0.0, end - time.perf_counter())))
        elif status == 200:
            place += 1
            tally.answered += 1
            tally.seconds.append(time.perf_counter() - start)
            check(json.loads(body)["results"][0], want, tally)
        else:
            tally.errors[f"{status} {body[:120]!r}"] += 1
    writer.close()


def check(got: dict[str, Any], want: dict[str, Any], tally: Tally) -> None:
    """Compare a response with the command's row."""
    same = all(got[name] == want[name] for name in ("file", "prompt", "status", "width", "height"))
    numbers = [(got[name], want[name]) for name in ("quality", "correspondence", "gate")]
    gaps = [0.0 if a is b is None else float("inf") if None in (a, b) else abs(a - b) for a, b in numbers]
    tally.largest_difference = max(tally.largest_difference, *gaps)
    tally.wrong += not same or max(gaps) > TOLERANCE


def together(tallies: list[Tally]) -> Tally:
    """Return what clients saw in all turns."""
    return Tally(
        answered=sum(one.answered for one in tallies),
        busy=sum(one.busy for one in tallies),
        wrong=sum(one.wrong for one in tallies),
        largest_difference=max(one.largest_difference for one in tallies),
        errors=sum((one.errors for one in tallies), Counter[str]()),
        seconds=[seconds for one in tallies for seconds in one.seconds],
    )


async def load(port: int, work: list[tuple[bytes, dict[str, Any]]], clients: int, seconds: float) -> Tally:
    """Let all clients send at once, each starting at a different image."""
    tally = Tally()
    start = time.perf_counter()
    end = start + seconds
    turns = [work[i * len(work) // clients :] + work[: i * len(work) // clients] for i in range(clients)]
    await asyncio.gather(*(client(port, turn, end, tally) for turn in turns))
    tally.elapsed = time.perf_counter() - start  # the last responses come after the end; they and the wait count
    return tally


@contextmanager
def server(log: Path) -> Iterator[tuple[int, int]]:
    """Run the command; yield its port and process."""
    command = [sys.executable, "-m", "mst_clipiqa", "serve", "--port", "0"]
    with log.open("w") as errors, subprocess.Popen(command, stderr=errors) as process:
        try:
            while not (found := re.search(r"http://[\d.]+:(\d+)", log.read_text())):
                if process.poll() is not None:
                    raise SystemExit(log.read_text())
                time.sleep(0.1)
            yield int(found[1]), process.pid
        finally:
            process.terminate()
            process.wait(60)


@contextmanager
def scoring(folder: Path) -> Iterator[tuple[list[dict[str, Any]], Callable[[float], float]]]:
    """Yield what ``score`` returns, done in a process of its own."""
    command = [sys.executable, "-m", "speed.serve", "--score", str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("Expected pipes to the process.")
        asked, answered = process.stdin, process.stdout

        def rate(seconds: float) -> float:
            print(seconds, file=asked, flush=True)
            return float(answered.readline())

        yield json.loads(answered.readline()), rate


async def measure(
    port: int, pid: int, work: list[Any], rate: Callable[[float], float], args: argparse.Namespace
) -> tuple[list[Tally], list[float], list[Any]]:
    """Return for each turn what clients saw, the rate of ``score``, and the largest memory of the server: when, MB."""
    samples: list[tuple[float, float]] = []
    tallies, alone, turns = [], [], []
    watch = asyncio.create_task(watched(pid, samples))
    for _ in range(args.warm_up + args.turns):
        samples.clear()
        tallies.append(await load(port, work, args.clients, args.seconds))
        alone.append(await asyncio.to_thread(rate, args.seconds))
        turns.append(max(samples, key=itemgetter(1)))
    watch.cancel()
    return tallies[args.warm_up :], alone[args.warm_up :], turns[args.warm_up :]


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Return what was measured."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "images"
        folder.mkdir()
        paths = draw(folder, args.images, args.side)
        with scoring(folder) as (rows, rate), server(Path(temporary) / "log") as (port, pid):
            work = [(request_of(path), row) for path, row in zip(paths, rows, strict=True)]
            return result(args, *asyncio.run(measure(port, pid, work, rate, args)))


def result(args: argparse.Namespace, tallies: list[Tally], alone: list[float], turns: list[Any]) -> dict[str, Any]:
    """Return the figures, the bars, and whether they are met."""
    slope, error = growth(turns)
    rates = [tally.answered / tally.elapsed for tally in tallies]
    tally = together(tallies)
    waits = np.quantile(tally.seconds, [0.5, 0.95, 0.99]).round(3).tolist() if tally.seconds else None
    found = {
        "clients": args.clients,
        "seconds": args.seconds * args.turns,
        "warm_up_seconds": 2 * args.seconds * args.warm_up,
        "images": args.images,
        "side": args.side,
        "answered": tally.answered,
        "busy_with_retry_after": tally.busy,
        "errors": sum(tally.errors.values()),
        "kinds_of_errors": list(tally.errors),
        "scores_not_equal": tally.wrong,
        "largest_difference": tally.largest_difference,
        "seconds_to_answer_50_95_99": waits,
        "memory_mb_by_turn": [round(mb, 1) for _, mb in turns],
        "memory_mb_per_minute": round(slope + error, 2),
        "memory_mb_slope_and_error": [round(slope, 2), round(error, 2)],
        "turns": args.turns,
        "images_per_second_serve": round(float(np.median(rates)), 2),
        "images_per_second_score": round(float(np.median(alone)), 2),
        "share_of_score": round(float(np.median(np.divide(rates, alone))), 3),
        "share_of_score_by_turn": np.divide(rates, alone).round(3).tolist(),
    }
    answered = tally.answered > 0 and not tally.errors and not tally.wrong
    good = answered and found["share_of_score"] >= BARS["share_of_score"]
    good = good and found["memory_mb_per_minute"] <= BARS["memory_mb_per_minute"]
    claim = (__doc__ or "").splitlines()[0].replace("``", "`")
    bars = {**BARS, "errors": 0, "scores_not_equal": 0}
    return {"claim": claim, **found, "bars": bars, "bars_met": good, "machine": machine()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=12, help="of each in a turn (12)")
    parser.add_argument("--turns", type=int, default=40)
    parser.add_argument("--warm-up", type=int, default=8, help="turns before anything counts (8)")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--score", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.turns < 3:
        parser.error(f"Expected at least 3 turns for a line through them, got {args.turns}: name more.")
    if args.score:
        score_on_demand(args.score)
        return 0
    found = run(args)
    report(found, args.output)
    return 0 if found["bars_met"] or args.output else 1


if __name__ == "__main__":
    sys.exit(main())
