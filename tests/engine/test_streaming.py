"""A run takes the memory of a batch, not that of its data: measured under a limit of a quarter of what the samples would fill."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

N, SIDE = 4000, 64  # 197 MB as float32
ROOM = N * SIDE * SIDE * 3 * 4 // 4

CHILD = """
import resource, sys
import brinell as br

source, room, out = sys.argv[1], int(sys.argv[2]), sys.argv[3]

def measure(data, place):
    net = br.load_network("mlp(widths=(8,))", shape=data.shape, classes=10)
    return br.Lab(place, device="cpu", batch_size=16).measure(net, data, ["gaussian_noise"], ["accuracy", "class_selectivity"])

data = br.load_dataset(source)
measure(data.limit(32), None)  # libraries are loaded, and caches filled
taken = next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmData"))
resource.setrlimit(resource.RLIMIT_DATA, (taken + room, taken + room))
if out == "all at once":
    data.x()
else:
    table = measure(data, out)
    print({row["status"] for row in table.rows}, table.row("accuracy")["n"])
"""


def parquet(folder: Path) -> str:
    import duckdb

    rng = np.random.default_rng(0)
    with duckdb.connect(":memory:") as database:
        database.execute("CREATE TABLE t (image STRUCT(bytes BLOB, path VARCHAR), label BIGINT)")
        for k in range(N):
            database.execute("INSERT INTO t VALUES (struct_pack(bytes := ?, path := NULL), ?)", [png(rng), k % 10])
            if k % 100 == 99:
                database.execute(f"COPY t TO '{folder / f'{k:05d}.parquet'}' (FORMAT parquet)")
                database.execute("DELETE FROM t")
    return f"parquet('{folder}')"


def npz(folder: Path) -> str:
    x = np.random.default_rng(0).integers(0, 256, (N, SIDE, SIDE, 3), dtype=np.uint8)
    np.savez(folder / "set.npz", x=x, y=np.arange(N) % 10)
    return f"npz('{folder / 'set.npz'}')"


def images(folder: Path) -> str:
    rng = np.random.default_rng(0)
    for k in range(10):
        (folder / str(k)).mkdir()
    for k in range(N):
        (folder / str(k % 10) / f"{k:05d}.png").write_bytes(png(rng))
    return f"folder('{folder}')"


def png(rng: np.random.Generator) -> bytes:
    file = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).save(file, "PNG", compress_level=0)
    return file.getvalue()


def child(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", CHILD, *arguments], capture_output=True, text=True, timeout=80)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="RLIMIT_DATA is enforced on Linux alone")
@pytest.mark.parametrize("write", [parquet, npz, images], ids=lambda write: write.__name__)
def test_a_run_larger_than_its_memory_streams(write, tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    source = write(folder)
    measured = child(source, str(ROOM), str(tmp_path / "run"))
    assert measured.stdout == f"{{'ok'}} {N}\n", measured.stderr


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="RLIMIT_DATA is enforced on Linux alone")
def test_the_limit_is_one(tmp_path):
    too_much = child(npz(tmp_path), str(ROOM), "all at once")
    assert too_much.returncode == 1 and "MemoryError" in too_much.stderr
