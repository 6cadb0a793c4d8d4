"""The example scripts run as they stand, and say something true."""

import re
import subprocess
import sys
from pathlib import Path

import brinell as br
from brinell.engine.table import open_table

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_the_first_audit(tmp_path):
    outputs = []
    for _ in range(2):
        arguments = [sys.executable, "-W", "error", str(EXAMPLES / "first_audit.py"), str(tmp_path / "run")]
        done = subprocess.run(arguments, capture_output=True, text=True, check=False, cwd=tmp_path)
        assert done.returncode == 0 and done.stderr == "", done.stderr
        outputs.append(done.stdout)
        if len(outputs) == 1:
            was = {file: file.stat().st_mtime_ns for folder in ("networks", "readings") for file in (tmp_path / "run" / folder).iterdir()}
    assert outputs[0] == outputs[1]
    assert was == {file: file.stat().st_mtime_ns for file in was}
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    table = open_table(tmp_path / "run")
    values = {row["perturbation"]: row["value"] for row in table.select(name="accuracy")}
    clean, noise, _, fgsm, pgd = values.values()
    assert clean > 0.8 and clean >= noise - 0.05 and noise > fgsm >= pgd
    printed = [float(found) for found in re.findall(r" (0\.\d{3})  \[", outputs[0])]
    assert printed == [round(value, 3) for value in values.values()]
    upper = table.value("robust_accuracy", perturbation="", bound="upper", layer=br.Ball(eps=16 / 255).spec())
    assert upper is not None and upper <= pgd and f"upper bound {upper:.3f}" in outputs[0]
