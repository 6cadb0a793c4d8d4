"""Hostile texts where a spec or an argument is wanted: one short message at once, exit code 2, nothing run and nothing left behind."""

import time

import pytest

from brinell.cli import main
from brinell.core.component import parse
from brinell.core.errors import SpecError
from brinell.core.place import place_of

SPECS = {
    "a power tower": "pgd(steps=9**9**9)",
    "five thousand digits": "pgd(steps=" + "9" * 5000 + ")",
    "a huge hexadecimal": "pgd(steps=0x" + "f" * 20_000 + ")",
    "a huge binary": "pgd(steps=0b" + "1" * 90_000 + ")",
    "calls in calls": "pgd(" * 1000,
    "parentheses": "(" * 99_000,
    "brackets": "[" * 50_000 + "]" * 49_999,
    "signs": "-" * 99_000 + "1",
    "negations": "not " * 20_000 + "1",
    "attributes": "a" + ".a" * 40_000,
    "deep attributes that parse": "a" + ".a" * 900,
    "deep sums that parse": "1" + "+1" * 900,
    "calls of calls": "a" + "()" * 40_000,
    "indices": "a" + "[0]" * 30_000,
    "sums": "1" + "+1" * 40_000,
    "quotients": "1" + "/1" * 49_000,
    "comparisons": "1" + "<1" * 4_000,
    "conditions": "1 if 1 else " * 8_000 + "1",
    "functions": "lambda:" * 14_000 + "1",
    "interpolation": "f'{" * 1000,
    "quotes": "'" * 99_000,
    "backslashes": "\\" * 90_000,
    "commas": "," * 90_000,
    "a long tuple": "pgd(loss=(" + "1," * 40_000 + "))",
    "ten thousand fields": "pgd(" + ",".join(f"a{k}=1" for k in range(10_000)) + ")",
    "one field ten thousand times": "pgd(" + "steps=1," * 10_000 + ")",
    "a long field": "pgd(" + "a" * 90_000 + "=1)",
    "a long name": "a" * 99_000,
    "too long": "a" * 200_000,
    "other digits": "pgd(steps=١٢)",
    "NUL": "pgd(\0)",
    "byte order mark": "\ufeffpgd",
    "half a surrogate": "pgd(loss='\udcff')",
    "text turned round": "pgd(loss='\u202e')",
    "terminal codes": "\x1b[2J",
    "two statements": "pgd; import os",
    "an assignment": "pgd(steps=(a:=3))",
    "unpacking": "pgd(*range(10**9))",
    "unpacking fields": "pgd(**{'steps': 3})",
    "a dunder": "pgd.__class__",
    "all classes": "pgd(steps=().__class__.__bases__[0].__subclasses__())",
    "an import": "__import__('os').system('touch was_run')",
    "exec": 'exec(\'open("was_run", "w")\')',
    "eval as a field": "pgd(steps=eval('1'))",
    "a generator": "pgd(steps=(i for i in range(10**9)))",
    "a repeated text": "pgd(loss='a'*10**10)",
    "a shift": "pgd(steps=1<<10**10)",
    "a broken escape": "pgd(loss='\\x')",
    "an odd escape": "pgd(loss='\\d')",
    "not a number": "pgd(threat=ball(eps=nan))",
    "infinity": "pgd(threat=ball(eps=inf))",
    "division by zero": "pgd(threat=ball(eps=1/0))",
    "a path as corruption": "cifar10_c('.', corruption='../../etc', severity=1)",
    "a text that is called": "'pgd'()",
}


@pytest.mark.parametrize("case", SPECS)
def test_a_hostile_spec_is_refused_in_one_short_message(case, monkeypatch, tmp_path, recwarn):
    monkeypatch.chdir(tmp_path)
    began = time.monotonic()
    with pytest.raises(SpecError) as caught:
        parse(SPECS[case])
    assert time.monotonic() - began < 5 and len(str(caught.value)) < 1500
    assert not (tmp_path / "was_run").exists() and not recwarn.list


@pytest.mark.parametrize("text", ["ｐｇｄ(steps=3)", "pgd(ſteps=3)", "pgd(\nsteps=3\n)", "pgd(steps=3) # rm -rf", "\tpgd(steps=0x3)"])
def test_other_spellings_of_a_spec_are_that_spec(text):
    """Python's identifiers are compared after NFKC; what is stored and shown is always the plain spelling."""
    assert parse(text) == parse("pgd(steps=3)") and parse(text).spec().isascii()


