"""The probe `surface`: affine networks in closed form, units, planes, which images, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import brinell as br
from brinell.core.component import parse
from brinell.core.draws import derive
from brinell.core.errors import SpecError
from brinell.core.network import Counted, NetReference
from brinell.core.probe import View
from brinell.models.reference import linear_network
from brinell.probe.surface import Surface
from brinell.probe.surface_plane import of_unit_length, parallel, random_beside, triples

IDS = torch.tensor([30, 4, 17, 8])
Read = Callable[..., dict[tuple[str, str], br.Reading]]


def view_of(net: Callable[[Tensor], Tensor], x: Tensor, y: Tensor | None = None) -> View:
    with torch.no_grad():
        logits = net(x)
    labels = logits.argmax(1) if y is None else y
    return View(x, x, labels, IDS[: len(x)], logits, net=Counted(net))


def read(probe: Surface, view: View) -> dict[tuple[str, str], br.Reading]:
    return {(found.name, found.layer): found for found in probe.read(probe.observe(view, draws=derive(1, ids=view.ids)))}


def images(n: int = 4, shape: tuple[int, ...] = (1, 5, 6), dtype: torch.dtype = torch.float64) -> Tensor:
    return derive(0, "images", ids=range(n)).uniform(*shape, low=0.3, high=0.7, dtype=torch.float64).to(dtype)


def binary(dtype: torch.dtype = torch.float64, shape: tuple[int, ...] = (1, 5, 6)) -> tuple[nn.Module, Tensor]:
    """Two classes, K = 2: S = z_0 - z_1 = w x + c for label 0."""
    weight = derive(0, "weight", ids=range(1)).normal(math.prod(shape), dtype=torch.float64).to(dtype)
    return linear_network(torch.cat((weight, -weight)), torch.tensor([0.05, -0.05], dtype=dtype)).requires_grad_(False), 2 * weight[0]


@pytest.mark.parametrize("norm", [2, math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("adaptive", [True, False])
def test_a_binary_affine_network_in_closed_form(norm: float, dtype: torch.dtype, adaptive: bool):
    net, w = binary(dtype)
    x = images(3, dtype=dtype)
    found = read(Surface(ball=br.Ball(norm=norm, eps=2.0), adaptive=adaptive), view_of(net, x))
    order, near = IDS[:3].argsort(), {"rel": 1e-4, "abs": 1e-5} if dtype == torch.float32 else {"rel": 1e-9, "abs": 1e-11}
    start = (net(x)[:, 0] - net(x)[:, 1]).abs().double()[order]
    dual = float(w.double().norm(1 if norm == math.inf else 2))
    far = found["surface_distance", "+first"].array
    assert far is not None and far.tolist() == pytest.approx((start / dual).tolist(), rel=near["rel"], abs=near["abs"])
    surface, places = found["surface", "margin"].array, found["surface_axis", ""].array
    assert surface is not None and places is not None and surface.dtype == (np.float32 if dtype == torch.float32 else np.float64)
    centre = len(places) // 2
    np.testing.assert_allclose(surface[:, centre], start[:, None].numpy() - dual * places, rtol=near["rel"], atol=20 * near["abs"])
    up = (surface[:, -1, centre] - surface[:, 0, centre]) / 4  # planar, so the two parts add
    plane = surface[:, centre : centre + 1] + (up[:, None] * places)[:, :, None]
    np.testing.assert_allclose(surface, plane, rtol=0, atol=100 * near["abs"])
    for name in ("surface_bend", "surface_bend_relative"):
        assert found[name, ""].value == pytest.approx(0, abs=200 * near["abs"])
    assert found["surface_passes", ""].value == (121 if adaptive else 41**2)
    if norm == 2:  # v is orthogonal to the gradient: the line S = 0 stands upright at the distance
        line = found["surface_boundary", ""].array
        assert line is not None and np.abs(line[:, [1, 3]] - far[line[:, 0].astype(int)][:, None]).max() < 20 * near["abs"]
        assert found["surface_boundary", ""].value == pytest.approx(4.0, rel=1e-4)
        assert found["surface_distance", "+second"].status == "undefined"
        expected = [(np.linspace(-2, 2, 41) > value).mean() for value in far]
        assert found["surface_lost", ""].value == pytest.approx(np.mean(expected))


def test_every_height_is_the_networks_own_at_the_composed_points():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(30, 20), nn.ReLU(), nn.Linear(20, 5)).double().requires_grad_(False)
    x = images(2)
    found = read(Surface(grid=7, adaptive=False, plane="random"), view_of(net, x))
    arrays = {key: reading.array for key, reading in found.items()}
    origin, ways, places = (arrays[name, ""] for name in ("surface_image", "surface_directions", "surface_axis"))
    assert set(np.unique(ways)) == {-1.0, 1.0}  # signs: Linf length 1
    order = IDS[:2].argsort()
    np.testing.assert_allclose(origin, x[order].numpy(), atol=2**-11)
    labels = net(x).argmax(1)[order]
    for image in range(2):
        for j, i in ((0, 0), (2, 6), (6, 1)):
            z = (
                x[order][image]
                + places[i] * torch.from_numpy(ways[image, 0]).double()
                + places[j] * torch.from_numpy(ways[image, 1]).double()
            )
            logits = net(z[None])[0]
            others = torch.cat((logits[: labels[image]], logits[labels[image] + 1 :]))
            assert arrays["surface", "margin"][image, j, i] == pytest.approx(float(logits[labels[image]] - others.max()), abs=1e-9)
            entropy = float(-logits.log_softmax(0)[labels[image]])
            assert arrays["surface", "cross_entropy"][image, j, i] == pytest.approx(entropy, abs=1e-9)
            room = float(torch.minimum(z.min(), 1 - z.max()))
            assert arrays["surface", "domain"][image, j, i] == pytest.approx(room, abs=1e-9)
            assert arrays["surface_classes", ""][image, j, i] == int(logits.argmax())


def test_clipping_stays_in_the_domain_and_has_no_bend_where_the_network_is_affine():
    seen = []
    inner, _ = binary()

    class Watched(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append((float(x.detach().min()), float(x.detach().max())))
            return inner(x)

    found = read(Surface(clip=True, ball=br.Ball(eps=0.9)), view_of(Watched(), images()))
    assert min(low for low, _ in seen) == 0 and max(high for _, high in seen) == 1
    assert found["surface_bend", ""].value == pytest.approx(0, abs=1e-9)
    values = found["surface", "domain"].array
    assert values is not None and values.min() < -0.5  # the plane itself goes on
    seen.clear()
    read(Surface(ball=br.Ball(eps=0.9)), view_of(Watched(), images()))
    assert min(low for low, _ in seen) < -0.5


def test_a_wrong_image_is_lost_at_once_and_has_distance_0():
    net, _ = binary()
    x = images(1)
    found = read(Surface(), view_of(net, x, 1 - net(x).argmax(1)))
    assert found["surface_distance", "+first"].value == 0
    assert (found["surface_lost", ""].value or 0) > 0.4


@pytest.mark.parametrize("shape", [(2,), (7,), (1, 3, 3), (3, 5, 4)])
@pytest.mark.parametrize("plane", ["gradient", "random"])
@pytest.mark.parametrize("norm", [2, math.inf])
def test_directions_have_unit_length_and_span_a_plane(shape: tuple[int, ...], plane: str, norm: float):
    net = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), 3)).double().requires_grad_(False)
    found = read(Surface(grid=5, ball=br.Ball(norm=norm, eps=0.1), images=4).replace(plane=plane), view_of(net, images(4, shape)))
    lengths, ways = found["surface_length", ""].array, found["surface_directions", ""].array
    assert lengths is not None and ways is not None
    np.testing.assert_allclose(lengths, 1, atol=1e-9)
    u, v = (torch.from_numpy(ways[:, side].reshape(4, -1)).double() for side in (0, 1))
    assert not parallel(u, v).any()
    if norm == 2:
        assert (u * v).sum(1).abs().max() < 2e-3  # half precision
    assert found["surface_stand_ins", ""].value == 0


def test_a_direction_that_does_not_exist_is_replaced_and_counted():
    flat = nn.Sequential(nn.Flatten(), nn.Linear(30, 3)).double()
    nn.init.zeros_(next(flat.parameters()))
    found = read(Surface(grid=5), view_of(flat, images(3)))
    assert found["surface_stand_ins", ""].value == 3
    net, _ = binary()
    same = parse("surface(plane=attacks, attack=fgsm(threat=ball(eps=0.9)), grid=5)")
    found = read(same, view_of(net, images(3)))
    stood = found["surface_stand_ins", ""].array
    assert stood is not None and stood.tolist() == [1, 1, 1]  # the second attack finds the first one's point


def test_two_attacks_lead_to_their_points():
    net, w = binary()
    x, y = images(2), None
    probe = parse("surface(plane=attacks, attack=fgsm(threat=ball(eps=0.2)), second=fgsm(threat=ball(norm=2, eps=0.2)), grid=5)")
    found = read(probe, view_of(net, x, y))
    ways = found["surface_directions", ""].array
    assert ways is not None
    sign = -torch.sign(net(x)[:, 0] - net(x)[:, 1])[IDS[:2].argsort()].numpy()[:, None]
    np.testing.assert_array_equal(ways[:, 0].reshape(2, -1), sign * np.sign(w.numpy()))
    np.testing.assert_allclose(ways[:, 1].reshape(2, -1), sign * w.numpy() / np.abs(w.numpy()).max(), atol=1e-3)


def lab_data(n: int = 12, classes: int = 3) -> tuple[br.Dataset, nn.Module]:
    x = images(n, (1, 4, 4), torch.float32)
    torch.manual_seed(1)
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, classes))
    return br.Dataset.from_arrays(x, np.arange(n) % classes), net


def test_the_plane_through_three_images_passes_through_them():
    data, net = lab_data()
    table = br.Lab(batch_size=5).measure(net, data, probes=["surface(plane=images, images=2)", "surface(plane=images, ids=(7, 2, 9))"])
    net.eval()
    for spec in ("surface(images=2, plane=images)", "surface(ids=(7, 2, 9), plane=images)"):

        def array(name: str, layer: str = "", spec: str = spec) -> np.ndarray:
            found = table.array(table.row(name, probe=spec, layer=layer))
            assert found is not None
            return found

        places = array("surface_axis")
        at = {value: int(np.abs(places - value).argmin()) for value in (0, 1)}
        assert [places[at[0]], places[at[1]]] == [0, 1]
        chosen = [7] if "ids" in spec else array("surface_ids").tolist()
        assert len(set(chosen)) == len(chosen) == (1 if "ids" in spec else 2)
        ways, surface = array("surface_directions"), array("surface", "cross_entropy")
        for row, name in enumerate(chosen):
            here = data.x()[list(data.ids).index(name)]
            corners = [here, *(here + torch.from_numpy(ways[row, side]).float() for side in (0, 1))]
            matches = [int(((data.x() - corner).abs().amax((1, 2, 3)) < 2e-3).nonzero()) for corner in corners]
            if "ids" in spec:
                assert data.ids[matches].tolist() == [7, 2, 9]
            else:
                assert len({int(data.y[match]) for match in matches}) == 3  # three classes
            with torch.no_grad():
                losses = -net(data.x()[matches]).log_softmax(1)[:, int(data.y[matches[0]])]
            found = [surface[row, at[0], at[0]], surface[row, at[0], at[1]], surface[row, at[1], at[0]]]
            assert found == pytest.approx(losses.tolist(), abs=2e-4)


def test_triples_run_out():
    assert triples([3, 1], [0, 0, 0, 0], 2) == []
    assert triples([0, 1, 2, 3], [0, 0, 1, 1], 5) == [(0, 2, 1)]


def test_images_are_the_same_for_every_network_batch_and_order():
    data, net = lab_data(20)
    found = []
    for size, samples in ((20, data), (3, data), (7, data.take(np.arange(20)[::-1].copy()))):
        table = br.Lab(batch_size=size).measure({"a": net}, samples, probes=["surface(images=4)"])
        found.append([table.array(table.row("surface_ids")), table.array(table.row("surface", layer="margin"))])
    for ids, surface in found[1:]:
        assert ids.tolist() == found[0][0].tolist() and len(ids) == 4
        np.testing.assert_allclose(surface, found[0][1], atol=1e-4)


def test_several_networks_share_the_plane_of_one():
    data, net = lab_data()
    torch.manual_seed(5)
    other = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    table = br.Lab().measure({"a": net, "b": other}, data, probes=["surface(source=net(a))", "surface"])

    def ways(name: str, spec: str) -> np.ndarray:
        found = table.array(table.row("surface_directions", net=name, probe=spec))
        assert found is not None
        return found

    assert (ways("a", "surface(source=net(a))") == ways("b", "surface(source=net(a))")).all()
    assert (ways("a", "surface")[:, 0] != ways("b", "surface")[:, 0]).any()
    assert Surface(source=NetReference(label="a")).spec() == "surface(source=net(a))"


def test_it_is_read_around_perturbed_images_too():
    data, net = lab_data()
    table = br.Lab().measure(net, data, ["contrast"], ["surface(images=2)"])
    name = table.networks[0]
    clean, moved = (table.array(table.row("surface_image", net=name, perturbation=spec)) for spec in ("clean", "contrast"))
    assert clean is not None and moved is not None and np.abs(clean - moved).max() > 0.01


def test_what_has_no_answer_says_why():
    data, net = lab_data(2)
    table = br.Lab().measure(net, data, probes=["surface(plane=images)", "surface(ids=(999,))"])
    reasons = {row["probe"]: row["reason"] for row in table.rows if row["status"] != "ok"}
    assert "needs three images" in reasons["surface(plane=images)"]
    assert "has no sample 999" in reasons["surface(ids=(999,))"]

    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1)[:, :2] / 0

    found = read(Surface(grid=5), view_of(Broken(), images(2)))
    assert found["surface_lost", ""].status == "undefined" and "NaN or infinite on 2 of 2" in found["surface_lost", ""].reason


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("surface(grid=40)", "odd number"),
        ("surface(plane=images, grid=43)", "4 k"),
        ("surface(ball=ball(norm=1, eps=2.0))", "norm must be 2 or inf"),
        ("surface(ball=ball(eps=0.0))", "0 < eps < inf"),
        ("surface(plane=attacks)", "go together"),
        ("surface(attack=fgsm)", "go together"),
        ("surface(ids=(1, 1))", "different"),
        ("surface(plane=images, ids=(1, 2))", "three for each"),
    ],
)
def test_mistakes_are_refused_in_words(text: str, fact: str):
    with pytest.raises(SpecError, match=fact):
        parse(text)


def test_small_parts():
    u = torch.tensor([[0.0, 1.0], [1.0, 1.0]])
    assert not parallel(u, random_beside(u, math.inf, derive(0, ids=[0, 1]))).any()
    assert of_unit_length(torch.zeros(1, 3), 2).tolist() == [[0, 0, 0]]
