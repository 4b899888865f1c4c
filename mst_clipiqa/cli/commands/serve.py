"""``mst-clipiqa serve``: scores over HTTP, and a page."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from mst_clipiqa.cli.commands._from_flags import load_scorer
from mst_clipiqa.cli.commands._options import granularity_option, model_options, service_options, stack
from mst_clipiqa.cli.sections import SectionedCommand
from mst_clipiqa.errors import UsageError, missing
from mst_clipiqa.serve.settings import Limits, Settings

_LIMITS = (
    ("--max-mb", 32.0, "Largest request body in MB."),
    ("--max-megapixels", 50.0, "Largest image in megapixels."),
    ("--max-images", 64, "Most images per request."),
    ("--max-waiting", 256, "Most scores waiting, over all clients."),
    ("--max-held-mb", 256.0, "Most MB of request bodies in memory, over all clients."),
    ("--max-connections", 512, "Most open connections."),
    ("--timeout", 30.0, "Seconds to receive a request, and as many again to respond."),
)
_HIGHEST = 1e12  # of any of these that is no whole number


def _limit(name: str, value: float, text: str) -> Callable[[Any], Any]:
    kind = click.IntRange(min=1) if isinstance(value, int) else click.FloatRange(min=0, min_open=True)
    return click.option(name, type=kind, default=value, show_default=True, help=text)


@click.command("serve", cls=SectionedCommand)
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address to listen on; only a local one needs no --token."
)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="Port; 0 picks a free one."
)
@model_options
@click.option(
    "--token", envvar="MST_CLIPIQA_TOKEN", help="Token that clients must send; also set by MST_CLIPIQA_TOKEN."
)
@stack(*(_limit(*limit) for limit in _LIMITS))
@service_options
@granularity_option
def command(host: str, port: int, model: str, token: str | None, **flags: Any) -> None:
    """Serve a web page and an HTTP service for scoring images, until Ctrl-C.

    The command prints the address of the page; /docs there describes the HTTP interface. Nothing is written to disk
    except cached features, if you name a cache folder. Needs the extra "serve".
    """
    try:
        from mst_clipiqa.serve.run import address_of, check_open, listen, serve
    except ModuleNotFoundError as error:
        raise missing(error.name or "", "serve") from error

    settings = _settings(host, port, token, flags)
    check_open(settings)
    with listen(settings) as listener:  # before the model, which takes longer to load
        scorer = load_scorer({"model": model, **flags})
        where = address_of(listener)
        serve(
            scorer, settings, listener, lambda: click.echo(f"Serving {model} at {where} (Ctrl-C stops it).", err=True)
        )


def _settings(host: str, port: int, token: str | None, flags: dict[str, Any]) -> Settings:
    for name, usual, _ in _LIMITS:
        value = flags[name.removeprefix("--").replace("-", "_")]
        if isinstance(value, float) and not value <= _HIGHEST:  # nor is nan
            raise UsageError(f"Expected a number up to {_HIGHEST:g} for {name}, got {value:g}: omit it for {usual:g}.")
    limits = Limits(
        max_bytes=int(flags["max_mb"] * 2**20),
        max_pixels=int(flags["max_megapixels"] * 1e6),
        max_images=flags["max_images"],
        max_waiting=flags["max_waiting"],
        max_held=int(flags["max_held_mb"] * 2**20),
        max_connections=flags["max_connections"],
        seconds=flags["timeout"],
    )
    return Settings(host, port, token, limits)
