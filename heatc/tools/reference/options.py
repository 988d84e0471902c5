"""docs/reference/options.md: every option of every command, read from its parser."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from importlib import import_module

from heatc.tools.reference.markdown import code, head, prose, table
from heatc.tools.tune_commands import COMMANDS

TOOLS = {
    "heatc": "heatc.tools.main",
    "heatc-opt": "heatc.tools.opt",
    **{f"heatc-tune {name}": command.module for name, command in COMMANDS.items()},
    "heatc-export": "heatc.tools.export",
    "hdp-run": "heatc.tools.run",
    "heatc-report": "heatc.tools.report",
    "hdp-objdump": "heatc.tools.objdump",
    "hdp-as": "heatc.tools.assemble",
}
"""The module of each command, whose `make_parser()` has its options."""

_TEXT = """\
Options are never abbreviated. Every command also takes `--help`, `--version` and `--debug`."""

_COMMON = {"--help", "--version", "--debug"}


def parser_of(tool: str) -> argparse.ArgumentParser:
    """The options of a command."""
    make: Callable[[], argparse.ArgumentParser] = import_module(TOOLS[tool]).make_parser
    return make()


def render() -> str:
    """The text of the page."""
    return "\n".join([head("Options", _TEXT), *map(_section, TOOLS)])


def _section(tool: str) -> str:
    parser = parser_of(tool)
    parts = [f"## {tool}\n", _description(parser.description or "")]
    for group in parser._action_groups:  # pyright: ignore[reportPrivateUsage]
        actions = [a for a in group._group_actions if not _COMMON & set(a.option_strings)]  # pyright: ignore[reportPrivateUsage]
        if not actions:
            continue
        if group.title not in ("positional arguments", "options"):
            parts.append(f"### {tool}: {group.title}\n")
            parts.append(prose(group.description) if group.description else "")
        parts.append(table(("option", "value", "meaning"), map(_row, actions)))
    return "\n".join(part for part in parts if part)


def _description(text: str) -> str:
    """The first paragraphs as prose, what is indented as it stands."""
    return prose("\n".join(_with_space(text.strip().splitlines())))


def _with_space(lines: list[str]) -> Iterator[str]:
    """Markdown takes indented lines for code after an empty line alone."""
    before = ""
    for line in lines:
        if line.startswith("    ") and before and not before.startswith("    "):
            yield ""
        before = line
        yield line


def _row(action: argparse.Action) -> tuple[str, str, str]:
    names = ", ".join(map(code, action.option_strings)) or code(str(action.metavar or action.dest))
    return names, _value(action), _meaning(action)


def _value(action: argparse.Action) -> str:
    if action.nargs == 0:
        return ""
    if action.choices is not None:
        return ", ".join(code(str(choice)) for choice in action.choices)
    return code(str(action.metavar or action.dest.upper())) if action.option_strings else ""


def _meaning(action: argparse.Action) -> str:
    text = " ".join((action.help or "").split()).replace("%%", "%")
    if "%(default)s" in text:
        text = text.replace("%(default)s", str(action.default))
    return text
