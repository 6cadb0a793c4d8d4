"""Environments for the libraries brinell is compared with: one per peer, laid over ours, so that torch is not installed twice.

    python benchmarks/peers.py --list             what is known, and what is installed
    python benchmarks/peers.py torchattacks       install some of them now; without names, all

A benchmark calls `enter("torchattacks")` first and goes on in an environment that has brinell and the peer side by side.
"""

import argparse
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".peers"
PEERS: dict[str, tuple[str, ...]] = {
    "torchattacks": ("torchattacks==3.5.1",),
    "foolbox": ("foolbox==3.3.4",),
    "art": ("adversarial-robustness-toolbox==1.20.1",),
    "autoattack": ("pyautoattack==0.2.0",),
    "auto_lirpa": ("appdirs==1.4.4", "graphviz==0.21", "packaging", "pyyaml", "setuptools", "tqdm"),
    "imagecorruptions": ("imagecorruptions==1.1.2", "setuptools<81", "numpy<2", "scikit-image<0.22", "opencv-python-headless<4.12"),
}
"""The published releases that are compared with; for auto_lirpa what its source needs, see crown.py. imagecorruptions needs libraries of
its time; with the oldest scikit-image for Python 3.11 its glass_blur and gaussian_blur still fail."""


class PeerUnavailable(RuntimeError):
    """A peer cannot be installed here; the message holds the installer's reason."""


def ensure(name: str, requirements: Sequence[str] = ()) -> Path:
    """The Python of the environment `.peers/NAME`, which is made now unless it holds just these requirements.

    The peer's packages hide ours where both have one; ours, torch and brinell among them, serve the rest. The torch that is
    installed stays: a peer that cannot live with it is unavailable.

    Arguments:
        requirements: what pip is asked for; () for those of `PEERS`.

    Raises:
        PeerUnavailable: the name is not known or not a plain word, or pip failed.
    """
    wanted = tuple(requirements) or PEERS.get(name, ())
    if not wanted or not re.fullmatch(r"[a-z0-9_-]+", name):
        raise PeerUnavailable(f"no peer is called {name!r}; known are {', '.join(PEERS)}")
    place = FOLDER / name
    python = place / "bin" / "python"
    torch = f"torch=={metadata.version('torch').partition('+')[0]}"
    stamp = "\n".join((sys.version, torch, *wanted))
    if _stamp(place) == stamp and python.exists():
        return python
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{name}.", dir=FOLDER) as scratch:
        made = Path(scratch) / "env"
        _layer(made)
        limits = Path(scratch) / "limits.txt"
        limits.write_text(f"{torch}\n", encoding="utf-8")
        command = [sys.executable, "-m", "pip", "--python", str(made / "bin" / "python"), "install", "--quiet"]
        done = subprocess.run(
            [*command, "--disable-pip-version-check", "--constraint", str(limits), *wanted], capture_output=True, text=True, check=False
        )
        if done.returncode:
            reason = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()[-3:]
            raise PeerUnavailable(f"{name} ({', '.join(wanted)}) cannot be installed: {' '.join(reason)[:600]}")
        (made / "stamp").write_text(stamp, encoding="utf-8")
        shutil.rmtree(place, ignore_errors=True)
        made.rename(place)
    return python


def _stamp(place: Path) -> str:
    file = place / "stamp"
    return file.read_text(encoding="utf-8") if file.is_file() else ""


def _layer(place: Path) -> None:
    """An environment without packages of its own that also sees our packages and `src`."""
    venv.EnvBuilder(with_pip=False, symlinks=True).create(place)
    own = Path(sysconfig.get_path("purelib", vars={"base": str(place), "platbase": str(place)}))
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        raise PeerUnavailable("torch is not installed beside this Python; run `make venv` and use .venv/bin/python")
    ours = Path(spec.origin).parent.parent
    (own / "brinell.pth").write_text(f"{ours}\n{ROOT / 'src'}\n", encoding="utf-8")


def enter(name: str, requirements: Sequence[str] = ()) -> None:
    """Go on running this program in the peer's environment; ends it with a message where there is none."""
    if Path(sys.prefix) == FOLDER / name:
        return
    try:
        python = ensure(name, requirements)
    except PeerUnavailable as error:
        sys.exit(str(error))
    sys.stdout.flush()
    os.execv(python, [str(python), *sys.orig_argv[1:]])


def main() -> int:
    parser = argparse.ArgumentParser(description="Make environments for the libraries brinell is compared with.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="peers to install; all when none is named")
    parser.add_argument("--list", action="store_true", help="show what is known and what is installed")
    chosen = parser.parse_args()
    if chosen.list:
        for name, requirements in PEERS.items():
            print(f"{name:18}{'installed' if _stamp(FOLDER / name) else 'not installed':15}{' '.join(requirements)}")
        return 0
    failed = 0
    for name in chosen.names or PEERS:
        try:
            print(f"{name}: {ensure(name)}", flush=True)
        except PeerUnavailable as error:
            print(error, file=sys.stderr)
            failed = 1
    return failed


if __name__ == "__main__":
    sys.exit(main())
