"""The page of a report: sections of blocks, rendered into one HTML file that loads nothing.

Every text of a run is escaped where it enters the page. A policy in the page forbids scripts, and everything that is
not in the file.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from cache.version import mmer_version
from fusion.pictures.canvas import page_svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A figure as a part of the page.

    Attributes:
        svg: SVG element, whose texts are escaped.
        caption: what the figure shows.
        wide: whether the figure is wider than a column, so that it scrolls on a phone.
    """

    svg: str
    caption: str
    wide: bool = False


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Figures side by side."""

    kind: ClassVar[str] = "pictures"
    items: Sequence[Picture]


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table; numbers are aligned by their digits.

    Attributes:
        header: names of the columns.
        rows: texts; the first of a row is its name.
        caption: what the table holds; empty where its heading says it.
        strong: numbers of the rows to stress.
    """

    kind: ClassVar[str] = "table"
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    strong: Sequence[int] = ()


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Terms with a text each.

    Attributes:
        rows: term, text, and whether the text is a warning.
        caption: run that the facts belong to, where there are several.
    """

    kind: ClassVar[str] = "facts"
    rows: Sequence[tuple[str, str, bool]]
    caption: str = ""


@dataclass(frozen=True, kw_only=True)
class Lines:
    """Short paragraphs."""

    kind: ClassVar[str] = "lines"
    lines: Sequence[str]
    caption: str = ""


@dataclass(frozen=True, kw_only=True)
class Code:
    """Text to copy, such as rows of a LaTeX table."""

    kind: ClassVar[str] = "code"
    text: str
    label: str


@dataclass(frozen=True, kw_only=True)
class Heard:
    """An utterance with what a model made of it.

    Attributes:
        id: id of the utterance.
        text: transcript; empty where there is none.
        truth: name of its class.
        guess: name of the class with the greatest probability.
        share: probability of the truth in percent, as text.
        speaker: speaker and fold.
        sound: data URI of the recording; empty without one.
    """

    id: str
    text: str
    truth: str
    guess: str
    share: str
    speaker: str
    sound: str = ""


@dataclass(frozen=True, kw_only=True)
class Utterances:
    """A list of utterances."""

    kind: ClassVar[str] = "utterances"
    items: Sequence[Heard]
    caption: str = ""


Block = Pictures | Table | Facts | Lines | Code | Utterances


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the page.

    Attributes:
        name: anchor of the section.
        heading: heading.
        lead: sentence that says how to read it; empty for none.
        paired: whether its blocks stand side by side where there is room.
        blocks: its blocks.
    """

    name: str
    heading: str
    blocks: Sequence[Block]
    lead: str = ""
    paired: bool = False


@dataclass(frozen=True, kw_only=True)
class Tile:
    """A score that the page opens with: title, value, and its interval or another note."""

    title: str
    value: str
    note: str


@dataclass(frozen=True, kw_only=True)
class Page:
    """A report.

    Attributes:
        title: heading and title of the page.
        sentence: what was run.
        tiles: scores that the page opens with.
        sections: sections that have blocks.
        notes: what the report lacks and why.
    """

    title: str
    sentence: str
    tiles: Sequence[Tile]
    sections: Sequence[Section]
    notes: Sequence[str]


class Pen:
    """Turns figures into parts of one page, each with names of its own."""

    def __init__(self) -> None:
        self._drawn = 0

    def picture(self, figure: "Figure", caption: str) -> Picture:
        """Returns a figure as a part of the page."""
        self._drawn += 1
        wide = figure.get_figwidth() > 4.2  # inches: wider than a phone
        return Picture(svg=page_svg(figure, f"figure-{self._drawn}"), caption=caption, wide=wide)


def render(page: Page) -> str:
    """Returns the HTML text of a page."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    loader = FileSystemLoader(TEMPLATES)
    environment = Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )
    environment.filters["svg"] = Markup  # an element of `page_svg`, whose texts are escaped already
    style = Markup((TEMPLATES / "report.css").read_text(encoding="utf-8"))  # a file of the package
    return environment.get_template("report.html").render(page=page, style=style, version=mmer_version())
