"""The command ``mmer-finetune``: trains encoders together with a head, from where the cache ends."""

import sys
from functools import partial

from cli.command import Command
from cli.train import train

HELP = """Trains encoders together with a fusion head, and scores them on every fold.

Learning starts from the cached stream below the layers that learn: the features of the convolutions (NAME@conv), the
token ids (NAME.tokens) or a lower layer (NAME@9). Without --tune, the encoder of every role that the head reads learns
in all its layers. Everything else is as in mmer-train. The tuned encoders of each fold are saved as checkpoints.

\b
Example:
    mmer-featurize demo --encoder wav2vec2-tiny@conv --encoder roberta-tiny
    mmer-finetune --fusion rescmfa --cache cache/demo.h5
    mmer-finetune --fusion audio --cache cache/iemocap.h5 --tune audio=3
"""

assert train.callback is not None  # it is the function under the decorators
finetune = Command("finetune", params=train.params, callback=partial(train.callback, tune_all=True), help=HELP)

if __name__ == "__main__":
    sys.exit(finetune())
