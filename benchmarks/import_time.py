"""What starting brinell costs: fresh processes that import it, and that print the help, over one that imports torch.

    python benchmarks/import_time.py [--quick]

Neither needs torch, which most of the time of `import torch` goes to; the promise is less than 1.5 times that time each.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from timing import interleaved, median_ratio, result

SIDES = {
    "torch": (sys.executable, "-c", "import torch"),
    "import": (sys.executable, "-c", "import brinell"),
    "help": (str(Path(sys.executable).parent / "brinell"), "--help"),
}


def run(command: tuple[str, ...]) -> None:
    """Run a command to its end.

    Raises:
        SystemExit: it failed, so there is nothing to time.
    """
    try:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    except (OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"cannot measure: {' '.join(command)}: {error}\n{getattr(error, 'stderr', None) or ''}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    rounds = 3 if parser.parse_args().quick else 15
    seconds = interleaved({name: lambda command=command: run(command) for name, command in SIDES.items()}, rounds)
    for name, times in seconds.items():
        command = "brinell --help" if name == "help" else " ".join(SIDES[name][1:])
        print(f"{command}: {sorted(times)[len(times) // 2]:.3f} s (median of {rounds})")
    result("import_time", **{name: median_ratio(seconds[name], seconds["torch"]) for name in ("import", "help")})


if __name__ == "__main__":
    main()
