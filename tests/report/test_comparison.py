"""Two runs on the same samples: what is paired, what is refused, and that chance is told from difference."""

import json
from typing import Any

import numpy as np
import pytest

from brinell.core.confidence import clopper_pearson, mcnemar
from brinell.core.errors import StoreError
from brinell.core.lab import Table
from brinell.report.comparison import compare, holm
from brinell.report.comparison_page import comparison_text, write_comparison

N = 200
PGD = "pgd(steps=40, threat=ball(eps=8/255, norm=inf))"


def run(cells: dict[tuple[str, str], np.ndarray | str], **plan: Any) -> Table:
    """A run from which samples are right in each cell (or why a cell failed)."""
    rows = []
    for (net, spec), right in cells.items():
        about = {"net": net, "perturbation": spec, "layer": "", "probe": "accuracy", "name": "accuracy", "n": N}
        if isinstance(right, str):
            rows.append(about | {"value": None, "status": "failed", "reason": right})
            continue
        low, high = clopper_pearson(int(right.sum()), len(right))
        rows.append(about | {"value": float(right.mean()), "low": low, "high": high, "confidence": 0.95, "status": "ok", "reason": ""})
    nets = dict.fromkeys(net for net, _ in cells)
    made = {
        "networks": {net: {"digest": f"{net}-{id(cells)}"} for net in nets},
        "data": {"spec": "digits", "digest": "d", "n": N, "columns": []},
        "perturbations": list(dict.fromkeys(spec for _, spec in cells)), "seed": 0, "versions": {}, **plan,
    }  # fmt: skip

    def samples(net: str, spec: str) -> dict[str, np.ndarray]:
        right = cells.get((net, spec), "")
        return {} if isinstance(right, str) else {"id": np.arange(len(right)), "correct": right}

    return Table(made, rows, load_samples=samples)


def flags(right: int, start: int = 0) -> np.ndarray:
    return (np.arange(N) >= start) & (np.arange(N) < start + right)


def test_a_difference_is_that_of_the_paired_samples():
    """150 right in A, 170 in B, and B lost none: 20 to 0 is far from chance, though the two intervals overlap."""
    found = compare(run({("a", "clean"): flags(150)}), run({("b", "clean"): flags(170)}))
    (cell,) = found.cells
    assert cell.test == mcnemar(flags(170), flags(150)) and cell.p_value == pytest.approx(2 * 0.5**20)
    assert (cell.test.difference, cell.test.only_a, cell.test.only_b) == (0.1, 20, 0)
    assert cell.a.high > cell.b.low and cell.verdict == "B better" and found.pairs == [("a", "b")] and cell.net == "a → b"


def test_p_values_and_intervals_count_the_comparisons():
    """6 to 0 discordant samples: p = 1/32 alone, and no difference among ten cells."""
    alone = compare(run({("a", "clean"): flags(100)}), run({("a", "clean"): flags(94)}))
    assert alone.cells[0].p_value == 1 / 32 and alone.cells[0].verdict == "B worse"
    specs = ["clean", *(f"gaussian_noise(severity={s})" for s in range(1, 6)), *(f"contrast(severity={s})" for s in range(1, 5))]
    one, two = ({("a", spec): flags(right if spec == "clean" else 100) for spec in specs} for right in (100, 94))
    many = compare(run(one), run(two))
    assert many.comparisons == 10 and many.cells[0].p_value == 10 / 32 and many.cells[0].verdict == "no difference shown"
    assert many.cells[0].test.high - many.cells[0].test.low > alone.cells[0].test.high - alone.cells[0].test.low
    assert many.cells[0].test.confidence == pytest.approx(0.995) and {cell.p_value for cell in many.cells[1:]} == {1.0}
    assert many.headline == "B is better in 0 and worse in 0 of 10 cells; no difference is shown in 10"


def test_holm_against_a_slow_twin():
    rng = np.random.default_rng(0)
    for m in (1, 2, 7, 30):
        values = rng.random(m).round(2) ** 3
        order = sorted(range(m), key=lambda k: values[k])
        want, least = [0.0] * m, 0.0
        for rank, k in enumerate(order):
            least = max(least, min(1.0, (m - rank) * values[k]))
            want[k] = least
        assert holm(values.tolist()) == pytest.approx(want)
    assert holm([]) == []


def test_the_chance_of_a_false_alarm_is_kept():
    """Under no difference at all at most 5 % of comparisons with 8 cells cry wolf."""
    rng, alarms = np.random.default_rng(1), 0
    specs = ["clean", *(f"contrast(severity={s})" for s in range(1, 6)), "gaussian_blur(severity=1)", "gaussian_blur(severity=2)"]
    for _ in range(200):
        one, two = (run({("a", spec): rng.random(N) < 0.7 for spec in specs}) for _ in range(2))
        alarms += any(cell.verdict in ("B better", "B worse") for cell in compare(one, two).cells)
    assert alarms <= 20  # 5 % of 200 is 10; 20 would be a 1 in 500 accident


