"""The application: what all commands have in common, exit codes, and how text leaves it."""

from __future__ import annotations

import os
import shlex
import sys
from typing import Annotated, Any

from cyclopts import App, CycloptsError, Parameter

import brinell
from brinell.core.errors import BrinellError

DONE, BAD_INPUT, NOT_MET, CONTRADICTED, INTERRUPTED = 0, 2, 3, 4, 130

app = App(
    name="brinell",
    version=brinell.__version__,
    suppress_keyboard_interrupt=False,  # `main` says how to go on
    help="""How far do a network's answers yield when its inputs are perturbed, and why?

    Start with `brinell demo`, then `brinell audit resnet20 --weights FILE --data DATA --out DIR`.""",
    help_epilogue="Exit codes: 0 done, 2 bad input or a damaged run, 3 a requirement is not met, 4 a certificate and an attack contradict "
    "each other or a law does not hold, 130 interrupted.",
)

Many = Parameter(consume_multiple=True, negative=())
Device = Annotated[str, Parameter(help="cpu, cuda, mps, or auto for the best there is.")]
Json = Annotated[bool, Parameter(name="--json", negative=(), help="Print JSON for machines instead of text.")]


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code; `BrinellError` becomes one line on standard error."""
    given = sys.argv[1:] if arguments is None else arguments
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin while they wait slow a shared machine down many times
    try:
        result = app(given, exit_on_error=False, print_error=False, result_action="return_value")
    except (BrinellError, CycloptsError) as error:
        complain(" ".join(str(error).split()))
        return BAD_INPUT
    except KeyboardInterrupt:
        complain(f"interrupted; what is finished is kept. Continue with the same command: brinell {shlex.join(given)}")
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output, such as `head`, has gone
        return DONE
    return result if isinstance(result, int) else DONE


def say(text: str) -> None:
    sys.stdout.write(text + "\n")


def say_json(value: Any) -> None:
    """One JSON document on standard output; what JSON has no number for is null."""
    import json

    say(json.dumps(_plain(value), indent=1, ensure_ascii=False, allow_nan=False))


def complain(text: str) -> None:
    sys.stderr.write(f"brinell: {text}\n")


def _plain(value: Any) -> Any:
    import math

    if isinstance(value, dict):
        return {str(name): _plain(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or type(value) in (bool, int, float, str) else str(value)
