"""Pauses by the real Silero VAD, on two utterances of the demo with silence between them."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from featurize.corpora.demo.corpus import write_demo
from featurize.inputs.audio import RATE_HZ
