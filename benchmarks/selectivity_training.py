"""What the selectivity term costs in training: an epoch of `selectivity(alpha=-1)` over an epoch of plain `fit`.

    python benchmarks/selectivity_training.py [--quick]

ResNet-20 on images of 32 x 32 in three channels (handwritten digits), batches of 128, all 19 ReLU layers in the term; and the small
network of the study on 8 x 8 digits. The sides take turns on one thread, in processor seconds; the ratio is the median over rounds.
"""

import argparse
import time
import warnings
from collections.abc import Callable

from timing import interleaved, median_ratio, one_thread, result

import brinell as br
from brinell.core.hardening import Hardening


def sides(net: br.Network, data: br.Dataset, batch: int, epochs: int) -> dict[str, Callable[[], object]]:
    """Plain and regularised training of one network."""
    fit = f"fit(epochs={epochs}, batch_size={batch})"
    plain, term = (br.parse(text, Hardening) for text in (fit, f"selectivity(alpha=-1, fit={fit})"))
    return {"plain": lambda: plain(net, data, seed=0), "selectivity": lambda: term(net, data, seed=0)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one round instead of five")
    rounds = 1 if parser.parse_args().quick else 5
    digits = br.load_dataset("digits(side=32)", limit=640)
    coloured = br.Dataset.from_arrays(digits.x().repeat(1, 3, 1, 1), digits.labels(), classes=10, name="digits")
    small = br.load_dataset("digits(side=8)", limit=1280)
    cases = {
        "resnet20": sides(br.load_network("resnet20", shape=(3, 32, 32), classes=10), coloured, 128, 1),
        "small_cnn": sides(br.load_network("small_cnn", shape=small.shape, classes=10), small, 128, 3),
    }
    ratios = {}
    with one_thread(), warnings.catch_warnings():
        warnings.simplefilter("error")
        for name, case in cases.items():
            seconds = interleaved(case, rounds, clock=time.process_time)
            ratios[name] = median_ratio(seconds["selectivity"], seconds["plain"])
            print(f"{name}: plain {sorted(seconds['plain'])[rounds // 2]:.2f} s, ratio {ratios[name]:.3f}", flush=True)
    result("selectivity_training", ratio=ratios["resnet20"], small_cnn=ratios["small_cnn"])


if __name__ == "__main__":
    main()
