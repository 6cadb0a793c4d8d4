"""The probe: planted dimensions are found, shards change nothing, sketches say how sure they are."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from brinell.core.draws import derive
from brinell.core.errors import SpecError
from brinell.core.measurement import Bound, Status
from brinell.core.tally import unpack
from brinell.probe.dimensionality import Dimensionality
from brinell.probe.moments import covariance_of
from brinell.probe.sketch import sketched, unfolded_ratio
from brinell.probe.spectrum import components, participation_ratio, spectrum

N, U = 200, 12


@pytest.fixture
def twin_view(make_view):
    """A view and its clean twin; the change lives in 3 dimensions of 12."""

    def built(clean: np.ndarray, perturbed: np.ndarray):
        n = len(clean)
        made = make_view(np.zeros((n, 2), np.float32), np.zeros(n, int), activations={"a:0": torch.tensor(clean)}, ids=np.arange(n) * 3)
        moved = replace(made, activations={"a:0": torch.tensor(perturbed)}, z=made.x + 1)
        return replace(moved, clean=made)

    return built


@pytest.fixture
def clouds():
    lot = np.random.default_rng(0)
    clean = lot.normal(size=(N, U)) * np.arange(1, U + 1)
    return clean, clean + lot.normal(size=(N, 3)) @ lot.normal(size=(3, U))


def test_all_four_forms_equal_numpy(clouds, twin_view, find):
    clean, perturbed = clouds
    view = twin_view(clean, perturbed)
    probe = Dimensionality(sample=50)

    def ratio(a):
        values = np.linalg.eigvalsh(np.cov(a.T, bias=True))
        return values.sum() ** 2 / (values**2).sum()

    for suffix, a in (("", perturbed), ("_clean", clean), ("_change", perturbed - clean)):
        reading = find(probe, view, name=f"participation_ratio{suffix}", layer="a:0")
        assert reading.value == pytest.approx(ratio(a), rel=1e-9) and reading.bound is Bound.EXACT and reading.n == N
        values = find(probe, view, name=f"components_90{suffix}", layer="a:0").array
        assert values == pytest.approx(np.linalg.eigvalsh(np.cov(a.T, bias=True))[::-1], rel=1e-6, abs=1e-9)
    assert find(probe, view, name="components_99_change", layer="a:0").value <= 3
    increase = find(probe, view, name="participation_ratio_increase", layer="a:0").value
    assert increase == pytest.approx(ratio(perturbed) - ratio(clean), rel=1e-9)
    assert find(probe, view, name="two_nn", layer="a:0").bound is Bound.ESTIMATE


def test_streamed_in_shards_it_is_the_same(clouds, twin_view, measure):
    clean, perturbed = (a.astype(np.float32) + 50 for a in clouds)
    view = twin_view(clean, perturbed)

    def part(rows):
        inner = replace(view.clean, ids=view.ids[rows], x=view.x[rows], y=view.y[rows], logits=view.logits[rows],
                        activations={"a:0": view.clean.activations["a:0"][rows]})  # fmt: skip
        return replace(inner, z=view.z[rows], activations={"a:0": view.activations["a:0"][rows]}, clean=inner)

    probe = Dimensionality(sample=60)
    whole = measure(probe, view)
    parts = measure(probe, part(slice(120, 200)), part(slice(0, 37)), part(slice(37, 120)))
    assert [(r.name, r.layer) for r in whole] == [(r.name, r.layer) for r in parts]
    for one, other in zip(whole, parts, strict=True):
        assert one.value == pytest.approx(other.value, rel=1e-9)


def test_shards_in_which_nothing_moved(clouds, twin_view, measure):
    """They count with their clean activations on both sides and with no change."""
    clean, perturbed = clouds
    half = np.concatenate([clean[:100], perturbed[100:]])
    still = twin_view(clean[:100], clean[:100])
    still = replace(still, z=still.x)
    moved = twin_view(clean[100:], perturbed[100:])
    moved = replace(moved, ids=moved.ids + 1000)
    probe = Dimensionality(sample=60)
    found = {r.name: r for r in measure(probe, still, moved)}
    assert found["participation_ratio"].value == pytest.approx(participation_ratio(torch.tensor(half)))
    assert found["participation_ratio_clean"].value == pytest.approx(participation_ratio(torch.tensor(clean)))
    assert found["participation_ratio_change"].value == pytest.approx(participation_ratio(torch.tensor(half - clean)))
    assert {found[f"components_90{form}"].n for form in ("", "_clean", "_change")} == {N}
    alone = {r.name for r in measure(probe, still)}
    assert not any(name.endswith(("_clean", "_change", "_increase")) for name in alone) and "two_nn" in alone


def test_nothing_that_varies_has_no_dimension(make_view, measure):
    view = make_view(np.zeros((20, 2), np.float32), np.zeros(20, int), activations={"a:0": torch.ones(20, 4)})
    found = {r.name: r for r in measure(Dimensionality(), view)}
    assert [found[name].value for name in ("components_90", "participation_ratio", "effective_rank")] == [0, 0, 0]
    assert found["two_nn"].status is Status.UNDEFINED


def planted(n: int, d: int, rank: int, seed: int = 0) -> torch.Tensor:
    """n maps (d, 4, 4) whose variance is the same in `rank` directions."""
    lot = np.random.default_rng(seed)
    basis = np.linalg.qr(lot.normal(size=(d * 16, rank)))[0]
    return torch.tensor(lot.normal(size=(n, rank)) @ basis.T, dtype=torch.float32).reshape(n, d, 4, 4)


@pytest.mark.parametrize("rank", [3, 20, 60])
def test_the_sketch_finds_planted_dimensions_of_maps(rank, make_view, find):
    maps = planted(1500, 64, rank)
    view = make_view(np.zeros((1500, 2), np.float32), np.zeros(1500, int), activations={"a:0": maps})
    exact = participation_ratio(maps.flatten(1))
    probe = Dimensionality(flat=256)
    reading = find(probe, view, name="participation_ratio", layer="a:0")
    assert reading.value == pytest.approx(exact, rel=0.1) and reading.bound is Bound.ESTIMATE
    assert find(probe, view, name="sketch_error", layer="a:0").value < 0.2
    assert find(probe, view, name="sketch_rank", layer="a:0").value == pytest.approx(rank, abs=1)
    assert find(probe, view, name="components_90", layer="a:0").value == pytest.approx(components(spectrum(maps.flatten(1))), rel=0.15)


def test_the_sketch_is_unbiased_over_layers_names():
    """The estimate averaged over independent signs (layers of other names) meets the exact ratio."""
    maps = planted(800, 32, 40, seed=1)
    exact = participation_ratio(maps.flatten(1))
    flat = maps.flatten(1).double()
    found = []
    for layer in range(40):
        sums, entries = sketched(flat, 64, str(layer))
        found.append(1 / unfolded_ratio(covariance_of(sums), covariance_of(entries))[0])
    assert 1 / np.mean(found) == pytest.approx(exact, rel=0.03)


def test_small_maps_are_not_folded(make_view, find):
    maps = planted(100, 2, 5)
    view = make_view(np.zeros((100, 2), np.float32), np.zeros(100, int), activations={"a:0": maps})
    reading = find(Dimensionality(flat=64), view, name="participation_ratio", layer="a:0")
    assert reading.bound is Bound.EXACT and reading.value == pytest.approx(participation_ratio(maps.flatten(1)), rel=1e-9)


def test_broken_activations_are_undefined(make_view, measure):
    values = torch.rand(20, 4)
    values[3, 2] = torch.nan
    view = make_view(np.zeros((20, 2), np.float32), np.zeros(20, int), activations={"a:0": values})
    assert all(r.status is Status.UNDEFINED and "NaN" in r.reason for r in measure(Dimensionality(), view))


def test_the_tally_can_be_stored(clouds, twin_view):
    view = twin_view(*clouds)
    probe = Dimensionality(sample=10)
    tally = probe.observe(view, draws=derive(0, ids=view.ids))
    again = unpack(*tally.pack())
    assert [r.value for r in probe.read(again)] == [r.value for r in probe.read(tally)]


def test_tiny_sketches_are_refused():
    with pytest.raises(SpecError, match="at least 8"):
        Dimensionality(flat=4)


@pytest.mark.parametrize(
    ("n", "u", "offset", "dtype"),
    [(40, 9, 0, np.float64), (12, 30, 0, np.float64), (200, 9, 1e7, np.float64), (200, 9, 1e4, np.float32), (6, 2000, 1, np.float32)],
)
def test_the_streamed_spectrum_is_numpys_of_the_whole_matrix(n, u, offset, dtype, make_view, measure):
    """Also with fewer samples than units, with means that dwarf the spread, and in shards of one and two samples."""
    lot = np.random.default_rng(n + u)
    a = (lot.normal(size=(n, u)) * lot.uniform(0.1, 2, u) + offset).astype(dtype)
    parts = np.array_split(a, [1, 3, n // 2])
    places = np.array_split(np.arange(n), [1, 3, n // 2])
    views = [
        make_view(np.zeros((len(part), 2), np.float32), np.zeros(len(part), int), ids=ids, activations={"a:0": torch.tensor(part)})
        for part, ids in zip(parts, places, strict=True)
    ]
    wide = a.astype(np.float64)
    expected = np.linalg.svd(wide - wide.mean(0), compute_uv=False) ** 2 / n
    expected = np.concatenate([expected, np.zeros(u - len(expected))])
    found = {r.name: r for r in measure(Dimensionality(sample=0), *views)}
    assert found["components_90"].array == pytest.approx(expected, rel=1e-6, abs=1e-6 * expected[0])
    assert found["participation_ratio"].value == pytest.approx(expected.sum() ** 2 / (expected**2).sum(), rel=1e-6)
    assert spectrum(torch.tensor(a)).numpy() == pytest.approx(expected, rel=1e-6, abs=1e-6 * expected[0])


def test_planted_dimensionality_is_recovered(make_view, find):
    """20 equal directions: of 64 units, and of 1,024 entries of maps, folded into 512 sums."""
    maps, units = planted(3000, 64, 20), planted(3000, 4, 20).flatten(1)
    view, pooled = (make_view(np.zeros((3000, 2), np.float32), np.zeros(3000, int), activations={"a:0": a}) for a in (maps, units))
    for probe, seen in ((Dimensionality(sample=0), pooled), (Dimensionality(flat=512), view)):
        assert find(probe, seen, name="components_99", layer="a:0").value == pytest.approx(20, abs=1)
    assert find(Dimensionality(flat=2048), view, name="participation_ratio", layer="a:0").value == pytest.approx(20, rel=0.02)


def test_points_that_were_moved_nowhere_have_no_dimension_of_change(clouds, twin_view, measure):
    """An attack that leaves every sample where it was: the change is all zero, and nothing is divided by it."""
    view = twin_view(clouds[0], clouds[0])
    found = {r.name: r for r in measure(Dimensionality(sample=50), view)}
    for name in ("components_90", "participation_ratio", "effective_rank", "two_nn", "nearest_neighbour_dimension"):
        assert found[f"{name}_change"].value == 0
        assert found[f"{name}_increase"].value == 0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("offset", [0, 1000])
def test_a_sketch_is_the_moments_of_signed_sums(offset, dtype):
    """In shards of any size, with a number of entries that is no multiple of the sums, with means that dwarf the spread."""
    n, d, k = 70, 100, 16
    a = (np.random.default_rng(3).normal(size=(n, d)) * 3 + offset).astype(dtype)
    parts = [sketched(torch.tensor(part), k, "a") for part in np.array_split(a, [0, 1, 20])]
    sums, entries = ((parts[2][i] + parts[0][i]) + (parts[1][i] + parts[3][i]) for i in (0, 1))
    wide = a.astype(np.float64)
    assert covariance_of(entries).numpy() == pytest.approx(wide.var(0), rel=1e-5)
    assert entries["mean"].numpy() == pytest.approx(wide.mean(0), rel=1e-6, abs=1e-6)
    single = [sketched(torch.tensor(row), k, "a")[0]["mean"].numpy() for row in np.stack([np.zeros((1, d)), *np.eye(d)[:, None]])]
    fold = np.stack(single[1:])  # (d, k): where each entry goes, and its sign
    assert (np.abs(fold).sum(1) == 1).all() and (fold[np.arange(d), np.arange(d) % k] != 0).all() and len(np.unique(fold)) == 3
    assert not np.array_equal(fold, np.abs(fold)) and not single[0].any()
    assert sums["mean"].numpy() == pytest.approx(wide.mean(0) @ fold, rel=1e-5, abs=1e-4)
    assert covariance_of(sums).numpy() == pytest.approx(np.cov(wide @ fold, rowvar=False, bias=True), rel=1e-4, abs=1e-3)


def test_a_sketch_of_half_precision_is_that_of_its_values():
    a = torch.rand(30, 64, generator=torch.Generator().manual_seed(0)).half()
    for half, full in zip(sketched(a, 8), sketched(a.float(), 8), strict=True):
        assert torch.equal(half["scatter"], full["scatter"])


def test_layers_of_all_widths_are_read_as_if_alone(make_view, measure):
    """Narrow ones side by side, and folded ones between them, clean and perturbed, in two shards."""
    lot = np.random.default_rng(5)
    shapes = {"z:0": (2, 4, 4), "m:0": (16, 4, 4), "a:0": (3, 4, 4)}
    clean = {name: torch.tensor(lot.normal(size=(40, *shape)) * lot.uniform(1, 3), dtype=torch.float32) for name, shape in shapes.items()}
    moved = {name: a + torch.tensor(lot.normal(size=a.shape), dtype=torch.float32) for name, a in clean.items()}

    def views(names):
        for rows in (slice(0, 15), slice(15, 40)):
            n = rows.stop - rows.start
            still = make_view(
                np.zeros((n, 2), np.float32), np.zeros(n, int), ids=np.arange(40)[rows], activations={a: clean[a][rows] for a in names}
            )
            yield replace(still, z=still.x + 1, activations={a: moved[a][rows] for a in names}, clean=still)

    for probe in (Dimensionality(flat=48), Dimensionality(flat=8), Dimensionality(flat=4096)):
        together = measure(probe, *views(shapes))
        assert [r.layer for r in together if r.name == "components_90"] == list(shapes)
        for name in shapes:
            alone = {r.name: r.value for r in measure(probe, *views([name]))}
            assert {r.name: r.value for r in together if r.layer == name} == pytest.approx(alone, rel=1e-9, abs=1e-9)
