"""The group ``mmer``: all commands under one name."""

import click

from cli.command import LazyGroup

COMMANDS = {
    "featurize": "cli.extract:featurize",
    "cache": "cli.maintain:cache",
    "train": "cli.train:train",
    "finetune": "cli.finetune:finetune",
    "grid": "cli.grid:grid",
    "compare": "cli.compare:compare",
    "report": "cli.report:report",
    "runs": "cli.runs:runs",
    "pretrain": "cli.pretrain:pretrain",
    "predict": "cli.predict:predict",
    "export": "cli.export:export",
}


@click.group(cls=LazyGroup, commands_at=COMMANDS)
def mmer() -> None:
    """Multimodal (speech + text) emotion recognition from cached encoder features."""


if __name__ == "__main__":
    mmer()
