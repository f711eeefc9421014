import base64
import io
import json
import re
import shutil
from pathlib import Path

import pytest
import soundfile

from cache.errors import MmerError
from fusion.report.finished import open_runs
from fusion.report.protocol import sentence
from fusion.report.report import write_report
from tests.support.reports import HOSTILE, LABELS, rewritten


@pytest.fixture(scope="module")
def run(reported: Path) -> Path:
    return reported


def test_a_report_names_what_was_run_and_its_scores(run: Path, report: Path) -> None:
    page = report.read_text()
    results = json.loads((run / "results.json").read_text())
    assert report.stat().st_size < 3_000_000
    assert "72 utterances" in page
    assert f"{100 * results['pooled']['ua']:.1f}</dd>" in page
    low, high = results["interval"]["ua"]
    assert f"{100 * low:.1f} to {100 * high:.1f} (95%)" in page
    assert "none of a test subset is in train" in page


@pytest.mark.parametrize(
    "added", [{"protocol_name": "leave one session out"}, {"notes": ["session: leave one session out: x"]}]
)
def test_a_report_names_the_protocol_in_words(run: Path, tmp_path: Path, added: dict[str, object]) -> None:
    """Runs of older versions have the words among their notes only."""
    folder = rewritten(run, tmp_path / "run")
    results = json.loads((folder / "results.json").read_text())
    del results["protocol_name"]
    (folder / "results.json").write_text(json.dumps({**results, **added}))
    (found,), _ = open_runs([folder], None)
    assert "of protocol session (leave one session out) and 1 seed" in sentence(found)


def test_a_report_loads_nothing(report: Path) -> None:
    page = report.read_text()
    assert "default-src 'none'" in page
    assert "<script" not in page
    links = re.findall(r"""(?:src|href)=["']([^"']*)""", page)
    assert links
    assert not [link for link in links if not link.startswith(("#", "data:"))]


def test_hostile_names_and_transcripts_stay_text(hostile_report: Path) -> None:
    page = hostile_report.read_text()
    assert HOSTILE.replace("<", "&lt;").replace(">", "&gt;").replace('"', "&#34;") in page
    assert "{{7*7}}" in page
    for tag in ("<script", "<img", "<b>x"):
        assert tag not in page
    assert page.count("</style>") == 1
    assert all(name.partition("<")[0] in page for name in LABELS)


def test_a_report_holds_as_many_recordings_as_requested(hostile_report: Path) -> None:
    sounds = re.findall(r'src="data:audio/mpeg;base64,([^"]+)"', hostile_report.read_text())
    assert len(sounds) == 2
    samples, rate_hz = soundfile.read(io.BytesIO(base64.b64decode(sounds[0])))
    assert rate_hz == 16_000
    assert 0.25 < len(samples) / rate_hz < 0.5
    assert abs(samples).max() > 0.2


@pytest.mark.usefixtures("quick_pages")
def test_several_runs_are_compared_in_pairs(run: Path, trainable: Path, tmp_path: Path) -> None:
    other = rewritten(run, tmp_path / "other")
    page = write_report([run, other], out=tmp_path / "report.html", cache=trainable).path.read_text()
    assert "Paired tests" in page
    assert "p permutation" in page
    for name in ("run", "other"):  # maps side by side
        assert f"<figcaption>{name}: 24 test utterances of fold 1, seed 0, without a contrastive loss" in page


@pytest.mark.usefixtures("quick_pages")
def test_without_the_cache_a_report_says_what_it_lacks(run: Path, tmp_path: Path) -> None:
    other = rewritten(run, tmp_path / "other", cache="nowhere.h5")
    found = write_report([other])
    assert found.path == other / "report.html"
    assert "nowhere.h5, the cache of" in found.notes[0]
    assert "Fused vectors" not in found.path.read_text()


def test_an_unfinished_run_is_one_line(run: Path, tmp_path: Path) -> None:
    other = rewritten(run, tmp_path / "other")
    (other / "results.json").unlink()
    with pytest.raises(MmerError, match=r"is not finished, it has no results\.json; repeat"):
        write_report([other])
    other = rewritten(run, tmp_path / "extended")
    record = json.loads((other / "run.json").read_text())
    record["decides"]["seeds"].append(4)
    (other / "run.json").write_text(json.dumps(record))
    with pytest.raises(MmerError, match="results have 3 of 6 models; repeat"):
        write_report([other])
    with pytest.raises(MmerError, match="is not a run folder"):
        write_report([tmp_path / "none"])


@pytest.mark.usefixtures("quick_pages")
def test_a_report_replaces_reports_and_nothing_else(run: Path, hostile_report: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(hostile_report, tmp_path / "report.html"))
    assert write_report([run], out=path).path == path
    assert "none of a test subset" in path.read_text() != hostile_report.read_text()
    held = (run / "run.json").read_bytes()
    with pytest.raises(MmerError, match="is not a report; choose another --out"):
        write_report([run], out=run / "run.json")
    assert (run / "run.json").read_bytes() == held
    with pytest.raises(MmerError, match="is not a file"):
        write_report([run], out=tmp_path)
    with pytest.raises(MmerError, match="more than once"):
        write_report([run, run], out=path)


def test_runs_of_other_labels_are_not_put_together(run: Path, hostile_run: Path, tmp_path: Path) -> None:
    with pytest.raises(MmerError, match="have different targets"):
        write_report([run, hostile_run], out=tmp_path / "report.html")
