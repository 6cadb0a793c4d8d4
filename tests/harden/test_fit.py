import numpy as np
import pytest
import torch
from torch import Tensor, nn

from brinell.core.component import parse
from brinell.core.dataset import Dataset, load_dataset
from brinell.core.draws import Draws
from brinell.core.errors import DataError, NetworkError, SpecError
from brinell.core.perturbation import Corruption
from brinell.harden.fit import Fit
from brinell.harden.loop import Diverged
from brinell.models.loading import load_network, save_network

QUICK = Fit(epochs=3, batch_size=10, lr=0.02, shift=1, ema=0.5, holdout=0.2)


def test_a_separable_toy_is_learned_completely(toy, small):
    net = Fit(epochs=15, batch_size=16, lr=0.05)(small, toy, seed=0)
    assert net(toy.x()).argmax(1).tolist() == toy.y.tolist()


@pytest.mark.parametrize(("spec", "at_least"), [
    ("fit(epochs=15, optimizer=adamw, lr=0.01, batch_size=16)", 1.0),
    ("fit(epochs=15, batch_size=16, lr=0.05, schedule=onecycle, ema=0.9, clip=1, label_smoothing=0.1)", 1.0),
    ("fit(epochs=15, batch_size=16, lr=0.05, amp=True)", 1.0),
    ("fit(epochs=15, batch_size=16, lr=0.05, augment=(gaussian_noise(severity=1), normal_noise), shift=1, warmup=1)", 0.9),
])  # fmt: skip
def test_all_kinds_of_training_learn_it(toy, small, spec, at_least):
    net = parse(spec)(small, toy, seed=0)
    assert (net(toy.x()).argmax(1).numpy() == toy.y).mean() >= at_least


# --- the arithmetic, against a second implementation in numpy and float64 -----------------------------------------------------

POINTS = np.array([[0.1, 0.9], [0.8, 0.3], [0.5, 0.4], [0.2, 0.7], [1.0, 0.6]])
LABELS = np.array([0, 1, 2, 0, 1])


def linear() -> nn.Linear:
    net = nn.Linear(2, 3)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[0.5, -0.2], [0.1, 0.3], [-0.4, 0.6]]))
        net.bias.copy_(torch.tensor([0.1, 0.0, -0.3]))
    return net


def slow_gradient(w: np.ndarray, smoothing: float) -> np.ndarray:
    """Gradient of the smoothed cross-entropy in the (3, 3) weights, the bias in the last column."""
    gradient = np.zeros_like(w)
    for x, y in zip(POINTS, LABELS, strict=True):
        inputs = np.append(x, 1.0)
        scores = np.exp(w @ inputs)
        wanted = np.full(3, smoothing / 3)
        wanted[y] += 1 - smoothing
        gradient += np.outer(scores / scores.sum() - wanted, inputs) / len(POINTS)
    return gradient


def slow_fit(fit: Fit, rates: list[float]) -> np.ndarray:
    start = linear()
    w = np.column_stack([start.weight.detach().double(), start.bias.detach().double()])
    velocity, square, average = np.zeros_like(w), np.zeros_like(w), w.copy()
    for t, rate in enumerate(rates, 1):
        g = slow_gradient(w, fit.label_smoothing)
        if fit.clip:
            g = g * min(1.0, fit.clip / np.linalg.norm(g))
        if fit.optimizer == "sgd":
            g = g + fit.weight_decay * w
            velocity = fit.momentum * velocity + g
            w = w - rate * (g + fit.momentum * velocity if fit.nesterov else velocity)
        else:
            velocity = fit.momentum * velocity + (1 - fit.momentum) * g
            square = 0.999 * square + 0.001 * g**2
            w = w * (1 - rate * fit.weight_decay)
            w = w - rate * (velocity / (1 - fit.momentum**t)) / (np.sqrt(square / (1 - 0.999**t)) + 1e-8)
        decay = min(fit.ema, (1 + t) / (10 + t))
        average = decay * average + (1 - decay) * w
    return average if fit.ema else w


@pytest.mark.parametrize("fit", [
    Fit(epochs=3, lr=0.5, weight_decay=0.1, schedule="constant"),
    Fit(epochs=3, lr=0.5, weight_decay=0.1, schedule="constant", nesterov=False),
    Fit(epochs=3, lr=0.5, momentum=0.0, weight_decay=0.0, schedule="constant", label_smoothing=0.3),
    Fit(epochs=3, lr=0.5, schedule="constant", clip=0.05),
    Fit(epochs=3, lr=0.5, schedule="constant", ema=0.9),
    Fit(epochs=3, lr=0.5, schedule="constant", ema=0.1, label_smoothing=0.1),
    Fit(epochs=3, lr=0.05, optimizer="adamw", weight_decay=0.3, schedule="constant", momentum=0.8),
])  # fmt: skip
def test_three_steps_equal_the_slow_ones(fit):
    data = Dataset.from_arrays(torch.from_numpy(POINTS), LABELS)
    net = fit(linear(), data, seed=0).module
    found = np.column_stack([net.weight.detach(), net.bias.detach()])
    assert np.allclose(found, slow_fit(fit, [fit.lr] * 3), rtol=1e-5, atol=1e-6)


