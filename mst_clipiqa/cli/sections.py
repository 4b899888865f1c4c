"""A command whose ``--help`` lists the flags that many commands share in sections of their own."""

from __future__ import annotations

import click

_LISTING_FLAGS = """recursive prompt prompts prompts_from file_column prompt_column negative negative_from reference
control frame keep_metadata"""
_MODEL_FLAGS = """model encoders text_encoder device precision merge batch_size workers cache color max_pixels backend
granularity granularity_check fast_decode"""
SECTIONS = {
    "Options": set[str](),
    "Images and prompts": set(_LISTING_FLAGS.split()),
    "Model and speed": set(_MODEL_FLAGS.split()),
}
"""Heading -> names of its parameters; all others come under the first."""


class SectionedCommand(click.Command):
    """A command with sections in its ``--help``; within one, flags keep their order."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write every flag into its section; empty sections are left out."""
        lines: dict[str, list[tuple[str, str]]] = {heading: [] for heading in SECTIONS}
        for param in self.get_params(ctx):
            if isinstance(param, click.Option) and (record := param.get_help_record(ctx)):
                found = (heading for heading, names in SECTIONS.items() if param.name in names)
                lines[next(found, "Options")].append(record)
        for heading, records in lines.items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)
