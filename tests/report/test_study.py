"""The page and the text of a study."""

import pytest

from brinell.core.errors import StoreError
from brinell.core.study import Claim, Curve, Figure, Judgement, Outcome, Reference, Scale, Verdict
from brinell.report.study import headline, study_text, write_study

NAN, INF = float("nan"), float("inf")
HOSTILE = "<script>alert(1)</script>"
OUTCOME = Outcome(
    "a_study", Scale.SMALL, Reference("A. Author", 2020, HOSTILE, "https://example.org"),
    (
        Verdict(Claim("one", "One holds.", "abstract"), Judgement.HOLDS, "points", 0.25, 0.1, 0.4, 5),
        Verdict(Claim("two", f"Two fails {HOSTILE}."), Judgement.FAILS, "points", -0.2, -0.3, -0.1, 5, "because"),
        Verdict(Claim("three", "Three stays open."), Judgement.INCONCLUSIVE, "points"),
    ),
    [{"network": HOSTILE, "clean": 0.5, "lost": float("nan")}],
    (
        Figure(
            "Dose", "x", "y",
            (Curve("a", (0.0, 1.0), (0.1, None), (0.0, None), (0.2, None)), Curve("b", (0.0, 1.0), (0.3, NAN), (0.1, NAN), (INF, 0.4))),
        ),
    ),
    ("1 of 9 networks collapsed.",),
)  # fmt: skip


def test_the_text():
    text = study_text(OUTCOME)
    assert headline(OUTCOME) == "Of 3 claims, 1 hold, 1 fail, 1 stay open"
    for part in ("✓ holds", "0.25 [0.1, 0.4], n = 5", "✕ fails", "? open", "no number, n = 0", "note: 1 of 9"):
        assert part in text


def test_the_page(tmp_path):
    page = write_study(OUTCOME, tmp_path / "deep" / "report.html").read_text(encoding="utf-8")
    assert "One holds." in page and "because" in page and "1 of 9 networks collapsed." in page
    assert HOSTILE not in page and "&lt;script&gt;" in page
    assert "connect-src" not in page and "default-src 'none'" in page
    assert page.count('class="chart"') == 1 and "Plotly" in page
    assert len(page) < 6e6
    with pytest.raises(StoreError, match="cannot write"):
        write_study(OUTCOME, tmp_path / "deep" / "report.html" / "inside.html")
