"""`-h` and `--version` of every command; errors of usage name what was meant."""

import configparser
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from cache.version import mmer_version
from cli.extract import featurize
from cli.main import COMMANDS as MMER_COMMANDS
from cli.main import mmer
from cli.maintain import cache
from cli.predict import predict
from cli.train import train
from tests.support.processes import started

SETUP = Path(__file__).parents[2] / "setup.cfg"


def entry_points() -> dict[str, str]:
    """Command -> ``module:name`` of every program that the package installs."""
    settings = configparser.ConfigParser()
    settings.read(SETUP)
    lines = settings["options.entry_points"]["console_scripts"].strip().splitlines()
    return {name.strip(): place.strip() for name, _, place in (line.partition("=") for line in lines)}


def every_command() -> Iterator[tuple[str, click.Command]]:
    for name, place in entry_points().items():
        module, attribute = place.split(":")
        command = getattr(importlib.import_module(module), attribute)
        yield name, command
        if isinstance(command, click.Group) and command is not mmer:
            context = click.Context(command)
            for verb in command.list_commands(context):
                found = command.get_command(context, verb)
                assert found is not None
                yield f"{name} {verb}", found


EVERY = dict(every_command())


def test_every_program_is_a_command_of_mmer() -> None:
    assert {f"mmer-{name}": place for name, place in MMER_COMMANDS.items()} == {
        name: place for name, place in entry_points().items() if name != "mmer"
    }


@pytest.mark.parametrize("name", EVERY)
def test_h_prints_the_help(name: str) -> None:
    short, long = (CliRunner().invoke(EVERY[name], [option], prog_name=name) for option in ("-h", "--help"))
    assert short.exit_code == long.exit_code == 0
    assert short.stdout == long.stdout
    assert "-h, --help" in short.stdout


def options_with_a_value() -> Iterator[tuple[str, click.Option, str]]:
    """Yields every option that takes a value, with the command and its help; not those that print a list and exit."""
    for name, command in EVERY.items():
        context = click.Context(command)
        for option in command.params:
            record = option.get_help_record(context) if isinstance(option, click.Option) else None
            if isinstance(option, click.Option) and record and not option.is_flag and option.expose_value:
                yield f"{name} {option.opts[-1]}", option, record[1]


def test_the_help_of_every_option_states_its_default() -> None:
    helps = {name: text for name, option, text in options_with_a_value() if not option.required}
    assert len(helps) > 100
    assert not [name for name, text in helps.items() if not re.search(r"\w.*[.)] +\[default: [^]]+\]$", text)]


def test_the_help_of_every_number_states_its_limits() -> None:
    """The callbacks of numbers decide: what 0 or -1 is refused with must be in the help, in words alike everywhere."""
    stated = {1: ("above 0", "from 1", "1 to "), 0: ("0 or more", "from 0", "0 to ")}
    missing, limited = [], 0
    for name, option, text in options_with_a_value():
        least = 1 if refuses(option, 0) else 0 if refuses(option, -1) else None
        limited += least is not None
        if (least is not None and not any(words in text for words in stated[least])) or "<=" in text or ">=" in text:
            missing.append(name)
    assert limited > 30
    assert not missing


def refuses(option: click.Option, number: int) -> bool:
    """Returns True if the callback of an option of numbers refuses a number."""
    if option.callback is None or option.multiple or option.type.name not in {"integer", "float"}:
        return False
    try:
        option.callback(click.Context(click.Command("any")), option, number)
    except click.BadParameter:
        return True
    return False


@pytest.mark.parametrize("name", EVERY)
def test_version_prints_the_installed_version(name: str) -> None:
    result = CliRunner().invoke(EVERY[name], ["--version"], prog_name=name)
    assert (result.exit_code, result.stdout) == (0, f"{name}, version {mmer_version()}\n")


@pytest.mark.parametrize(
    ("command", "arguments", "meant"),
    [
        (train, "--learning-rate 1", "No such option: --learning-rate; did you mean --lr?"),
        (train, "--learning_rate 1", "No such option: --learning_rate; did you mean --lr?"),
        (train, "--batch 1", "No such option: --batch; did you mean --batch-size?"),
        (train, "--model audio", "No such option: --model; did you mean --fusion?"),
        (train, "--gpu", "No such option: --gpu; did you mean --device?"),
        (train, "--dropout 0.2", "No such option: --dropout; dropout is a field: --set dropout=VALUE"),
        (train, "--wd 0.2", "No such option: --wd; did you mean --set weight_decay=VALUE?"),
        (train, "--xyzzy", "No such option: --xyzzy\n"),
        (featurize, "demo --overwrite", "No such option: --overwrite; did you mean --replace?"),
        (predict, "run a.wav --dropout 1", "No such option: --dropout\n"),
        (cache, "doctr", "No such command 'doctr'; did you mean doctor?"),
        (mmer, "extract", "No such command 'extract'"),
    ],
)
def test_an_unknown_option_or_command_names_what_was_meant(command: click.Command, arguments: str, meant: str) -> None:
    result = CliRunner().invoke(command, arguments.split())
    assert result.exit_code == 2
    assert meant in result.stderr


@pytest.mark.parametrize(
    ("command", "arguments", "quoted"),
    [
        (train, "--fusion audio --cache a.h5 b.h5 c.h5", "(b.h5 c.h5): the shell replaces .* --cache '...\\*'"),
        (train, "--cache a.h5 --stream history.csv historic.txt", "(historic.txt): the shell .* --stream '...\\*'"),
        (cache, "info a.h5 b.h5 c.h5", "(b.h5 c.h5): the shell replaces a pattern .* as in '...\\*'"),
    ],
)
def test_a_pattern_that_the_shell_replaced_is_explained(
    command: click.Command, arguments: str, quoted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.h5", "b.h5", "c.h5", "history.csv", "historic.txt"):
        Path(name).touch()
    result = CliRunner().invoke(command, arguments.split())
    assert result.exit_code == 2
    files, _, rest = quoted.partition(": ")
    assert f"Got unexpected extra argument{'s' if ' ' in files else ''} {files}: " in result.stderr
    assert all(part in result.stderr for part in rest.replace("\\*", "*").split(" .* "))


def test_a_word_too_many_is_no_pattern() -> None:
    result = CliRunner().invoke(featurize, ["demo", "iemocap"])
    assert result.exit_code == 2
    assert result.stderr.endswith("Error: Got unexpected extra argument (iemocap)\n")


@pytest.mark.parametrize("arguments", [["--version"], ["--none"]], ids=["done", "error"])
def test_a_process_ends_without_a_last_collection_of_garbage(arguments: list[str]) -> None:
    """Nothing is frozen before: what is left to the last collection is less than what is spared."""
    lines = [
        "import atexit, gc",
        "from cli.predict import predict",
        "atexit.register(lambda: print(gc.get_freeze_count() > 10 * len(gc.get_objects()), gc.get_threshold()[0]))",
        f"predict({arguments!r})",
    ]
    with started("-c", "\n".join(lines)) as child:
        child.wait()
        assert child.output.read_text().splitlines()[-1] == "True 10000"
