"""Reports in a real browser: Debian's Chromium without a display."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.reports import HOSTILE, LABELS

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed; make browser installs it")

# The boxes of all pictures and texts that are wider than the page.
BOXES = (
    "[...document.querySelectorAll('.drawing svg')].map(e => e.getBoundingClientRect()).map(b => [b.width, b.height])"
)


WIDE, PHONE = {"width": 1280, "height": 720}, {"width": 360, "height": 740}


@pytest.fixture(scope="module")
def tab() -> Iterator[Any]:
    """The only tab of a browser: a process for each page would take most of the time."""
    with playwright.sync_playwright() as started:
        running = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield running.new_context().new_page()
        running.close()


class Opened:
    """A page in the tab, with what the browser reported of it."""

    def __init__(
        self,
        tab: Any,
        path: Path,
        *,
        viewport: dict[str, int] = WIDE,
        color_scheme: str = "light",
        media: str = "screen",
    ) -> None:
        self.heard: list[str] = []
        self.requests: list[str] = []
        self.page = tab
        self.page.set_viewport_size(viewport)
        self.page.emulate_media(media=media, color_scheme=color_scheme)
        self.page.on("console", lambda message: self.heard.append(message.text))
        self.page.on("pageerror", lambda error: self.heard.append(str(error)))
        self.page.on("dialog", lambda dialog: self.heard.append(dialog.message))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())

    def ask(self, expression: str) -> Any:
        return self.page.evaluate(expression)


def test_a_report_opens_without_an_error_and_loads_nothing_else(tab: Any, report: Path) -> None:
    opened = Opened(tab, report)
    assert opened.heard == []
    assert opened.requests == [report.as_uri()]
    assert opened.page.title() == "concat on toy"


def test_every_picture_has_pixels(tab: Any, report: Path) -> None:
    opened = Opened(tab, report)
    boxes = opened.ask(BOXES)
    assert len(boxes) == 9
    assert all(width > 200 and height > 80 for width, height in boxes)
    drawn = opened.page.locator(".drawing").first.screenshot()
    from io import BytesIO

    from matplotlib.image import imread

    assert imread(BytesIO(drawn)).std() > 0.03  # a picture of one colour shows nothing


@pytest.mark.parametrize("page", ["report", "hostile_report"])
def test_nothing_is_wider_than_a_phone(tab: Any, page: str, request: pytest.FixtureRequest) -> None:
    opened = Opened(tab, request.getfixturevalue(page), viewport=PHONE)
    assert opened.ask("document.documentElement.scrollWidth") == 360


def test_a_dark_page_has_light_text_in_pictures_too(tab: Any, report: Path) -> None:
    colors = {}
    for scheme in ("light", "dark"):
        opened = Opened(tab, report, color_scheme=scheme)
        page = opened.ask("getComputedStyle(document.body).backgroundColor")
        text = opened.ask("getComputedStyle(document.querySelector('.drawing svg text')).fill")
        colors[scheme] = (_lightness(page), _lightness(text))
    assert colors["light"][0] > 0.9
    assert colors["light"][1] < 0.3
    assert colors["dark"][0] < 0.2
    assert colors["dark"][1] > 0.7


def test_print_is_light_and_leaves_out_what_paper_cannot_do(tab: Any, report: Path) -> None:
    opened = Opened(tab, report, color_scheme="dark", media="print")
    assert _lightness(opened.ask("getComputedStyle(document.body).backgroundColor")) > 0.9
    assert opened.ask("getComputedStyle(document.querySelector('nav')).display") == "none"


def test_hostile_text_is_shown_and_not_run(tab: Any, hostile_report: Path) -> None:
    opened = Opened(tab, hostile_report)
    assert opened.heard == []
    assert opened.requests == [hostile_report.as_uri()]
    assert opened.ask("document.querySelectorAll('script, img, b.x').length") == 0
    assert opened.page.locator(".said").first.inner_text() == HOSTILE
    words = opened.page.locator("body").inner_text()
    assert LABELS[0] in words
    assert "{{7*7}}" in words
    assert len(opened.ask(BOXES)) >= 6


def test_recordings_can_be_played(tab: Any, hostile_report: Path) -> None:
    opened = Opened(tab, hostile_report)
    opened.page.wait_for_function(
        "[...document.querySelectorAll('audio')].every(e => e.readyState >= 1)", timeout=10_000
    )
    durations = opened.ask("[...document.querySelectorAll('audio')].map(e => e.duration)")
    assert len(durations) == 2
    assert all(0.25 < seconds < 0.5 for seconds in durations)


def _lightness(color: str) -> float:
    """The mean of the channels of ``rgb(r, g, b)``, in [0, 1]."""
    return sum(map(float, color[color.index("(") + 1 : -1].split(",")[:3])) / 765
