"""Divergence of clean and perturbed output: a slow twin, scales, and what cannot be read."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import brinell as br
from brinell.core.measurement import Status
from brinell.probe.divergence import Divergence, divergences
from brinell.probe.logit_scale import logit_scale

RNG = np.random.default_rng(0)
CLEAN, MOVED = 3 * RNG.normal(size=(9, 5)), 3 * RNG.normal(size=(9, 5))


def slow(clean, moved, scale):
    out = {"kl": [], "reverse_kl": [], "js": []}
    for a, b in zip(clean / scale, moved / scale, strict=True):
        p, q = (np.exp(z) / np.exp(z).sum() for z in (a, b))
        m = (p + q) / 2
        out["kl"].append(sum(p * np.log(p / q)))
        out["reverse_kl"].append(sum(q * np.log(q / p)))
        out["js"].append((sum(p * np.log(p / m)) + sum(q * np.log(q / m))) / 2)
    return {name: np.array(values) for name, values in out.items()}


def seen(make_view, clean, moved, **columns):
    base = make_view(torch.as_tensor(clean), np.zeros(len(clean), int), **columns)
    return replace(make_view(torch.as_tensor(moved), np.zeros(len(moved), int), **columns), clean=base)


def test_readings_by_a_slow_twin(make_view, measure):
    readings = {(r.name, r.layer): r for r in measure(Divergence(scale=2.5), seen(make_view, CLEAN, MOVED))}
    for layer, scale in (("raw", 1.0), ("normalised", 2.5)):
        for name, values in slow(CLEAN, MOVED, scale).items():
            mean, median = readings[name, layer], readings[f"{name}_median", layer]
            assert mean.array == pytest.approx(values, rel=1e-9) and mean.value == pytest.approx(values.mean())
            assert mean.low <= mean.value <= mean.high and median.value == pytest.approx(np.median(values))


def test_no_change_is_no_divergence_and_the_largest_has_a_limit(make_view, measure):
    same = {(r.name, r.layer): r.value for r in measure(Divergence(scale=1.0), seen(make_view, CLEAN, CLEAN))}
    assert all(0 <= value < 1e-15 for value in same.values())
    far = 1e4 * torch.eye(3, dtype=torch.float64)
    found = divergences(far, far.roll(1, 0))
    assert found["js"].numpy() == pytest.approx(np.full(3, math.log(2))) and bool((found["kl"] > 9e3).all())


def test_two_classes_one_sample_and_clusters(make_view, measure):
    one = {r.name: r for r in measure(Divergence(scale=1.0), seen(make_view, CLEAN[:1, :2], MOVED[:1, :2])) if r.layer == "raw"}
    assert one["kl"].value == pytest.approx(slow(CLEAN[:1, :2], MOVED[:1, :2], 1)["kl"][0]) and one["kl"].low is None
    plain, grouped = (
        next(r for r in measure(Divergence(scale=1.0), seen(make_view, np.repeat(CLEAN, 8, 0), np.repeat(MOVED, 8, 0), **columns)))
        for columns in ({}, {"cluster": np.repeat(np.arange(9), 8)})
    )
    assert grouped.high - grouped.low > 1.5 * (plain.high - plain.low), "copies tell nothing new"


def test_what_is_not_a_number_has_no_divergence(make_view, measure):
    broken = MOVED.copy()
    broken[3, 1] = np.nan
    readings = measure(Divergence(scale=1.0), seen(make_view, CLEAN, broken))
    assert all(r.status is Status.UNDEFINED and "1 of 9 samples" in r.reason and "first id 3" in r.reason for r in readings)
    alone = [r for r in measure(Divergence(), seen(make_view, CLEAN, MOVED)) if r.layer == "normalised"]
    assert alone and all("give scale" in r.reason for r in alone)


def test_the_scale_is_that_of_the_clean_logits():
    centred = CLEAN - CLEAN.mean(1, keepdims=True)
    assert logit_scale(torch.as_tensor(CLEAN)) == pytest.approx(np.sqrt((centred**2).mean()))
    assert logit_scale(torch.as_tensor(CLEAN + 7)) == pytest.approx(logit_scale(torch.as_tensor(CLEAN)))
    assert logit_scale(torch.ones(3, 4)) == 0


def test_under_any_perturbation_of_a_lab():
    data = br.load_dataset("digits(side=8)", limit=40)
    net = br.load_network("mlp(widths=(16,))", shape=data.shape, classes=10)
    worst, noise = "pgd(goal=maximise(kl), threat=ball(eps=0.1))", "uniform_noise(threat=ball(eps=0.1))"
    table = br.Lab(batch_size=16).measure(net, data, [worst, noise], ["divergence"])
    for layer in ("raw", "normalised"):
        far, near, none = (table.value("kl", layer=layer, perturbation=cell) for cell in (worst, noise, "clean"))
        assert far > 3 * near > none == 0
    constant = br.Network(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)))
    with torch.no_grad():
        for p in constant.module.parameters():
            p.zero_()
    row = br.Lab().measure(constant, data, [], ["divergence"]).row("kl", layer="normalised")
    assert row["status"] == "undefined" and "do not differ" in row["reason"]
