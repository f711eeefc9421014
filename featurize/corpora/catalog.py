"""Catalog of the corpora: their readers and their sources, and reading a corpus by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cache.errors import MmerError
from cache.near_names import nearest
from featurize.corpora.base import CorpusReading, check_reading
from featurize.corpora.cmu_mosi import TREE as CMU_MOSI_TREE
from featurize.corpora.cmu_mosi import read_cmu_mosi
from featurize.corpora.columns import NO_CHOICE, ColumnChoice, rename_columns
from featurize.corpora.crema_d import TREE as CREMA_D_TREE
from featurize.corpora.crema_d import read_crema_d
from featurize.corpora.demo.corpus import read_demo
from featurize.corpora.emodb import TREE as EMODB_TREE
from featurize.corpora.emodb import read_emodb
from featurize.corpora.esd import TREE as ESD_TREE
from featurize.corpora.esd import read_esd
from featurize.corpora.iemocap import TREE as IEMOCAP_TREE
from featurize.corpora.iemocap import read_iemocap
from featurize.corpora.manifest import read_manifest
from featurize.corpora.meld import TREE as MELD_TREE
from featurize.corpora.meld import read_meld
from featurize.corpora.msp_improv import TREE as MSP_IMPROV_TREE
from featurize.corpora.msp_improv import read_msp_improv
from featurize.corpora.msp_podcast import TREE as MSP_PODCAST_TREE
from featurize.corpora.msp_podcast import read_msp_podcast
from featurize.corpora.nemo import TREE as NEMO_TREE
from featurize.corpora.nemo import read_nemo
from featurize.corpora.ravdess import TREE as RAVDESS_TREE
from featurize.corpora.ravdess import read_ravdess
from featurize.corpora.savee import TREE as SAVEE_TREE
from featurize.corpora.savee import read_savee
from featurize.corpora.table import checked_encoding
from featurize.corpora.tess import TREE as TESS_TREE
from featurize.corpora.tess import read_tess


@dataclass(frozen=True, kw_only=True)
class CorpusSpec:
    """Static facts about a corpus.

    Attributes:
        read: reader that returns the utterances below a root.
        where: source of the corpus, in one clause; empty for the user's own corpus.
        tree: expected files below its root, in one clause.
        encoders: names of the default encoders.
    """

    read: Callable[[Path], CorpusReading]
    where: str
    tree: str
    encoders: tuple[str, ...] = ("wav2vec2-base", "roberta-base")


CORPORA: Mapping[str, CorpusSpec] = {
    "iemocap": CorpusSpec(
        read=read_iemocap,
        where="https://sail.usc.edu/iemocap (free for research, on request)",
        tree=IEMOCAP_TREE,
    ),
    "ravdess": CorpusSpec(
        read=read_ravdess,
        where="https://zenodo.org/records/1188976 (Audio_Speech_Actors_01-24.zip)",
        tree=RAVDESS_TREE,
    ),
    "meld": CorpusSpec(
        read=read_meld,
        where="https://affective-meld.github.io (MELD.Raw.tar.gz)",
        tree=MELD_TREE,
    ),
    "crema-d": CorpusSpec(
        read=read_crema_d,
        where="https://github.com/CheyneyComputerScience/CREMA-D (by git with git-lfs)",
        tree=CREMA_D_TREE,
    ),
    "emodb": CorpusSpec(
        read=read_emodb,
        where="http://emodb.bilderbar.info (download.zip)",
        tree=EMODB_TREE,
        encoders=("wav2vec2-base", "xlm-roberta-base"),
    ),
    "esd": CorpusSpec(
        read=read_esd,
        where="https://github.com/HLTSingapore/Emotional-Speech-Data (on request)",
        tree=ESD_TREE,
        encoders=("wav2vec2-base", "xlm-roberta-base"),
    ),
    "msp-podcast": CorpusSpec(
        read=read_msp_podcast,
        where="https://www.lab-msp.com (licence by form)",
        tree=MSP_PODCAST_TREE,
    ),
    "msp-improv": CorpusSpec(
        read=read_msp_improv,
        where="https://www.lab-msp.com (licence by form)",
        tree=MSP_IMPROV_TREE,
    ),
    "savee": CorpusSpec(
        read=read_savee,
        where="http://kahlan.eps.surrey.ac.uk/savee (on registration)",
        tree=SAVEE_TREE,
    ),
    "tess": CorpusSpec(
        read=read_tess,
        where="https://doi.org/10.5683/SP2/E8H2MF",
        tree=TESS_TREE,
    ),
    "nemo": CorpusSpec(
        read=read_nemo,
        where="https://github.com/amu-cai/nEMO",
        tree=NEMO_TREE,
        encoders=("wav2vec2-base", "xlm-roberta-base"),
    ),
    "cmu-mosi": CorpusSpec(
        read=read_cmu_mosi,
        where="https://github.com/thuiar/MMSA (MOSI)",
        tree=CMU_MOSI_TREE,
    ),
    "cmu-mosei": CorpusSpec(
        read=read_cmu_mosi,
        where="https://github.com/thuiar/MMSA (MOSEI)",
        tree=CMU_MOSI_TREE,
    ),
    "manifest": CorpusSpec(
        read=read_manifest,
        where="",
        tree="a .csv, .tsv or .jsonl file with the columns id, audio or text, and any of label, speaker, session, ...",
    ),
    "demo": CorpusSpec(
        read=read_demo,
        where="synthesized on the spot",
        tree="any folder, new or from an earlier run",
        encoders=("wav2vec2-tiny", "vit-mel-tiny", "roberta-tiny", "roberta-tiny@4"),
    ),
}

ENCODED = ("manifest", "iemocap")  # corpora whose text may be in another encoding than Unicode


def corpus_spec(name: str) -> CorpusSpec:
    """Returns the facts about the corpus of that name.

    Raises:
        MmerError: if the name is unknown.
    """
    try:
        return CORPORA[name]
    except KeyError:
        raise MmerError(f"unknown corpus {name!r}; {nearest(name, sorted(CORPORA))}") from None


def check_root(name: str, root: Path | None, *, allow_outside: bool = False, encoding: str | None = None) -> None:
    """Checks the name and the root of a corpus before anything is read.

    Args:
        name: one of `CORPORA`.
        root: as for `read_corpus`.
        allow_outside: as for `read_corpus`.
        encoding: as for `read_corpus`.

    Raises:
        MmerError: if the corpus is unknown, its root is missing, or `allow_outside` or `encoding` does not apply to it.
    """
    spec = corpus_spec(name)
    if allow_outside and name != "manifest":
        raise MmerError(f"--allow-outside is for the corpus manifest, not for {name}; remove it")
    if encoding and name not in ENCODED:
        raise MmerError(f"--encoding is for {' and '.join(ENCODED)}, not for {name}; remove it")
    if encoding:
        checked_encoding(encoding)
    if name != "demo" and (root is None or not root.exists()):  # demo creates its root, by default below the cache
        raise MmerError(_root_problem(name, spec, root))


def read_corpus(
    name: str,
    root: Path | None,
    *,
    allow_outside: bool = False,
    encoding: str | None = None,
    columns: ColumnChoice = NO_CHOICE,
) -> CorpusReading:
    """Reads a corpus and checks that its utterances have unique ids.

    Args:
        name: one of `CORPORA`.
        root: its folder, or its file for ``manifest``; the folder to fill for ``demo``.
        allow_outside: accept recordings outside the manifest's folder; only for ``manifest``.
        encoding: encoding of the corpus' files of text, only for `ENCODED`; None for Unicode.
        columns: columns to read under other names, and further columns of a manifest to keep.

    Raises:
        MmerError: if the corpus or a column is unknown, its root is missing, or its files cannot be used.
    """
    check_root(name, root, allow_outside=allow_outside, encoding=encoding)
    if root is None:
        raise MmerError(_root_problem(name, corpus_spec(name), root))
    if name == "manifest":
        reading = read_manifest(root, allow_outside=allow_outside, encoding=encoding, columns=columns)
    elif name == "iemocap":
        reading = read_iemocap(root, encoding=encoding)
    else:
        reading = corpus_spec(name).read(root)
    if name != "manifest":
        reading = rename_columns(reading, columns, name)
    check_reading(reading, name)
    return reading


def root_variable(name: str) -> str:
    """Returns the name of the environment variable that holds the root of a corpus.

    Example:
        >>> root_variable("crema-d")
        'MMER_CREMA_D_ROOT'
    """
    return f"MMER_{name.upper().replace('-', '_')}_ROOT"


def _root_problem(name: str, spec: CorpusSpec, root: Path | None) -> str:
    kind = "file" if name == "manifest" else "folder"
    problem = f"{name} needs its {kind}" if root is None else f"{name} finds no {kind} {root}"
    source = f"; get it at {spec.where}" if spec.where else ""
    return f"{problem}: pass --root or set {root_variable(name)}{source}; expected: {spec.tree}"