def test_the_rate_of_each_step_is_that_of_the_schedule():
    fit = Fit(epochs=3, lr=0.5, schedule="cosine", momentum=0.0, weight_decay=0.0)
    data = Dataset.from_arrays(torch.from_numpy(POINTS), LABELS)
    net = fit(linear(), data, seed=0).module
    expected = slow_fit(fit, [0.5, 0.375, 0.125])
    assert np.allclose(np.column_stack([net.weight.detach(), net.bias.detach()]), expected, rtol=1e-5, atol=1e-6)


# --- what a caller can rely on ------------------------------------------------------------------------------------------------


def test_same_seed_same_weights_another_seed_others(toy, small, same):
    first = QUICK(small, toy, seed=3)
    assert same(first, QUICK(small, toy, seed=3))
    assert not same(first, QUICK(small, toy, seed=4))


def test_global_random_states_play_no_part_and_are_left_alone(toy, small, same):
    first = QUICK(small, toy, seed=3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        np.random.seed(99)  # noqa: NPY002 - the global state is the subject
        torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()  # noqa: NPY002
        assert same(first, QUICK(small, toy, seed=3))
        assert torch.equal(torch.get_rng_state(), torch_state)
        assert np.array_equal(np.random.get_state()[1], numpy_state[1])  # noqa: NPY002


def test_the_argument_is_not_changed(toy, small, weights):
    before, modes = weights(small), [part.training for part in small.module.modules()]
    trained = QUICK(small, toy, seed=0)
    after = weights(small)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert [part.training for part in small.module.modules()] == modes
    assert all(p.grad is None for p in small.module.parameters())
    assert not torch.equal(trained.module[0].weight, small.module[0].weight)


def test_the_result_says_what_it_is(toy, small, tmp_path):
    net = QUICK(small, toy, seed=5)
    assert (net.recipe, net.shape, net.classes) == ("small", (1, 6, 6), 3)
    assert net.notes[0] == "randomly initialised (seed 5)"
    assert net.notes[1] == f"trained by {QUICK.spec()} on toy (38 samples), seed 5"
    assert net.notes[2].startswith("epoch ") and " of 3 chosen on 10 held-out samples" in net.notes[2]
    assert not any(part.training for part in net.module.modules())
    assert all(p.grad is None and p.requires_grad for p in net.module.parameters())
    real = Fit(epochs=1)(load_network("small_cnn", shape=(1, 6, 6), classes=3), toy, seed=0)
    assert load_network(save_network(real, tmp_path / "net.safetensors")).digest == real.digest


def test_a_plain_module_and_a_frozen_one_can_be_trained(toy, small):
    net = Fit(epochs=1)(small.module, toy, seed=0)
    assert (net.shape, net.classes) == ((1, 6, 6), 3)
    frozen = Fit(epochs=1)(small.frozen_copy(), toy, seed=0)
    assert not torch.equal(frozen.module[0].weight, small.module[0].weight)


def test_parameters_frozen_by_the_user_stay_as_they_are(toy, small):
    small.module[0].requires_grad_(False)
    net = Fit(epochs=1)(small, toy, seed=0)
    assert torch.equal(net.module[0].weight, small.module[0].weight)
    assert not torch.equal(net.module[3].weight, small.module[3].weight)


def test_the_average_returned_includes_the_running_statistics(toy, small):
    plain = Fit(epochs=2, lr=0.02)(small, toy, seed=0).module[1]
    averaged = Fit(epochs=2, lr=0.02, ema=0.9)(small, toy, seed=0).module[1]
    start = small.module[1].running_mean
    assert (averaged.running_mean - start).norm() < (plain.running_mean - start).norm()
    assert averaged.num_batches_tracked == plain.num_batches_tracked


def test_the_best_epoch_is_returned(toy, small, same):
    """Held-out samples with wrong labels like a network least trained: an early epoch is chosen, and its very weights returned."""
    wrong = Dataset.from_arrays(toy.x(), (toy.y + 1) % 3, classes=3)
    fit = Fit(epochs=8, batch_size=16, lr=0.02, schedule="constant")
    net = fit(small, toy, seed=0, valid=wrong)
    epoch = int(net.notes[-1].split()[1])
    assert epoch < 8
    assert same(net, fit.replace(epochs=epoch)(small, toy, seed=0))
    chosen = fit(small, toy, seed=0, valid=toy)
    assert int(chosen.notes[-1].split()[1]) > epoch


class Bright(Corruption):
    """All ones; without a name, so that no other test meets it among the items."""

    def __call__(self, net: object, x: Tensor, y: Tensor, *, draws: Draws) -> Tensor:
        return torch.ones_like(x)


def test_augmented_samples_are_what_the_corruption_makes_of_them(toy, small):
    seen: list[Tensor] = []

    def watch(net, x, y, *, draws):
        seen.append(x.clone())
        return x

    Fit(epochs=4, augment=(Bright(),))(small, toy, seed=0, inputs=watch)
    inputs = torch.cat(seen)
    ones = (inputs == 1).flatten(1).all(1)
    known = {tuple(row) for row in toy.x().flatten(1).tolist()}
    assert all(tuple(row) in known for row in inputs[~ones].flatten(1).tolist())
    assert 0.35 < float(ones.float().mean()) < 0.65  # 4.1 standard deviations around 1/2
    epochs = ones.reshape(4, 48)
    assert len({tuple(row.tolist()) for row in epochs}) == 4


def test_amp_trains_in_bfloat16_and_keeps_float32_weights(toy, small, same):
    kinds = []
    handle = small.module[7].register_forward_hook(lambda part, args, out: kinds.append(out.dtype))
    low = Fit(epochs=1, amp=True)(small, toy, seed=0)
    handle.remove()
    assert torch.bfloat16 in kinds
    assert all(p.dtype == torch.float32 for p in low.module.parameters())
    assert not same(low, Fit(epochs=1)(small, toy, seed=0))


def test_progress_is_told_of_every_sample(toy, small, watcher):
    seen = watcher()
    Fit(epochs=2, batch_size=20)(small, toy, seed=0, progress=seen)
    assert seen.calls[0] == ("start", "training small", 96, 0)
    assert seen.passed == 96
    assert seen.calls[-1] == ("stop",)
    assert seen.calls[1][2].startswith("epoch 1 of 2, loss ")


# --- refusals -----------------------------------------------------------------------------------------------------------------


def test_divergence_names_epoch_step_and_remedy(toy, small):
    with pytest.raises(Diverged, match=r"epoch 1 of 3, step [1-9]\d* of 5 .*Lower lr"):
        Fit(epochs=3, batch_size=10, lr=1e30)(small, toy, seed=0)
    broken = nn.Sequential(nn.Flatten(), nn.Linear(36, 3))
    with torch.no_grad():
        broken[1].weight[0, 0] = torch.nan
    with pytest.raises(Diverged, match="the loss is nan at epoch 1 of 20, step 1 of 1"):
        Fit()(broken, toy, seed=0)


def test_data_and_network_must_go_together(toy, small):
    colour = Dataset.from_arrays(torch.rand(4, 3, 6, 6), [0, 1, 2, 0])
    with pytest.raises(NetworkError, match=r"cannot take samples of shape \(3, 6, 6\)"):
        Fit()(small, colour, seed=0)
    more = Dataset.from_arrays(torch.rand(4, 1, 6, 6), [0, 1, 2, 3])
    with pytest.raises(NetworkError, match="3 outputs, but arrays has 4 classes"):
        Fit()(small, more, seed=0)
    with pytest.raises(NetworkError, match="no parameters"):
        Fit()(nn.Flatten(), toy, seed=0)
    flat = Dataset.from_arrays(torch.rand(4, 5), [0, 1, 0, 1])
    with pytest.raises(DataError, match="leave out shift and flip"):
        Fit(flip=True)(nn.Linear(5, 2), flat, seed=0)
    with pytest.raises(DataError, match="none would be left"):
        Fit(holdout=0.99)(nn.Linear(5, 2), flat, seed=0)
    with pytest.raises(DataError, match="validation set"):
        Fit()(small, toy, seed=0, valid=colour)


@pytest.mark.parametrize(("spec", "fact"), [
    ("fit(epochs=0)", "epochs"),
    ("fit(epochs=5, warmup=5)", "leaves nothing"),
    ("fit(schedule=step)", "go together"),
    ("fit(milestones=(3,))", "go together"),
    ("fit(epochs=5, schedule=step, milestones=(5,))", r"1\.\.4"),
    ("fit(augment=(gaussian_noise, fgsm))", "is an attack"),
    ("fit(ema=1)", "ema"),
    ("fit(optimizer=lion)", "optimizer"),
])  # fmt: skip
def test_recipes_that_make_no_sense_are_refused(spec, fact):
    with pytest.raises(SpecError, match=fact):
        parse(spec)


def test_spec_round_trip():
    fit = parse("fit(augment=(gaussian_noise(severity=2), normal_noise), epochs=5, lr=0.05)")
    assert parse(fit.spec()) == fit and parse(fit.spec(full=True)) == fit


@pytest.mark.slow
def test_small_cnn_learns_the_digits():
    train, test = load_dataset("digits(side=8, split=train)"), load_dataset("digits(side=8, split=test)")
    start = load_network("small_cnn", shape=train.shape, classes=10)
    net = Fit(epochs=20, batch_size=64, lr=0.1, schedule="onecycle")(start, train, seed=0)
    assert (net(test.x()).argmax(1).numpy() == test.y).mean() >= 0.97
