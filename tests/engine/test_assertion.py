"""`assert_robust` inside a test suite: it measures what is named, and fails with the table of a gate."""

import pytest

import brinell as br
from brinell.core.errors import SpecError
from brinell.engine.assertion import assert_robust

FGSM = "fgsm(threat=ball(eps=0.1))"


def test_a_network_that_is_robust_enough(make_net, data):
    table = assert_robust(make_net(), data, f"accuracy[{FGSM}] >= 0", "robust_accuracy[ball(eps=0.1)] <= 1", "accuracy <= 1")
    assert [row["perturbation"] for row in table.select(name="accuracy")] == ["clean", br.parse(FGSM).spec()]


def test_one_that_is_not_fails_with_the_table(make_net, data):
    with pytest.raises(AssertionError) as caught:
        assert_robust({"a": make_net(), "b": make_net(seed=1)}, data, f"value(accuracy[{FGSM}]) >= 0.99", "accuracy >= 0")
    lines = str(caught.value).splitlines()
    assert lines[:2] == ["the network is not robust enough", f"value(accuracy[{FGSM}]) >= 0.99"]
    assert [line.split(":")[0] for line in lines[2:4]] == ["  NOT MET  a", "  NOT MET  b"] and lines[-1] == "2 of 4 met"


def test_what_nothing_reads_is_no_failure_of_the_network(make_net, data):
    with pytest.raises(SpecError, match=r"(?s)pass perturb=, probes= or summaries=.*MISSING.*ece"):
        assert_robust(make_net(), data, "ece <= 1")
    assert assert_robust(make_net(), data, "ece <= 1", probes=("calibration",)).value("ece") is not None
    with pytest.raises(SpecError, match="needs a requirement"):
        assert_robust(make_net(), data)


def test_a_kept_run_is_not_measured_again(make_net, data, tmp_path):
    for _ in range(2):
        assert_robust(make_net(), data, "accuracy >= 0", perturb=(FGSM,), limit=20, seed=3, directory=tmp_path)
        files = {file: file.stat().st_mtime_ns for file in (tmp_path / "readings").iterdir()}
    assert files == {file: file.stat().st_mtime_ns for file in files} and len(files) == 2


def test_it_is_part_of_the_package():
    assert br.assert_robust is assert_robust
