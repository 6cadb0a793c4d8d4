"""Networks that fool careless evaluations: each is caught by the finding of its name, and a healthy one by none."""

import pytest
import torch
from torch import nn

import brinell as br
from brinell.core.measurement import Verdict

PGD = "pgd(steps=20, restarts=3, threat=ball(eps=0.15))"
NOISE = "uniform_noise(threat=ball(eps=0.15))"


class Around(nn.Module):
    """A network around another one."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net


class Probabilities(Around):
    def forward(self, x):
        return self.net(x).softmax(1)


class Saturated(Around):
    def forward(self, x):
        return self.net(x) * 1000


class Detached(Around):
    def forward(self, x):
        return self.net(x.detach())


class RootAtZero(Around):
    """Right answers with a gradient that is NaN everywhere."""

    def forward(self, x):
        return self.net(x) + (x - x).flatten(1).square().sum(1, keepdim=True).sqrt()


class Silent(Around):
    def forward(self, x):
        with torch.no_grad():
            return self.net(x)


class Quantised(Around):
    def forward(self, x):
        return self.net((x * 16).round() / 16)


class Dropping(Around):
    def forward(self, x):
        return self.net(nn.functional.dropout(x, 0.3, training=True))


class Noisy(Around):
    def forward(self, x):
        return self.net(x + 0.05 * torch.randn_like(x))


class Watchful(Around):
    """Answers with other logits where no gradient is recorded: what attacks see is not what users get."""

    def forward(self, x):
        logits = self.net(x)
        return logits if torch.is_grad_enabled() else logits.roll(1, 1)


class WatchfulOfInference(Around):
    """Answers with other logits where users ask in inference mode."""

    def forward(self, x):
        logits = self.net(x)
        return logits.roll(1, 1) if torch.is_inference_mode_enabled() else logits


class Purifying(Around):
    """Takes a gradient step of its own on every input before it answers."""

    def forward(self, x):
        with torch.enable_grad():
            z = x.detach().requires_grad_()
            (g,) = torch.autograd.grad(self.net(z).logsumexp(1).sum(), z)
        return self.net(x + 0.001 * g)


class Learning(Around):
    """Keeps a running mean in evaluation mode."""

    def __init__(self, net):
        super().__init__(net)
        self.register_buffer("mean", torch.zeros(64))

    def forward(self, x):
        self.mean.mul_(0.9).add_(0.1 * x.detach().flatten(1).mean(0))
        return self.net(x)


class Shattered(Around):
    """A fine sawtooth on the logits: their gradient says nothing."""

    def forward(self, x):
        return self.net(x) + 30 * torch.sin(3000 * x.flatten(1)[:, 20:30])


class Counting(Around):
    """Keeps state: each pass looks at slightly other inputs."""

    def forward(self, x):
        self.passes = getattr(self, "passes", 0) + 1
        return self.net(x + 0.01 * self.passes)


class BatchCentred(Around):
    def forward(self, x):
        return self.net(x - x.mean(0))


class BatchNormalised(Around):
    """Batch statistics in evaluation mode; it refuses a batch of one."""

    def forward(self, x):
        logits = self.net(x)
        return nn.functional.batch_norm(logits, None, None, training=True)


class NaN(Around):
    def forward(self, x):
        return self.net(x) * float("nan")


class SometimesInfinite(Around):
    """Infinite for bright samples."""

    def forward(self, x):
        logits = self.net(x)
        return torch.where(x.flatten(1).mean(1, keepdim=True) > 0.33, torch.inf, logits)


class WantsStandardised(Around):
    """Its first layer saturates above 0: to it the background is what lies below the mean."""

    def forward(self, x):
        return self.net(torch.sigmoid(10 * (x + 0.5)))


class WantsGreyLevels(Around):
    """Its input is 0..255."""

    def forward(self, x):
        return self.net(x / 255)


def test_a_healthy_network_passes_every_check(healthy, audit):
    table = audit(healthy, [PGD, NOISE, "pgd(steps=20, restarts=3, threat=ball(eps=0.05))", "fgsm(threat=ball(eps=0.15))"])
    assert [(item.name, item.message) for item in table.findings if item.verdict is not Verdict.PASS] == []
    assert {item.name for item in table.findings} == {
        "domain", "failed_cells", "train_mode", "nonfinite_output", "chance", "probabilities", "normalisation", "random_forward",
        "batch_dependence", "no_gradient", "zero_gradients", "noise_control", "one_step", "monotone", "dynamic", "gradient_mode",
        "instability", "budget_scale", "sample_size", "bounds_obeyed", "label_leakage",
    }  # fmt: skip


@pytest.mark.parametrize(
    "sabotage, name, verdict",
    [
        (Probabilities, "probabilities", Verdict.FLAG),
        (Saturated, "zero_gradients", Verdict.FLAG),
        (Quantised, "zero_gradients", Verdict.FAIL),
        (RootAtZero, "zero_gradients", Verdict.FAIL),
        (Detached, "no_gradient", Verdict.FAIL),
        (Silent, "no_gradient", Verdict.FAIL),
        (Dropping, "random_forward", Verdict.FLAG),
        (Noisy, "random_forward", Verdict.FLAG),
        (Counting, "random_forward", Verdict.FLAG),
        (Watchful, "gradient_mode", Verdict.FAIL),
        (WatchfulOfInference, "gradient_mode", Verdict.FAIL),
        (Purifying, "dynamic", Verdict.FLAG),
        (Learning, "dynamic", Verdict.FLAG),
        (Shattered, "instability", Verdict.FLAG),
        (BatchCentred, "batch_dependence", Verdict.FLAG),
        (BatchNormalised, "batch_dependence", Verdict.FLAG),
        (NaN, "nonfinite_output", Verdict.FAIL),
        (SometimesInfinite, "nonfinite_output", Verdict.FAIL),
        (WantsStandardised, "normalisation", Verdict.FLAG),
        (WantsGreyLevels, "normalisation", Verdict.FLAG),
    ],
)
def test_a_sabotaged_network_is_caught_by_name(sabotage, name, verdict, healthy, audit, finding):
    found = finding(audit(sabotage(healthy).eval(), [PGD]), name)
    assert found.verdict is verdict, found
    assert found.net == "net" and found.value is not None and found.threshold is not None
    assert found.value > found.threshold


def test_only_the_network_that_is_sabotaged_is_blamed(healthy, data):
    nets = {"good": healthy, "bad": Probabilities(healthy).eval()}
    table = br.Lab(device="cpu").measure(nets, data, probes=["diagnostics"], summaries=["checks"])
    blamed = {(item.net, item.name) for item in table.findings if item.verdict is not Verdict.PASS}
    assert blamed == {("bad", "probabilities")}


def test_training_mode_is_said_and_undone(healthy, audit, finding):
    net = nn.Sequential(nn.Dropout(0.9), healthy).train()
    table = audit(net)
    assert finding(table, "train_mode").verdict is Verdict.FLAG
    assert finding(table, "random_forward").verdict is Verdict.PASS  # it was measured in evaluation mode
    assert net.training and net[0].training


def test_an_untrained_network_is_no_better_than_chance(data, audit, finding):
    net = br.load_network("mlp(widths=(16,))", shape=data.shape, classes=10)
    found = finding(audit(net), "chance")
    assert found.verdict is Verdict.FLAG and "randomly initialised" in found.message


def test_shuffled_labels_are_no_better_than_chance(healthy, data, finding):
    wrong = br.Dataset.from_arrays(data.x(), (data.labels() + 3) % 10, classes=10)
    table = br.Lab(device="cpu").measure({"net": healthy}, wrong, summaries=["checks"])
    assert finding(table, "chance").verdict is Verdict.FLAG
    assert "diagnostics" in finding(table, "diagnostics").message and finding(table, "diagnostics").verdict is Verdict.FLAG


def test_samples_without_an_answer_are_not_robust(healthy, audit, data):
    table = audit(SometimesInfinite(healthy).eval(), [PGD])
    (upper,) = table.select(name="robust_accuracy", bound="upper")
    bright = data.x().flatten(1).mean(1) > 0.33
    assert 0 < upper["value"] <= 1 - bright.float().mean().item()
    assert "NaN or inf" in upper["reason"]
    assert table.row("nonfinite_share")["value"] == pytest.approx(bright.float().mean().item())


def test_a_masked_gradient_is_betrayed_by_noise(healthy, audit, finding):
    blind = "pgd(steps=5, random_start=False, threat=ball(eps=0.6))"
    table = audit(Quantised(healthy).eval(), [blind, "uniform_noise(threat=ball(eps=0.6))"])
    found = finding(table, "noise_control")
    assert found.verdict is Verdict.FAIL and found.value > 0


@pytest.mark.parametrize("sabotage, masked", [(None, False), (Quantised, True), (Silent, True), (Saturated, False)])
def test_planted_examples_tell_who_hides_its_gradients(sabotage, masked, healthy, data, finding):
    """Saturated logits are no obstacle to attacks that rescale them, and features before the last layer are not saturated anyway."""
    net = healthy if sabotage is None else sabotage(healthy).eval()
    probe = "binarisation(attack=pgd(steps=10, threat=ball(eps=0.1)), inner=30, share=0.3)"
    found = finding(br.Lab(device="cpu").measure({"net": net}, data, probes=[probe], summaries=["checks"]), "binarisation")
    assert found.verdict is (Verdict.FAIL if masked else Verdict.PASS), found


@pytest.mark.parametrize("sabotage, verdict", [(None, Verdict.PASS), (Silent, Verdict.FAIL)])
def test_an_attack_without_bounds_that_fails_is_found(sabotage, verdict, healthy, data, finding):
    net = healthy if sabotage is None else sabotage(healthy).eval()
    probe = "escalation(attack=pgd(steps=10, random_start=False, threat=ball(eps=0.02)), share=0.3)"
    table = br.Lab(device="cpu").measure({"net": net}, data, probes=[probe], summaries=["checks"])
    assert finding(table, "unbounded").verdict is verdict


def test_transfer_betrays_a_masked_gradient(healthy, data):
    """Points made on the undefended network break the masked one, which gradients of its own do not."""
    nets = {"plain": healthy, "masked": Quantised(healthy).eval()}
    own, moved = (
        "pgd(steps=10, random_start=False, threat=ball(eps=0.15))",
        "transfer(source=net(plain), attack=pgd(threat=ball(eps=0.15)))",
    )
    table = br.Lab(device="cpu").measure(nets, data, [own, moved], ["accuracy"], ["checks"])
    (found,) = [item for item in table.findings if item.name == "black_box" and item.net == "masked"]
    assert found.verdict is Verdict.FAIL and found.value > 0.05
    (fine,) = [item for item in table.findings if item.name == "black_box" and item.net == "plain"]
    assert fine.verdict is not Verdict.FAIL
