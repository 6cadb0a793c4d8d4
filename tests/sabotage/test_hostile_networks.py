"""Networks that answer in odd ways: each is measured as documented, or refused or noted by name; never a silent number."""

import collections
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import brinell as br
from brinell.core.errors import NetworkError
from brinell.core.measurement import Verdict

FGSM = "fgsm(threat=ball(eps=0.05))"
Output = collections.namedtuple("Output", "loss logits")


class Answering(nn.Module):
    """What a function makes of a healthy network's logits, of its inputs, or of both."""

    def __init__(self, net, made):
        super().__init__()
        self.net, self.made = net, made

    def forward(self, x):
        return self.made(self.net(x), x)


def only(condition, remedy):
    """Logits where a condition on the batch holds; else the error that such networks raise."""

    def made(y, x):
        if not condition(len(x)):
            raise RuntimeError(remedy)
        return y

    return made


TAKEN = {
    "a dict with logits": lambda y, x: {"logits": y, "hidden": x},
    "a model output": lambda y, x: SimpleNamespace(logits=y, hidden_states=None),
    "a named tuple": lambda y, x: Output(y.sum(), y),
    "a tuple of one": lambda y, x: (y,),
    "a tuple of loss and logits": lambda y, x: (y.sum(), y),
    "a tuple with features of other axes": lambda y, x: (y, x),
    "a list": lambda y, x: [y],
    "float64 logits": lambda y, x: y.double(),
    "float16 logits": lambda y, x: y.half(),
    "bfloat16 logits": lambda y, x: y.bfloat16(),
    "a view of stride 2": lambda y, x: torch.stack([y, y], 2)[:, :, 0],
}
REFUSED = {
    "another device": (lambda y, x: torch.empty(y.shape, device="meta"), "returned logits on meta for inputs on cpu"),
    "nothing": (lambda y, x: None, r"returned NoneType \(no entries\); expected \(n, K\) logits"),
    "a text": (lambda y, x: "cat", "returned str"),
    "a list of labels": (lambda y, x: y.argmax(1).tolist(), "returned list"),
    "labels": (lambda y, x: y.argmax(1), r"returned shape \(\d+,\)"),
    "one-hot labels": (lambda y, x: nn.functional.one_hot(y.argmax(1), 10), "returned torch.int64 numbers .*before any argmax"),
    "yes and no": (lambda y, x: y > 0, "returned torch.bool numbers"),
    "complex numbers": (lambda y, x: y.to(torch.complex64), "returned torch.complex64 numbers"),
    "one column": (lambda y, x: y[:, :1], "K >= 2 classes"),
    "a map of logits": (lambda y, x: y[:, :, None, None], r"returned shape \(\d+, 10, 1, 1\)"),
    "a row too few": (lambda y, x: y[1:], r"returned shape \(\d+, 10\) for \d+ inputs"),
    "classes first": (lambda y, x: y.T, r"returned shape \(10, \d+\)"),
    "too few classes": (lambda y, x: y[:, :7], "has 7 outputs but digits.* has 10 classes"),
    "two heads": (lambda y, x: (y, y), r"returned tuple \(0: \(\d+, 10\), 1: \(\d+, 10\)\)"),
    "logits and features": (lambda y, x: (y, x.flatten(1)), r"returned tuple .*as its only \(n, K\) tensor"),
    "a dict without logits": (lambda y, x: {"out": y}, r"returned dict \(out: \(\d+, 10\)\); .*under the name 'logits'"),
    "logits that are none": (lambda y, x: {"logits": None}, "returned dict"),
    "a sparse tensor": (lambda y, x: y.to_sparse(), "torch.sparse_coo"),
    "an error of its own": (lambda y, x: [][0], "fails on digits.*IndexError"),
    "a key error": (lambda y, x: {}["pixel_values"], "fails on digits.*KeyError"),
    "another input": (lambda y, x: y @ torch.ones(3, 3), "fails on digits.*Check channels, side and normalisation"),
}  # fmt: skip


def measured(net, data, perturbations=(FGSM,)):
    return br.Lab(device="cpu").measure({"net": net}, data, perturbations, ["accuracy"], ["checks"])


