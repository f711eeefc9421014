"""The voice of docstrings, comments and messages: plain present-day technical English (CONTRIBUTING, "Voice")."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("cache", "featurize", "fusion", "cli")
FILES = [ROOT / "mmer.py", *sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]

# A function's first line starts with the verb of what it does; these verbs hide it.
FIRST_WORDS = re.compile(r"(Gives|Tells|Says|Takes|Names|Refuses|Puts|Lets|What|Which|How|Who|Whether|Is|Are)\b")
NOUNS = (
    "number|run|pack|cache|folder|file|speech|stream|name|corpus|head|recipe|pattern|part|agreement|input|signature|"
    "comparison|paper"
)
# Words of an older, foreign-sounding style, each with what to write instead.
WORDS = {
    r"\banew\b": "again",
    r"\bnobody\b": "no user, no process",
    r"\btold\b": "reported, printed, known",
    r"\bbeside\b": "next to, in addition to",
    r"\bat hand\b": "available",
    r"\bcome of\b|\bcame of\b": "result from",
    r"\bis to be\b|\bare to be\b": "must be, will be",
    r"\blet go\b|\blet it go\b": "delete, overwrite",
    r"\bgone on from\b|\bgoes on where\b|\bgo on where\b|\bgo on from\b": "resume, continue",
    rf"\b(is|are) no ({NOUNS})s?\b": "is not a",
}
ANY_WORD = re.compile("|".join(WORDS))  # a file without any of them need not be cut into tokens
# File -> words that are data there: the vocabulary of the built-in tokenizer decides its weights.
EXEMPT = {"featurize/encoders/tiny.py": {r"\btold\b"}}
LOCALS = frozenset({"one", "told", "asked", "own", "mine", "theirs", "made", "came", "place", "places"})


def exempt(path: Path) -> set[str]:
    """Returns the patterns that do not count in a file."""
    return EXEMPT.get(str(path.relative_to(ROOT)), set())


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """Yields every comment and string of a file with its line."""
    for token in tokenize.generate_tokens(io.StringIO(path.read_text()).readline):
        if token.type in {tokenize.STRING, tokenize.COMMENT}:
            yield token.start[0], token.string


def documented(nodes: Sequence[ast.AST]) -> Iterator[tuple[int, str]]:
    """Yields the line and the first line of the docstring of every documented definition."""
    for node in nodes:
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node, clean=False)
            if text:
                yield getattr(node, "lineno", 1), text.lstrip().partition("\n")[0]


def findings(path: Path) -> list[str]:
    """Lists what a file says against the list, each with its line."""
    words = {pattern: instead for pattern, instead in WORDS.items() if pattern not in exempt(path)}
    source = path.read_text()
    found, nodes = [], list(ast.walk(ast.parse(source)))
    for line, first in documented(nodes):
        if FIRST_WORDS.match(first):
            found.append(f"{line}: opens with {first.split()[0]!r}: {first}")
    for line, text in texts(path) if ANY_WORD.search(source) else ():
        found += [f"{line}: {pattern} -> {instead}" for pattern, instead in words.items() if re.search(pattern, text)]
    for node in nodes:
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id in LOCALS:
            found.append(f"{node.lineno}: local name {node.id!r}; take the noun")
        elif isinstance(node, ast.arg) and node.arg in LOCALS:
            found.append(f"{node.lineno}: argument {node.arg!r}; take the noun")
    return sorted(set(found), key=lambda text: int(text.partition(":")[0]))


def test_code_speaks_plain_english() -> None:
    assert len(FILES) > 300
    assert not {str(path.relative_to(ROOT)): found for path in FILES if (found := findings(path))}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_pages_speak_plain_english(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
    lines = [line for line in text.splitlines() if ANY_WORD.search(line)]
    assert not {pattern: found for pattern in WORDS if (found := [line for line in lines if re.search(pattern, line)])}
