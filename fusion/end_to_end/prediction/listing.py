"""From arguments to recordings: files, folders, patterns, manifests, lists of paths; and the texts of files."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from cache.errors import MmerError
from cache.patterns import is_pattern, matching_files
from featurize.corpora.folders import files_below
from featurize.corpora.manifest import read_manifest
from featurize.corpora.table import DELIMITERS, JSON_SUFFIXES, line_error, read_rows
from featurize.inputs.transcript import Dialogues
from fusion.end_to_end.prediction.recordings import Recording

LIST = "-"  # in place of a file: a list of paths, one a line
MANIFESTS = frozenset({*DELIMITERS, *JSON_SUFFIXES})
# Files that a folder is searched for; a file that is named is always read.
SOUNDS = (".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".aiff", ".aif", ".au", ".caf", ".w64")
OTHER_SOUNDS = (".aac", ".amr", ".ape", ".tta", ".wma", ".wv")  # decoded by PyAV
VIDEOS = (".m4a", ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi")
SOUND_SUFFIXES = frozenset({*SOUNDS, *OTHER_SOUNDS, *VIDEOS})
FILE, TEXT = "file", "text"  # columns of a table of texts


@dataclass(frozen=True, kw_only=True)
class Texts:
    """Transcripts by file name.

    Attributes:
        path: table that they were read from.
        by_name: path or name of a file -> transcript.
    """

    path: Path
    by_name: Mapping[str, str] = field(default_factory=dict)

    def of(self, path: Path) -> str | None:
        """Returns the transcript of a file: by its path as given, else by its name, else by its name without ending."""
        names = (str(path), path.name, path.stem)
        return next((self.by_name[name] for name in names if name in self.by_name), None)


def list_recordings(
    arguments: Sequence[str],
    *,
    text: str | None = None,
    texts: Path | None = None,
    lines: Iterable[str] = (),
    allow_outside: bool = False,
    encoding: str | None = None,
) -> list[Recording]:
    """Lists the recordings that arguments name, in their order; recordings are not opened.

    Args:
        arguments: files, folders (searched for sounds and videos), patterns, manifests, or ``-`` for `lines`.
        text: transcript of the only recording.
        texts: table of transcripts by file name, CSV or JSON lines with ``file`` and ``text``.
        lines: paths of recordings, one each.
        allow_outside: recordings of a manifest may lie outside its folder.
        encoding: encoding of manifests and of the table of transcripts; None for Unicode.

    Raises:
        MmerError: if an argument names nothing, a table is invalid, or a text is given for several recordings.
    """
    table = None if texts is None else read_texts(texts, encoding)
    recordings = [
        recording for argument in arguments for recording in _listed(argument, lines, allow_outside, encoding)
    ]
    if table is not None:
        recordings = [_with_text(recording, table) for recording in recordings]
    if text is None:
        return recordings
    if not recordings:
        return [Recording(file="", source=None, text=text)]
    if len(recordings) > 1:
        raise MmerError(f"--text is for one recording, and {len(recordings)} are given; pass --texts FILE")
    return [replace(recordings[0], text=text)]


def read_texts(path: Path, encoding: str | None = None) -> Texts:
    """Reads a table of transcripts by file name.

    Args:
        path: CSV or TSV with the columns ``file`` and ``text``, or JSON lines of objects with these names.
        encoding: encoding of the file; None for UTF-8, or UTF-16 with a byte order mark.

    Raises:
        MmerError: if the file cannot be read, lacks a column, or has two texts for a file.
    """
    suffix = path.suffix.lower()
    if not path.exists():
        raise MmerError(f"cannot read the texts {path}: No such file or directory")
    if suffix not in MANIFESTS:
        raise MmerError(f"the texts {path} have an unknown ending {suffix!r}; known: {', '.join(sorted(MANIFESTS))}")
    by_name: dict[str, str] = {}
    is_header = suffix in DELIMITERS
    for row in read_rows(path, known=(FILE, TEXT), encoding=encoding):
        if not {FILE, TEXT} <= row.cells.keys():
            found = ", ".join(row.cells)
            raise line_error(path, row.line, f"expected the columns {FILE} and {TEXT}, got {found or 'none'}")
        if not is_header and by_name.setdefault(row.text(FILE), row.text(TEXT)) != row.text(TEXT):
            raise row.error(f"a second text for {row.text(FILE)!r}; give one text for each file")
        is_header = False
    return Texts(path=path, by_name=by_name)


def _listed(argument: str, lines: Iterable[str], allow_outside: bool, encoding: str | None) -> Iterator[Recording]:
    """Yields the recordings of one argument."""
    path = Path(argument)
    if argument == LIST:
        yield from (_file(Path(line.strip())) for line in lines if line.strip())
    elif path.is_dir():
        yield from _in_folder(path)
    elif path.suffix.lower() in MANIFESTS:
        yield from _in_manifest(path, allow_outside, encoding)
    elif is_pattern(path):
        found = matching_files(path)
        if not found:
            raise MmerError(f"no file matches {argument}")
        yield from (recording for name in found for recording in _listed(str(name), (), allow_outside, encoding))
    else:
        yield _file(path)


def _file(path: Path) -> Recording:
    return Recording(file=str(path), source=path)


def _in_folder(folder: Path) -> list[Recording]:
    files = [path for path in files_below(folder)[0] if path.suffix.lower() in SOUND_SUFFIXES]
    if not files:
        raise MmerError(f"{folder} has no sound or video; expected {', '.join(sorted(SOUND_SUFFIXES))}")
    return [_file(path) for path in files]


def _in_manifest(path: Path, allow_outside: bool, encoding: str | None) -> Iterator[Recording]:
    """Yields the utterances of a manifest, with the turns before them."""
    reading = read_manifest(path, allow_outside=allow_outside, encoding=encoding)
    dialogues = Dialogues(reading.utterances)
    for utterance in reading.utterances:
        source = reading.root / utterance.audio if utterance.audio else None
        yield Recording(
            file=utterance.id if source is None else str(source),
            source=source,
            start_s=utterance.start_s,
            end_s=utterance.end_s,
            text=utterance.text or None,
            before=dialogues.before(utterance.id, len(reading.utterances)),
        )


def _with_text(recording: Recording, texts: Texts) -> Recording:
    path = recording.source if isinstance(recording.source, Path) else Path(recording.file)
    text = texts.of(path)
    return recording if text is None else replace(recording, text=text)
