"""Where the latest calibration is kept, and that nothing odd there stops a run."""

import pytest

from brinell.core.errors import StoreError
from brinell.engine.calibration import Calibration, keep, latest, place

DONE = Calibration("2026-01-31 12:00:00 UTC", "cpu (x86)", "Linux", {"brinell": "0.1.0"}, 10, (), 1.5)


def test_the_place(monkeypatch, tmp_path):
    monkeypatch.setenv("BRINELL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert place() == tmp_path / "home" / "calibration.json"
    monkeypatch.delenv("BRINELL_HOME")
    assert place() == tmp_path / "cache" / "brinell" / "calibration.json"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert place() == tmp_path / ".cache" / "brinell" / "calibration.json"


def test_kept_and_read_again(monkeypatch, tmp_path):
    monkeypatch.setenv("BRINELL_HOME", str(tmp_path / "home"))
    assert latest() is None
    failed = Calibration("later", "cpu", "Linux", {}, 9, ("projection: ball",), 1.0)
    for calibration in (DONE, failed):
        assert keep(calibration) == place() and latest() == calibration
    assert [file.name for file in place().parent.iterdir()] == ["calibration.json"]
    assert str(DONE) == "2026-01-31 12:00:00 UTC on cpu (x86): all 10 laws held (brinell 0.1.0)" and "1 of 10 laws FAILED" in str(failed)


@pytest.mark.parametrize("content", ["", "[1]", "{}", '{"failed": 3}', '{"failed": [], "more": 1}', "\x00"])
def test_what_cannot_be_read_is_none(monkeypatch, tmp_path, content):
    monkeypatch.setenv("BRINELL_HOME", str(tmp_path))
    (tmp_path / "calibration.json").write_text(content)
    assert latest() is None


def test_a_place_that_cannot_be_written_is_named(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BRINELL_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(StoreError, match=r"cannot write .*Set BRINELL_HOME to a folder"):
        keep(DONE)
    assert latest() is None
