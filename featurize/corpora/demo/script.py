"""Script of the demo corpus: the speaker, the emotion and the words of every turn.

Every wording occurs once in each of the four emotions; only its charged words change with the valence. Arousal,
template, sentence length and neutral words are therefore balanced by construction. The two words of a pair are
anagrams, so the letters are balanced too: only the order of the letters in the charged words reveals the valence.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

# Raw label -> activation and valence on a scale of 1 to 5 (the quadrants of Russell, 1980, doi:10.1037/h0077714).
EMOTIONS: Mapping[str, tuple[float, float]] = {
    "angry": (4.0, 2.0),
    "happy": (4.0, 4.0),
    "sad": (2.0, 2.0),
    "calm": (2.0, 4.0),
}

# (pleasant, unpleasant) anagrams; each word can follow "the".
PAIRS: Sequence[tuple[str, str]] = (
    ("garden", "danger"),
    ("hearts", "haters"),
    ("smiles", "slimes"),
    ("saints", "stains"),
    ("roses", "sores"),
    ("throne", "hornet"),
    ("pleaser", "relapse"),
    ("respect", "specter"),
    ("caress", "scares"),
    ("parties", "pirates"),
    ("praised", "despair"),
    ("delights", "slighted"),
    ("sacred", "scared"),
    ("united", "untied"),
    ("gifted", "fidget"),
)

# Each half has as many slots as there are pairs: every pair occurs in two wordings of a session, never twice in one.
TEMPLATES: Sequence[str] = (
    "only the {0}",
    "{who} saw the {0}",
    "{when} {who} talked about the {0}",
    "it was about the {0} and the {1}",
    "{who} wrote the {0} and not the {1}",
    "we saw the {0} and then the {1} {place}",
    "we talked about the {0} the {1} and the {2}",
    "{who} wrote about the {0} the {1} and the {2} {place}",
    "again the {0}",
    "it was the {0} {place}",
    "{when} we saw the {0} {place}",
    "first the {0} and then the {1}",
    "{when} it was the {0} and not the {1}",
    "{who} talked about the {0} and the {1} {place}",
    "first the {0} then the {1} and again the {2}",
    "{when} {who} saw only the {0} the {1} and the {2}",
)

FILLERS: Mapping[str, Sequence[str]] = {
    "who": ("my brother", "our teacher", "a driver"),
    "when": ("today", "on monday", "last year"),
    "place": ("at the station", "by the window", "near the river"),
}

SESSIONS = 5
SEXES = "FM"  # sexes of the two speakers of a session
STYLES = ("scripted", "improvised")
DIALOGUES = 8  # per session
TURNS = 8  # per dialogue: each speaker expresses each emotion once
SCRIPT_SEED = 1


@dataclass(frozen=True, kw_only=True)
class Line:
    """One turn of the script.

    Attributes:
        session: number of the session, from 1.
        sex: ``F`` or ``M``; identifies the speaker in the session.
        dialogue: number of the dialogue in the session, from 1.
        turn: index of the turn in the dialogue, from 0.
        style: ``scripted`` or ``improvised``, alternating by dialogue; it does not affect the sound.
        label: a key of ``EMOTIONS``.
        text: lower-case words, separated by single spaces.
    """

    session: int
    sex: str
    dialogue: int
    turn: int
    style: str
    label: str
    text: str


def write_script() -> list[Line]:
    """Returns all turns of the corpus, identical at every call."""
    generator = np.random.Generator(np.random.PCG64(SCRIPT_SEED))
    return [line for session in range(1, SESSIONS + 1) for line in _session_lines(session, generator)]


def script_words() -> list[str]:
    """Returns every word that can occur in the corpus, in alphabetical order."""
    phrases = [*TEMPLATES, *(filler for choices in FILLERS.values() for filler in choices)]
    neutral = {word for phrase in phrases for word in phrase.split() if not word.startswith("{")}
    return sorted(neutral.union(*PAIRS))


@dataclass(frozen=True, kw_only=True)
class _Wording:
    """A sentence without its valence: template, neutral words and pairs of charged words."""

    template: str
    fillers: Mapping[str, str]
    pairs: Sequence[tuple[str, str]]

    def spoken(self, valence: float) -> str:
        words = [pleasant if valence > 3.0 else unpleasant for pleasant, unpleasant in self.pairs]
        return self.template.format(*words, **self.fillers)


def _session_lines(session: int, generator: np.random.Generator) -> list[Line]:
    """Assigns every wording in every emotion to a turn of a session."""
    wordings = _session_wordings(generator)
    decks = {label: generator.permutation(len(wordings)) for label in EMOTIONS}
    lines = []
    for dialogue in range(DIALOGUES):
        orders = [generator.permutation(list(EMOTIONS)) for _ in SEXES]
        for turn in range(TURNS):
            speaker = (dialogue + turn) % 2
            label = str(orders[speaker][turn // 2])
            wording = wordings[decks[label][2 * dialogue + speaker]]
            line = Line(
                session=session,
                sex=SEXES[speaker],
                dialogue=dialogue + 1,
                turn=turn,
                style=STYLES[dialogue % 2],
                label=label,
                text=wording.spoken(valence=EMOTIONS[label][1]),
            )
            lines.append(line)
    return lines


def _session_wordings(generator: np.random.Generator) -> list[_Wording]:
    """Fills every template once, with each pair in exactly two slots."""
    deck = np.concatenate([generator.permutation(len(PAIRS)) for _ in range(2)])
    wordings, used = [], 0
    for template in TEMPLATES:
        slots = sum(f"{{{slot}}}" in template for slot in range(3))
        fillers = {name: choices[int(generator.integers(len(choices)))] for name, choices in FILLERS.items()}
        pairs = [PAIRS[index] for index in deck[used : used + slots]]
        wordings.append(_Wording(template=template, fillers=fillers, pairs=pairs))
        used += slots
    return wordings
