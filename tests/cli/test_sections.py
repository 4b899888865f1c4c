"""Flags in sections of ``--help``: each once, none under a name that no command has."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from mst_clipiqa import cli
from mst_clipiqa.cli.sections import SECTIONS, SectionedCommand


def commands() -> dict[str, click.Command]:
    context = click.Context(cli.group)
    return {name: found for name in cli.COMMANDS if (found := cli.group.get_command(context, name))}


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_flag_is_listed_once_and_says_only_what_is_true(name: str) -> None:
    command, lines = commands()[name], CliRunner().invoke(cli.group, [name, "--help"]).output.splitlines()
    assert isinstance(command, click.Group | SectionedCommand)
    flags = [param.opts[-1] for param in command.params if isinstance(param, click.Option) and not param.hidden]
    listed = lines[lines.index("Options:") :]  # above them, a sentence may begin a line with a flag
    begins = [word.rstrip(",") for line in listed if line.startswith("  -") for word in line.split()[:2]]
    assert all(begins.count(flag) == 1 for flag in flags)
    assert "None" not in "".join(lines) and "(32" not in "".join(lines)


def test_shared_flags_come_after_those_of_the_command() -> None:
    words = CliRunner().invoke(cli.group, ["filter", "--help"]).output
    order = ["Options:", "--min-quality", "--yes", "Images and prompts:", "--prompts", "Model and speed:", "--device"]
    places = [words.index(f"\n{one}" if one.endswith(":") else f"\n  {one} ") for one in order]
    assert places == sorted(places)


def test_every_name_in_a_section_is_a_flag_of_some_command() -> None:
    known = {param.name for command in commands().values() for param in command.params}
    assert set().union(*SECTIONS.values()) <= known
