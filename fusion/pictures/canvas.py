"""Figures without a display: their sizes, inks and letters, and their forms as a file and as a part of a page.

Figures are as wide as a column of a paper, and with many parts up to a page, so that a paper and a phone show them at
their own size. Fonts are chosen by the letters of a text; a letter that no installed font has is written as an escape.
"""

import html
import re
from collections.abc import Iterable
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = ("png", "svg", "pdf")
DPI = 200  # of PNG files
COLUMN, PAGE = 3.4, 7.0  # inches, a column of a two-column paper and both with the space between them
FONT = "DejaVu Sans"  # comes with matplotlib
SIZE, SMALL = 8.0, 7.0  # points, of axes and of ticks

INK, MUTED, RULE, ACCENT, SECOND = "#1d2330", "#667080", "#d8dde4", "#2f6db3", "#c8553d"
CELL, PAPER = "#2f6db4", "#fefefe"  # of a cell with a number, and of a number in a full cell
# Each ink and the variable of a page that replaces it, so that a figure follows a light and a dark page.
VARIABLES = {
    INK: "ink",
    MUTED: "muted",
    RULE: "rule",
    ACCENT: "accent",
    SECOND: "second",
    CELL: "cell",
    PAPER: "on-cell",
    "#000000": "ink",
    "#ffffff": "page",
}
# Inks of classes and runs: of middle lightness, so that they are read on white and on black.
CLASSES = (
    "#3b7dd8",
    "#e08a2e",
    "#2f9e6e",
    "#d1495b",
    "#8f6bd1",
    "#9a7048",
    "#d76fa8",
    "#7d8794",
    "#a3a02a",
    "#22a3b5",
)
ESCAPE = re.compile(r"\\u\{([0-9a-f]+)\}")
STYLE: Any = {  # keys and values of matplotlib's rcParams
    "font.size": SIZE,
    "axes.titlesize": SIZE,
    "axes.labelsize": SIZE,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "legend.fontsize": SMALL,
    "axes.linewidth": 0.6,
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
}


