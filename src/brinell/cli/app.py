"""The application: what all commands have in common, exit codes, and how text leaves it."""

from __future__ import annotations

import errno
import os
import shlex
import sys
from typing import Annotated, Any, Literal

from cyclopts import App, CycloptsError, Parameter

import brinell
from brinell.core.errors import BrinellError
from brinell.engine.allocator import keep_freed_memory

_LONGEST = 2_000  # characters of a message; whatever was given may be quoted in it
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
Device = Annotated[str, Parameter(help="cpu, cuda (all there are; cuda:1 for one), mps, or auto for the best there is.")]
Executor = Annotated[Literal["local", "ray"], Parameter(help="Where shards are worked on: on this machine, or as tasks of Ray.")]
Address = Annotated[str | None, Parameter(help="HOST:PORT of a Ray cluster; without it Ray runs on this machine alone.")]
Cpus = Annotated[float, Parameter(help="Cores of one Ray task.")]
Gpus = Annotated[float, Parameter(help="GPUs of one Ray task; a fraction lets several tasks share one.")]
Json = Annotated[bool, Parameter(name="--json", negative=(), help="Print JSON for machines instead of text.")]


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code; `BrinellError` becomes one line on standard error."""
    given = sys.argv[1:] if arguments is None else arguments
    if any("\0" in text for text in given):
        complain("an argument holds a NUL character, which no name and no path may; remove it")
        return BAD_INPUT
    keep_freed_memory()
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
    except OSError as error:
        if error.errno not in (errno.ENAMETOOLONG, errno.ELOOP):  # what a path that was given may lead to; the rest is ours to explain
            raise
        complain(f"{str(error.filename)[:80]!r} is no path that can be opened: {error.strerror}; correct it")
        return BAD_INPUT
    return result if isinstance(result, int) else DONE


def say(text: str) -> None:
    sys.stdout.write(text + "\n")


def say_json(value: Any) -> None:
    """One JSON document on standard output; what JSON has no number for is null."""
    import json

    say(json.dumps(_plain(value), indent=1, ensure_ascii=False, allow_nan=False).encode(errors="backslashreplace").decode())


def complain(text: str) -> None:
    """One line on standard error, which a terminal shows and does not obey."""
    from brinell.report.text import printable

    shown = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
    sys.stderr.write(f"brinell: {printable(shown)}\n")


def _plain(value: Any) -> Any:
    import math

    if isinstance(value, dict):
        return {str(name): _plain(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or type(value) in (bool, int, float, str) else str(value)
