"""Decision numbers: each number that the project cites has an entry in `docs/decisions.md`."""

import re
import tokenize
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DECISIONS = ROOT / "docs" / "decisions.md"
FOLDERS = ("cache", "featurize", "fusion", "cli", "benchmarks", "tests")
SOURCES = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py")) if path != Path(__file__)]
SOURCES += sorted(ROOT.glob("*.py"))
DOCUMENTS = sorted({*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "benchmarks").glob("*.md")})

# A letter of a series and one or two digits, or the number of a check. Not `ViT-B-32`, `UTF-8`, `B-100` or `L-1a`.
NUMBER = r"(?<![\w./-])(?:[CGBMJLX]-[1-9]\d?|T00[0-4]-\d)(?!\w|-\w)"
RANGE = re.compile(rf"({NUMBER}) to ({NUMBER})")
TEST_NAME = re.compile(r"\bdef test_(?:(x)(\d)|(t00[0-4])_(\d))_")
ANCHOR = re.compile(r"decisions\.md#([\w-]+)")
ABSENT = re.compile(r"\b(?:design|redesign|performance|peers)\.md\b")
# Token types whose text a person reads; an f-string has a type of its own from Python 3.12 on.
PROSE = {tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}


def cited_in(text: str) -> set[str]:
    """Returns the numbers in a text; a range such as ``G-5 to G-8`` includes the numbers between its ends."""
    numbers = set(re.findall(NUMBER, text))
    for first, last in RANGE.findall(text):
        (series, start), (_, end) = first.rsplit("-", 1), last.rsplit("-", 1)
        numbers.update(f"{series}-{number}" for number in range(int(start), int(end) + 1))
    return numbers


def prose_of(path: Path) -> str:
    """Returns the comments and strings of a source file."""
    with tokenize.open(path) as file:
        return "\n".join(token.string for token in tokenize.generate_tokens(file.readline) if token.type in PROSE)


def numbers_of(path: Path) -> set[str]:
    """Returns the numbers that a file cites: in prose, and in the names of tests."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        return cited_in(text)
    named = {f"{x}-{digit}" if x else f"{series}-{number}" for x, digit, series, number in TEST_NAME.findall(text)}
    return {name.upper() for name in named} | (cited_in(prose_of(path)) if re.search(NUMBER, text) else set())


def headings() -> list[str]:
    """Returns the headings of the page."""
    return re.findall(r"^#+ (.+)$", DECISIONS.read_text(encoding="utf-8"), re.MULTILINE)


def anchor_of(heading: str) -> str:
    """Returns the anchor that a heading gets when the page is rendered."""
    return re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-")


@cache
def citations() -> list[tuple[str, str]]:
    """Returns each cited number with a file that cites it; the page itself is one of them."""
    return [(number, str(path.relative_to(ROOT))) for path in [*SOURCES, *DOCUMENTS] for number in numbers_of(path)]


def mentions(pattern: re.Pattern[str]) -> Iterator[tuple[str, str]]:
    """Yields each match of a pattern in the project, with ``file:line``."""
    for path in [*SOURCES, *DOCUMENTS]:
        text = path.read_text(encoding="utf-8")
        for number, line in enumerate(text.splitlines() if pattern.search(text) else (), start=1):
            for match in pattern.finditer(line):
                yield match[match.re.groups], f"{path.relative_to(ROOT)}:{number}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("batch of 16 (B-11)", {"B-11"}),
        ("(J-12, J-14)", {"J-12", "J-14"}),
        ("G-5 to G-8 read it", {"G-5", "G-6", "G-7", "G-8"}),
        ("X-1, and T004-1.", {"X-1", "T004-1"}),
        ("B-6, B-7: views", {"B-6", "B-7"}),
        ("ViT-B-32, clip/B-16, UTF-8, seeds 0 to N-1, T5-3, B-100, L-1a, X-1-y", set()),
    ],
)
def test_numbers_are_found_and_names_of_encoders_are_not(text: str, expected: set[str]) -> None:
    assert cited_in(text) == expected


def test_every_number_that_is_cited_has_an_entry() -> None:
    entries = set(headings())
    missing = sorted({f"{number} ({file})" for number, file in citations() if number not in entries})
    assert not missing


def test_source_files_cite_numbers_of_every_series() -> None:
    assert {number.rsplit("-", 1)[0][0] for number, file in citations() if file.endswith(".py")} == set("CGBMJLXT")


def test_headings_are_unique() -> None:
    assert [anchor for anchor, count in Counter(map(anchor_of, headings())).items() if count > 1] == []


def test_every_entry_has_a_text() -> None:
    parts = re.split(r"^#+ .+$", DECISIONS.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    entries = zip(headings(), parts, strict=True)
    assert not [heading for heading, text in entries if re.fullmatch(NUMBER, heading) and not text.strip()]


def test_links_to_an_entry_lead_to_a_heading() -> None:
    anchors = {anchor_of(heading) for heading in headings()}
    own = re.findall(r"\]\(#([\w-]+)\)", DECISIONS.read_text(encoding="utf-8"))
    links = [(anchor, "docs/decisions.md") for anchor in own] + list(mentions(ANCHOR))
    assert not [link for link in links if link[0] not in anchors]


def test_no_file_names_a_document_that_the_project_does_not_contain() -> None:
    assert not list(mentions(ABSENT))