def new_figure(width: float = COLUMN, height: float = 2.6) -> "Figure":
    """Returns an empty figure that no window shows.

    Args:
        width: in inches.
        height: in inches.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # imported here, since it takes a second
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.03))
    FigureCanvasAgg(figure)
    return figure


def plain_axes(figure: "Figure", *position: int, grid: str = "y") -> Any:
    """Adds axes with thin rules and without a frame.

    Args:
        figure: figure of the axes.
        *position: rows, columns and number, as for `add_subplot`.
        grid: axis with rules: ``x``, ``y`` or empty.
    """
    axes: Any = figure.add_subplot(*position)
    axes.spines[["top", "right", "left" if grid == "y" else "bottom"]].set_visible(False)
    axes.spines[:].set_color(MUTED)
    axes.tick_params(colors=INK, labelsize=SMALL, length=2.5, width=0.6, color=MUTED)
    axes.xaxis.label.set(color=INK, size=SIZE)
    axes.yaxis.label.set(color=INK, size=SIZE)
    if grid:
        axes.grid(axis=grid, color=RULE, linewidth=0.6)
        axes.tick_params(axis=grid, length=0)
    axes.set_axisbelow(True)
    return axes


def set_title(figure: "Figure", title: str) -> None:
    """Writes a title over a figure, wrapped to its width; an empty title takes no room."""
    if title:
        from textwrap import fill

        letters = int(figure.get_figwidth() * 15)  # DejaVu Sans at 8 points
        figure.suptitle(fill(drawn(title), letters), fontsize=SIZE, color=INK, **letters_of(title))


def legend_below(figure: "Figure", *texts: str, **shape: Any) -> None:
    """Adds the legend of all labelled parts below a figure.

    Args:
        figure: figure of the parts.
        *texts: their labels, which choose the fonts.
        **shape: further arguments of matplotlib, such as `ncols`.
    """
    prop = {"family": letters_of(*texts)["fontfamily"], "size": SMALL}
    figure.legend(loc="outside lower center", frameon=False, prop=prop, labelcolor=INK, **shape)


def letters_of(*texts: str) -> dict[str, Any]:
    """Returns the font families of a text, as arguments of a label."""
    return {"fontfamily": list(fonts_for("".join(texts)))}


def drawn(text: str, letters: int = 0) -> str:
    r"""Returns text as figures draw it: one line, no mathematics, and an escape for each letter that no font has.

    Args:
        text: any text.
        letters: greatest number of letters; 0 for no limit.

    Example:
        >>> drawn("calm\n$x$"), drawn("a long name", 6)
        ('calm \\$x\\$', 'a lon…')
    """
    line = " ".join(text.split())
    line = line if not letters or len(line) <= letters else f"{line[: letters - 1]}…"
    missing = _without_font(line)
    shown = "".join(sign if sign.isprintable() and sign not in missing else f"\\u{{{ord(sign):x}}}" for sign in line)
    return shown.replace("$", r"\$")


@lru_cache(256)
def fonts_for(text: str) -> tuple[str, ...]:
    """Finds the fonts that together have the letters of a text, the usual font first."""
    families, left = [FONT], set(text) - _letters(_path(FONT))
    left = {sign for sign in left if sign.isprintable()}
    if left:
        for family, path in _installed():
            if found := left & _letters(path):
                families.append(family)
                left -= found
            if not left:
                break
    return tuple(families)


def save(figure: "Figure", path: Path, kind: str = "png") -> None:
    """Writes a figure to a file on white paper.

    Args:
        figure: the figure.
        path: file to write.
        kind: ``png``, ``svg`` or ``pdf``.
    """
    import matplotlib as mpl

    stamp = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}
    with mpl.rc_context({**STYLE, "svg.fonttype": "path", "svg.hashsalt": "mmer"}):
        figure.savefig(path, dpi=DPI, format=kind, facecolor="white", metadata=stamp[kind])


def page_svg(figure: "Figure", salt: str) -> str:
    """Returns a figure as an SVG element of a page: its text stays text, and its inks are variables of the page.

    Args:
        figure: the figure.
        salt: text that no other figure of the page has; names in the element are made from it.
    """
    import matplotlib as mpl

    buffer = BytesIO()
    unstamped = {"Date": None, "Creator": None, "Format": None, "Type": None}
    with mpl.rc_context({**STYLE, "svg.hashsalt": salt}):
        figure.savefig(buffer, format="svg", transparent=True, metadata=unstamped)
    svg = buffer.getvalue().decode("utf-8")
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r"<style[^>]*>.*?</style>", "", svg, flags=re.S)
    svg = re.sub(r"<!--.*?-->\n?", "", svg, flags=re.S)
    svg = re.sub(r'\bid="((?:figure|patch|axes|text|line2d|xtick|ytick|matplotlib\.axis|legend)_\d+)"', "", svg)
    for ink, name in VARIABLES.items():
        svg = svg.replace(ink, f"var(--{name})")
    svg = re.sub(r"font: ([^;\"']*?px) [^;\"]+", r"font: \1 var(--sans)", svg)
    return ESCAPE.sub(_unescaped, svg)


def _unescaped(match: re.Match[str]) -> str:
    """Returns the letter of an escape as text of a page, whose reader may have a font for it."""
    code = int(match[1], 16)
    sign = chr(code) if code <= 0x10FFFF else "\ufffd"
    return html.escape(sign) if sign.isprintable() else match[0]


def _without_font(text: str) -> set[str]:
    """Returns the letters of a text that no installed font has."""
    left = set(text) - _letters(_path(FONT))
    if left:
        paths = dict(_installed())
        left -= set().union(*(_letters(paths[name]) for name in fonts_for(text)[1:]))
    return left


@lru_cache(64)
def _letters(path: str) -> frozenset[str]:
    """Returns the letters that a font file has."""
    from matplotlib.font_manager import get_font

    try:
        return frozenset(map(chr, get_font(path).get_charmap()))
    except (OSError, RuntimeError, ValueError):  # a damaged file, or a collection that cannot be opened
        return frozenset()


def _path(family: str) -> str:
    from matplotlib.font_manager import findfont

    return str(findfont(family))


@lru_cache(1)
def _installed() -> tuple[tuple[str, str], ...]:
    """Returns the installed families with one upright file each, those for all scripts first."""
    from matplotlib.font_manager import fontManager

    entries: Iterable[Any] = sorted(fontManager.ttflist, key=lambda entry: ("Noto" not in entry.name, entry.name))
    upright = {
        entry.name: entry.fname for entry in entries if entry.style == "normal" and "Last Resort" not in entry.name
    }
    upright.pop(FONT, None)
    return tuple(upright.items())
