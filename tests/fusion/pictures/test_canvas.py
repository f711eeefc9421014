from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib import font_manager
from matplotlib.image import imread

from fusion.pictures import canvas
from fusion.pictures.canvas import FONT, FORMATS, drawn, fonts_for, page_svg, save
from fusion.pictures.confusion import draw_confusion

COUNTS = np.array([[3, 1], [0, 2]])
STARTS = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}


@pytest.mark.parametrize("kind", FORMATS)
def test_a_figure_is_a_file_of_each_format(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"picture.{kind}"
    save(draw_confusion(COUNTS, ["angry", "$x_{1}$"], "$"), path, kind)
    assert path.read_bytes().startswith(STARTS[kind])
    if kind == "png":
        picture = imread(path)
        assert picture.shape[1] > 500
        assert picture.std() > 0.05


def test_letters_that_the_usual_font_has_need_no_other() -> None:
    assert fonts_for("angry ярость ένα") == (FONT,)
    assert drawn("ярость") == "ярость"


def test_letters_that_no_font_has_are_escapes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canvas, "_installed", tuple)
    fonts_for.cache_clear()
    assert drawn("感情") == "\\u{611f}\\u{60c5}"
    fonts_for.cache_clear()


def test_letters_come_from_an_installed_font_that_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    path = font_manager.findfont("STIXGeneral")  # comes with matplotlib; has a letter that DejaVu Sans lacks
    lacking = sorted(canvas._letters(path) - canvas._letters(canvas._path(FONT)))
    sign = next(sign for sign in lacking if sign.isprintable() and sign.isalpha())
    monkeypatch.setattr(canvas, "_installed", lambda: (("STIXGeneral", path),))
    fonts_for.cache_clear()
    assert fonts_for(f"a{sign}") == (FONT, "STIXGeneral")
    assert drawn(sign) == sign
    fonts_for.cache_clear()


def test_steering_letters_and_line_breaks_do_not_reach_a_picture() -> None:
    assert drawn("a\nb\x1b[2J\u202e") == "a b\\u{1b}[2J\\u{202e}"
    assert drawn("a" * 30, 10) == f"{'a' * 9}…"


def test_a_figure_of_a_page_is_xml_whose_text_is_text_and_whose_inks_are_variables() -> None:
    svg = page_svg(draw_confusion(COUNTS, ["<b>", "a & b"]), "1")
    element = ElementTree.fromstring(svg)
    texts = [node.text for node in element.iter() if node.tag.endswith("text")]
    assert {"<b>", "a & b", "3", "truth"} <= set(texts)
    assert "var(--cell)" in svg
    assert "var(--ink)" in svg
    assert "#1d2330" not in svg


def test_an_escape_becomes_its_letter_in_a_page_and_never_markup() -> None:
    svg = page_svg(draw_confusion(COUNTS, ["\\u{3c}script\\u{3e}", "sad"]), "1")
    assert "&lt;script&gt;" in svg
    assert "<script" not in svg
