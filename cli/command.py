"""Commands of the command line: ``-h`` and ``--version`` everywhere, near names of options, patterns without quotes."""

import gc
import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from cache.near_names import listed, near_names
from cache.version import mmer_version

HELP_NAMES = ["-h", "--help"]
VERSION = "--version"
JSON = "mmer.json"  # key in the context of a command: it prints JSON
SHOWN = 3  # file names in an error
YOUNG = 10_000  # new objects before the collector looks for garbage; imports create many more, and none is garbage


class _Process(click.Command):
    """A command that knows when it is a process of its own."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the command as its entry point does.

        A process that ends has no use for garbage: without the last collection, which walks through the objects of all
        modules, it ends sooner.
        """
        gc.set_threshold(YOUNG)
        try:
            return super().__call__(*args, **kwargs)
        finally:
            gc.freeze()


class Command(_Process):
    """Command with ``-h`` and ``--version``, whose errors of usage name the option or the pattern that was meant."""

    def __init__(self, name: str | None, *, params: list[click.Parameter] | None = None, **rest: Any) -> None:
        settings = {"help_option_names": HELP_NAMES, **(rest.pop("context_settings", None) or {})}
        super().__init__(name, params=with_version(params or []), context_settings=settings, **rest)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Reads the arguments; explains an unknown option and arguments that are left over."""
        ctx.meta[JSON] = "--json" in args  # a listing ends the command before options that follow it are read
        given, ctx.allow_extra_args = list(args), True  # what is left over is an error below, with its explanation
        try:
            left = super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            hint = near_option(ctx, error.option_name)
            raise click.UsageError(f"No such option: {error.option_name}{hint}", ctx) from None
        if left and not ctx.resilient_parsing:
            ctx.fail(left_over(given, left))
        return left


class LazyGroup(_Process, click.Group):
    """Command group that imports a command only when it is called, so that help needs no torch."""

    def __init__(
        self,
        *args: Any,
        commands_at: Mapping[str, str] | None = None,
        params: list[click.Parameter] | None = None,
        **kwargs: Any,
    ) -> None:
        settings = {"help_option_names": HELP_NAMES, **(kwargs.pop("context_settings", None) or {})}
        super().__init__(*args, params=with_version(params or []), context_settings=settings, **kwargs)
        self._commands_at = commands_at or {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Returns the names of the commands, in the order of the table."""
        return list(self._commands_at)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports and returns a command, which the table gives as ``module:name``."""
        if cmd_name not in self._commands_at:
            return None
        module, name = self._commands_at[cmd_name].split(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Finds the command that the arguments name; an unknown name is an error with near names."""
        name = args[0]
        if name not in self._commands_at and not ctx.resilient_parsing and not name.startswith("-"):
            ctx.fail(f"No such command {name!r}{_hint(near_names(name, self._commands_at))}")
        return super().resolve_command(ctx, args)


def wants_json(ctx: click.Context) -> bool:
    """Returns True if the command line of a command has ``--json``."""
    return bool(ctx.meta.get(JSON))


def with_version(params: Sequence[click.Parameter]) -> list[click.Parameter]:
    """Returns parameters of a command, with the option ``--version`` last."""
    version = click.Option(
        [VERSION], is_flag=True, expose_value=False, is_eager=True, help="Print the version and exit.", callback=_print
    )
    return [*(param for param in params if VERSION not in param.opts), version]


def near_option(ctx: click.Context, option: str) -> str:
    """Returns a hint for an unknown option: near options of the command, or the field that ``--set`` sets.

    Args:
        ctx: context of the command.
        option: unknown option, such as ``--learning-rate``.
    """
    name = option.lstrip("-").replace("-", "_")
    options = {text.lstrip("-").replace("-", "_"): text for param in ctx.command.params for text in param.opts}
    fields = _fields() if any(param.name == "fields" for param in ctx.command.params) else []
    if name in fields:
        return f"; {name} is a field: --set {name}=VALUE"
    if meant := near_names(name, [each for each in options if options[each].startswith("--")]):
        return _hint([options[each] for each in meant])
    return _hint([f"--set {each}=VALUE" for each in near_names(name, fields)])


def left_over(given: Sequence[str], left: Sequence[str]) -> str:
    """Formats the error of arguments that a command does not have; file names come from a pattern without quotes.

    Args:
        given: all arguments of the command.
        left: those that no option or argument has taken.
    """
    several = "s" if len(left) > 1 else ""
    shown = " ".join([*left[:SHOWN], *(["..."] if len(left) > SHOWN else [])])
    error = f"Got unexpected extra argument{several} ({shown})"
    if not all(Path(each).exists() for each in left):
        return error
    before = list(given[: given.index(left[0])])
    option = next((each for each in reversed(before) if each.startswith("--")), "")
    pattern = f"{option} '...*'" if option else "'...*'"
    return f"{error}: the shell replaces a pattern without quotes by the names of files; quote it, as in {pattern}"


def _hint(meant: Sequence[str]) -> str:
    return f"; did you mean {listed(meant)}?" if meant else ""


def _fields() -> list[str]:
    from fusion.experiment.fields import field_names

    return field_names()


def _print(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    """Prints the version and ends."""
    if value and not ctx.resilient_parsing:
        click.echo(f"{ctx.find_root().info_name}, version {mmer_version()}")
        ctx.exit()