def test_cells_are_matched_by_what_they_mean():
    a = run({("n", "clean"): flags(180), ("n", "pgd(threat=ball(norm=inf,eps=8/255),steps=40)"): flags(90), ("n", "fog"): flags(120)})
    b = run({("n", "clean"): flags(180), ("n", PGD): flags(60), ("n", "contrast(severity=1)"): flags(120)})
    found = compare(a, b)
    assert [cell.verdict for cell in found.cells] == ["no difference shown", "B worse"]
    assert found.only_a == ["fog"] and found.only_b == ["contrast(severity=1)"]
    a.plan["full"] = {"pgd(threat=ball(norm=inf,eps=8/255),steps=40)": "pgd(threat=ball(norm=inf, eps=4/255), steps=40)"}
    assert len(compare(a, b).cells) == 1  # written by a version in which the text meant something else
    gone = {("n", "clean"): flags(9), ("n", "not_installed(x=1)"): flags(9)}
    assert len(compare(run(gone), run(gone)).cells) == 2


def test_networks_are_paired_by_name_or_as_the_only_ones():
    a, b = run({("x", "clean"): flags(9), ("y", "clean"): flags(8)}), run({("y", "clean"): flags(7), ("z", "clean"): flags(6)})
    found = compare(a, b)
    assert found.pairs == [("y", "y")] and found.notes[:2] == ["Networks of A without a partner: x.", "Networks of B without a partner: z."]
    assert compare(a, b, pairs=[("x", "z")]).pairs == [("x", "z")]
    with pytest.raises(StoreError, match=r"B has no network 'w'; it has y, z"):
        compare(a, b, pairs=[("x", "w")])
    with pytest.raises(StoreError, match=r"no network .* same name \(A has x, y; B has q\).*--pair"):
        compare(a, run({("q", "clean"): flags(3)}))


def test_other_data_are_refused():
    a, b = run({("n", "clean"): flags(9)}), run({("n", "clean"): flags(9)}, data={"spec": "digits", "digest": "e", "n": 100})
    with pytest.raises(StoreError, match=r"different data \(one: digits, 200 samples and two: digits, 100 samples.*same --data, --limit"):
        compare(a, b, ("one", "two"))


def test_cells_without_an_answer_say_why_and_are_not_counted():
    a = run({("n", "clean"): flags(150), ("n", PGD): "out of memory"})
    found = compare(a, run({("n", "clean"): flags(100), ("n", PGD): flags(50)}))
    assert found.comparisons == 1 and found.cells[1].verdict == "no answer" and "A: failed: out of memory" in found.cells[1].reason
    assert "1 have no answer" in found.headline
    empty = run({("n", "clean"): "no"})
    assert compare(empty, empty).comparisons == 0 and "no answer" in comparison_text(compare(empty, empty))


def test_what_else_differs_is_said():
    cells = {("n", "clean"): flags(150)}
    data = {"spec": "digits", "digest": "d", "n": N, "columns": ["cluster"]}
    a = run(cells, versions={"clean": "1"}, data=data)
    found = compare(a, run(cells, versions={"clean": "2"}, seed=3, data=data))
    said = "\n".join(found.notes)
    for words in (
        "seeds differ (0 and 3)",
        "other versions, whose numbers may differ for that reason: clean",
        "come in clusters",
        "same network",
    ):
        assert words in said


def test_text_and_json():
    a, b = run({("n", "clean"): flags(150), ("n", "fog"): flags(9)}), run({("n", "clean"): flags(170)})
    found = compare(a, b, ("runs/one", "runs/two"))
    text = comparison_text(found)
    assert text.splitlines()[:3] == [found.headline, "A: runs/one", "B: runs/two"] and "Only in A: fog." in text
    (line,) = [line for line in text.splitlines() if "B better" in line and "clean" in line]
    assert "0.750" in line and "0.850" in line and "+0.100 [+0.0" in line
    told = json.loads(json.dumps(found.to_json()))
    assert told["cells"][0]["difference"] == 0.1 and told["cells"][0]["verdict"] == "B better" and told["only_a"] == ["fog"]


def test_the_page_shows_text_as_text_and_loads_nothing(tmp_path):
    evil = "</td><script>alert(1)</script>\x1b[2J"
    a = run({(evil, "clean"): flags(150), (evil, f"gone('{evil}')"): evil}, data={"spec": evil, "digest": "d", "n": N})
    page = write_comparison(compare(a, a, (evil, evil)), tmp_path / "sub" / "d.html").read_text()
    assert "<script" not in page and "&lt;script&gt;" in page and "\x1b" not in page and len(page) < 20_000
    assert "default-src 'none'" in page and "http://" not in page and "https://" not in page and page.count("<svg") == 1
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot write"):
        write_comparison(compare(a, a), tmp_path / "file" / "d.html")
    assert "[2J" in comparison_text(compare(a, a)) and "\x1b" not in comparison_text(compare(a, a))
