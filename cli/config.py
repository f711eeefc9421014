"""The option ``--config FILE``: options of a run from its folder; those on the command line win."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from fusion.experiment.config_file import RunConfig

HELD = "mmer.config"  # key of the file in the context of a command
# Options of the machine, of the output and of a single call: a run does not have them.
NOT_OF_A_RUN = frozenset({"config", "replace", "latex", "json", "pictures", "dry-run", "help", "version"})


def held_config() -> "RunConfig | None":
    """Returns the file of the running command; None without --config."""
    context = click.get_current_context(silent=True)
    found: RunConfig | None = None if context is None else context.meta.get(HELD)
    return found


def use_config(ctx: click.Context, param: click.Parameter, value: Path | None) -> None:
    """Reads the file, whose values become the defaults of the command's options."""
    if value is None or ctx.resilient_parsing:
        return
    from cli.ending import clean_errors
    from fusion.experiment.config_file import TABLES, read_config

    options = {
        name: option
        for option in ctx.command.params
        if isinstance(option, click.Option)
        for name in [option.opts[-1].removeprefix("--")]
        if name not in {*NOT_OF_A_RUN, *TABLES} and not name.startswith("list-")
    }
    with clean_errors():
        kinds = {name: _kinds(option) for name, option in options.items()}
        config = read_config(
            value, kinds, [name for name, option in options.items() if option.multiple], grid="grid" in options
        )
    ctx.meta[HELD] = config
    ctx.default_map = {str(options[name].name): given for name, given in config.values.items()}


def _kinds(option: click.Option) -> tuple[type, ...]:
    """Returns the types of the values of an option in a file."""
    if option.is_flag:
        return (bool,)
    kinds: dict[type[Any], tuple[type, ...]] = {
        click.types.IntParamType: (int,),
        click.types.FloatParamType: (int, float),
    }
    return next((found for kind, found in kinds.items() if isinstance(option.type, kind)), (str,))


config_option = click.option(
    "--config",
    type=click.Path(path_type=Path),
    is_eager=True,
    expose_value=False,
    callback=use_config,
    metavar="FILE",
    help="Options of a run or grid from the config.toml in its folder; options on the command line replace those of "
    "the file.  [default: none]",
)