def accuracies(table):
    return {row["perturbation"]: row["value"] for row in table.select(name="accuracy")}


@pytest.mark.parametrize("case", TAKEN)
def test_logits_are_taken_where_they_are_unambiguous(case, healthy, data):
    found = accuracies(measured(Answering(healthy, TAKEN[case]), data))
    expected = accuracies(measured(healthy, data))
    if "16" in case:  # rounding may turn a close call
        assert found == {spec: pytest.approx(value, abs=0.05) for spec, value in expected.items()}
    else:
        assert found == expected


@pytest.mark.parametrize("case", REFUSED)
def test_what_holds_no_logits_is_refused_by_name(case, healthy, data):
    made, said = REFUSED[case]
    with pytest.raises(NetworkError, match=said) as caught:
        measured(Answering(healthy, made), data)
    assert len(str(caught.value)) < 700 and "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", [torch.float64, torch.float16, torch.bfloat16])
def test_weights_of_another_type_are_named_and_a_network_that_converts_is_measured(kind, healthy, data):
    moved = nn.Sequential(nn.Flatten(), nn.Linear(64, 10, dtype=kind))
    moved[1].load_state_dict(healthy[1].state_dict())
    with pytest.raises(NetworkError, match=rf"holds {str(kind).removeprefix('torch.')} weights and fails on float32 samples"):
        measured(moved, data)

    class Converting(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = moved

        def forward(self, x):
            return self.net(x.to(kind))

    found = accuracies(measured(Converting(), data))
    assert found["clean"] == pytest.approx(accuracies(measured(healthy, data))["clean"], abs=0.05)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("share", ["all", "some"])
def test_no_answer_is_never_a_right_one(value, share, healthy, data, finding):
    def spoil(y, x):
        bright = x.flatten(1).mean(1, keepdim=True) > (-1 if share == "all" else 0.33)
        return torch.where(bright, value, y)

    table = measured(Answering(healthy, spoil), data)
    assert finding(table, "nonfinite_output").verdict is Verdict.FAIL
    samples = table.samples("net", "clean")
    assert not samples["correct"][~samples["finite"]].any() and (samples["prediction"][~samples["finite"]] == -1).all()


def test_minus_infinity_is_an_answer(healthy, data):
    """It says: never this class."""
    banned = Answering(healthy, lambda y, x: torch.where(torch.arange(10) == 3, -torch.inf, y))
    samples = measured(banned, data).samples("net", "clean")
    assert samples["finite"].all() and (samples["prediction"] != 3).all()


def test_a_network_that_writes_into_its_input_is_refused(healthy, data):
    with pytest.raises(NetworkError, match=r"writes into its input, so that nobody knows what it was asked; let it begin with x = x.clone"):
        measured(Answering(nn.Sequential(nn.ReLU(inplace=True), healthy), lambda y, x: y), data)


def test_what_a_failing_network_says_is_cut(healthy, data):
    wordy = Answering(healthy, only(lambda n: n < 0, "very\nlong " * 10_000))
    with pytest.raises(NetworkError, match=r"very long very long .*\.\.\.") as caught:
        measured(wordy, data)
    assert len(str(caught.value)) < 1500


@pytest.mark.parametrize("n", [1, 2, 3])
def test_so_few_samples_that_no_check_can_be_run_is_said(n, healthy, data, finding):
    table = br.Lab(device="cpu").measure({"net": healthy}, data.take(slice(0, n)), [FGSM], ["accuracy", "diagnostics"], ["checks"])
    assert len(accuracies(table)) == 2
    assert all(found.message for found in table.findings)


def test_a_batch_that_is_refused_is_never_a_number(healthy, data):
    """A network that fails on some batch sizes is measured on those it takes, or stops with its own words."""
    never_one = Answering(healthy, only(lambda n: n > 1, "Expected more than 1 value per channel when training"))
    assert accuracies(measured(never_one, data))["clean"] == accuracies(measured(healthy, data))["clean"]
    table = measured(never_one, data.take(slice(0, 1)))
    (row,) = table.select(name="accuracy", perturbation="clean") or [{"value": None}]
    assert row["value"] is None
