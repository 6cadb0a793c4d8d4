"""A first audit in Python: train a small network on handwritten digits, perturb it, and read what is left of its accuracy.

    python examples/first_audit.py [DIRECTORY]

Run it twice with the same directory: the second time nothing is trained or measured again.
"""

# ruff: noqa: T201 - a script talks to whoever runs it

import sys

import brinell as br


def main(directory: str | None = None) -> br.Table:
    train = br.load_dataset("digits(side=8, split=train)")
    test = br.load_dataset("digits(side=8, split=test)", limit=200)

    lab = br.Lab(directory, seed=0)
    untrained = br.load_network("mlp(widths=(64,))", shape=train.shape, classes=len(train.classes), seed=0)
    nets = lab.harden({"mlp": untrained}, "fit(epochs=10)", train)  # or bring your own: {"mine": any_nn_module}

    table = lab.measure(
        nets,
        test,
        perturbations=[
            "uniform_noise(threat=ball(eps=16/255))",  # chance, in the same ball as the attacks
            "gaussian_noise(severity=3)",
            "fgsm(threat=ball(eps=16/255))",
            br.PGD(steps=20, threat=br.Ball(eps=16 / 255)),  # a component or its text: the same
        ],
        probes=["accuracy", "class_selectivity"],
        summaries=["bound"],
    )
    for row in table.select(name="accuracy"):
        print(f"{row['perturbation']:55} {row['value']:.3f}  [{row['low']:.3f}, {row['high']:.3f}]")
    for row in table.select(name="robust_accuracy"):
        print(f"robust accuracy in {row['layer']}: {row['bound']} bound {row['value']:.3f}")
    return table


if __name__ == "__main__":
    main(*sys.argv[1:2])
