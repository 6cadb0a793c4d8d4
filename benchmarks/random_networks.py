"""Random networks as one batch against one after the other: forward pass and input gradient at one point of each.

    python benchmarks/random_networks.py [--quick]

d = 64, width 128, 200 networks, weights given, one thread. The loop is plain tensor code with autograd, without any module. Values and
gradients of both sides are compared first. `ensemble_speedup` is of one hidden layer, `deep_speedup` of two.
"""

import argparse
import sys

NETWORKS, D, WIDTH = 200, 64, 128


def sides(layers):
    """The batch and the loop for networks of some hidden layers, as functions that return values and gradients."""
    import torch

    from brinell.core.draws import derive
    from brinell.core.line import value_and_gradient
    from brinell.models.random_ensemble import gaussian, inputs

    draws = derive(0, "benchmark", ids=range(NETWORKS))
    nets, x = gaussian((D, *(WIDTH,) * layers), draws), inputs(D, draws)

    def loop():
        values, gradients = [], []
        for i in range(NETWORKS):
            z = x[i].clone().requires_grad_()
            h = z
            for w in nets.weights[:-1]:
                h = torch.relu(w[i] @ h)
            value = (nets.weights[-1][i] @ h).sum()
            (gradient,) = torch.autograd.grad(value, z)
            values.append(value.detach())
            gradients.append(gradient)
        return torch.stack(values), torch.stack(gradients)

    return {"ensemble": lambda: value_and_gradient(nets, x), "loop": loop}


def main():
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="5 rounds")
    given = parser.parse_args()
    from timing import interleaved, median_ratio, one_thread, result

    speedups = {}
    with one_thread():
        for layers in (1, 2):
            made = sides(layers)
            (f, g), (values, gradients) = made["ensemble"](), made["loop"]()
            far = max(float((f - values).abs().max()), float((g - gradients).abs().max()))
            if not far < 1e-4:
                sys.exit(f"the sides differ by {far:.2g}; nothing was measured")
            seconds = interleaved(made, 5 if given.quick else 25, warmup=2)
            speedups[layers] = median_ratio(seconds["loop"], seconds["ensemble"])
            print(
                f"{layers} hidden: ensemble {min(seconds['ensemble']) * 1e3:.2f} ms, loop {min(seconds['loop']) * 1e3:.1f} ms", flush=True
            )
    result("random_networks", ensemble_speedup=speedups[1], deep_speedup=speedups[2])


if __name__ == "__main__":
    main()