AUDIT = ["--data", "digits(side=8)", "--limit", "20", "--perturb", "clean", "--device", "cpu"]
LONG = "a" * 5000
ARGUMENTS = {
    "NUL in the network": ["audit", "a\0b", *AUDIT],
    "NUL in --out": ["audit", "mlp", *AUDIT, "--out", "a\0b"],
    "terminal codes as network": ["audit", "\x1b[2J", *AUDIT],
    "bytes that are no text": ["audit", "\udcff", *AUDIT],
    "an option that is no text": ["audit", "--\udcff"],
    "a long network": ["audit", "a" * 100_000, *AUDIT],
    "a long file": ["audit", f"{LONG}.safetensors", *AUDIT],
    "long weights": ["audit", "mlp", "--weights", LONG, *AUDIT],
    "weights of an unknown user": ["audit", "mlp", "--weights", "~nobody-of-that-name/x", *AUDIT],
    "a device as weights": ["audit", "mlp", "--weights", "/dev/zero", *AUDIT],
    "a long --out": ["audit", "mlp", *AUDIT, "--out", LONG],
    "--out in a place of the system": ["audit", "mlp", *AUDIT, "--out", "/proc/x"],
    "a function of the system": ["audit", "os:system", *AUDIT],
    "a function that makes no network": ["audit", "os:getcwd", *AUDIT],
    "a function above": ["audit", "..:f", *AUDIT],
    "markup as name": ["audit", "<script>=mlp", *AUDIT],
    "no network": ["audit", "", *AUDIT],
    "a network without a name": ["audit", "=mlp", *AUDIT],
    "a huge seed": ["audit", "mlp", *AUDIT, "--seed", str(10**30)],
    "a limit that is no number": ["audit", "mlp", "--limit", "nan"],
    "a negative limit": ["audit", "mlp", "--data", "digits(side=8)", "--limit", "-5"],
    "minutes that are no number": ["audit", "mlp", *AUDIT, "--minutes", "nan"],
    "minutes below zero": ["audit", "mlp", *AUDIT, "--minutes", "-1"],
    "a graphics card that is not there": ["audit", "mlp", *AUDIT[:-1], "cuda:99"],
    "no device": ["audit", "mlp", *AUDIT[:-1], ""],
    "long data": ["audit", "mlp", "--data", "a" * 90_000],
    "data with terminal codes": ["audit", "mlp", "--data", "folder('\x1b[2J')"],
    "a huge number": ["audit", "mlp", *AUDIT[:4], "--perturb", "pgd(steps=0x" + "f" * 20_000 + ")"],
    "a report of a long path": ["report", LONG],
    "a report of a file": ["report", "/etc/passwd"],
    "a report of nothing": ["report", ""],
    "a requirement of a power tower": ["gate", ".", "--require", "accuracy >= 9**9**9"],
    "a requirement of parentheses": ["gate", ".", "--require", "(" * 50_000],
    "a requirement of terminal codes": ["gate", ".", "--require", "accuracy[\x1b] >= 0"],
    "a requirement of nothing": ["gate", ".", "--require", "accuracy >= nan"],
    "an item by a path": ["show", "../../x"],
    "a study by an attribute": ["study", "os.system"],
    "a study that imports": ["study", '__import__("os")'],
    "a probe of NUL": ["audit", "mlp", *AUDIT, "--probe", "\x00"],
}


@pytest.mark.parametrize("case", ARGUMENTS)
def test_a_hostile_argument_gets_one_line_and_exit_code_2(case, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main(ARGUMENTS[case]) == 2
    said = capsys.readouterr()
    lines = said.err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("brinell: ") and said.out == ""
    assert "Traceback" not in lines[0] and len(lines[0]) < 2100 and lines[0].isprintable()
    assert not list(tmp_path.rglob("*.*"))


@pytest.mark.parametrize("path", ["", "a\0b", LONG, "~nobody-of-that-name/x"], ids=["empty", "NUL", "long", "unknown user"])
def test_a_path_that_cannot_be_one_is_refused_before_it_is_opened(path):
    with pytest.raises(SpecError) as caught:
        place_of(path, SpecError)
    assert len(str(caught.value)) < 300
