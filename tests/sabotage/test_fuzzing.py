"""Fuzzing of everything that reads what strangers wrote: it ends in what was asked for or in an error of ours, and nothing else."""

import io
import json
import pickle
import zipfile

import duckdb
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save as save_tensors

from brinell.core.component import Component, parse
from brinell.core.dataset import load_dataset
from brinell.core.errors import BrinellError
from brinell.core.form import findings_of, plan_of, rows_of
from brinell.data.images import decode
from brinell.data.pickled import read_pickle
from brinell.models.checkpoint import read_weights

pytestmark = pytest.mark.slow
MANY = settings(max_examples=1500, deadline=None, suppress_health_check=list(HealthCheck))
SOME = settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))


def files() -> dict[str, bytes]:
    """A sound file of every kind that is read."""
    made: dict[str, bytes] = {}
    levels = np.random.default_rng(0).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    for form in ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM"):
        stream = io.BytesIO()
        Image.fromarray(levels).save(stream, form)
        made[form] = stream.getvalue()
    state = {"layer.weight": torch.arange(12.0).reshape(3, 4), "layer.bias": torch.zeros(3)}
    stream = io.BytesIO()
    torch.save(state, stream)
    made["pt"], made["safetensors"] = stream.getvalue(), save_tensors(state, {"recipe": "mlp"})
    stream = io.BytesIO()
    torch.save(state, stream, _use_new_zipfile_serialization=False)
    made["old.pt"] = stream.getvalue()
    for name, save in (("npz", np.savez), ("packed.npz", np.savez_compressed)):
        stream = io.BytesIO()
        save(stream, x=np.ones((4, 1, 2, 2), np.float32), y=np.arange(4) % 2)
        made[name] = stream.getvalue()
    for protocol in (2, 3, 4):
        batch = {"data": np.zeros((2, 3072), np.uint8), "labels": [0, 1]}
        made[f"pickle{protocol}"] = pickle.dumps(batch, protocol)
    return made


FILES = files()


@st.composite
def spoilt(draw, *kinds):
    """A sound file in which a few bytes were changed, and which may have been cut, lengthened or turned round somewhere."""
    kind = draw(st.sampled_from(kinds))
    body = bytearray(FILES[kind])
    for _ in range(draw(st.integers(0, 6))):
        body[draw(st.integers(0, len(body) - 1))] = draw(st.integers(0, 255))
    if draw(st.booleans()):
        del body[draw(st.integers(0, len(body))) :]
    if draw(st.booleans()):
        place = draw(st.integers(0, len(body)))
        body[place:place] = draw(st.binary(max_size=40))
    return kind, bytes(body)


def ours(function, *arguments):
    try:
        return function(*arguments)
    except BrinellError as error:
        assert str(error) and len(str(error)) < 3000
    return None


WORDS = st.sampled_from(
    ["pgd", "ball", "fgsm", "mce", "digits", "steps", "eps", "norm", "threat", "inf", "nan", "None", "True", "(", ")", "[", "]", ",", "=",
     "/", "-", "**", "*", ".", "'", '"', "\\", "0x", "9" * 30, "1e999", "8/255", "\n", "#", ":", ";", "{", "}", "lambda", "for", "import",
     "__class__", "\0", "\u202e", "é", "ſ", "１", "😀", "\udcff", " "]
)  # fmt: skip


@MANY
@given(st.lists(WORDS, max_size=60).map("".join) | st.text(max_size=80))
def test_parse(text):
    found = ours(parse, text)
    if found is not None:
        assert isinstance(found, Component) and parse(found.spec()) == found


@MANY
@given(spoilt("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM"))
def test_images(file):
    found = ours(decode, file[1], "image")
    if found is not None:
        assert found.ndim == 3 and found.shape[2] in (1, 3) and np.isfinite(found).all()


@SOME
@given(spoilt("pt", "old.pt", "safetensors"))
def test_weights(tmp_path_factory, file):
    place = tmp_path_factory.mktemp("weights") / f"w.{file[0].rpartition('.')[2]}"
    place.write_bytes(file[1])
    found = ours(read_weights, place)
    if found is not None:
        assert all(isinstance(value, torch.Tensor) for value in found[0].values())


@MANY
@given(spoilt("pickle2", "pickle3", "pickle4") | st.tuples(st.just("pickle"), st.binary(max_size=60)))
def test_pickled_arrays(file):
    ours(read_pickle, file[1], "batch")


@SOME
@given(spoilt("npz", "packed.npz"))
def test_arrays(tmp_path_factory, file):
    place = tmp_path_factory.mktemp("arrays") / "set.npz"
    place.write_bytes(file[1])
    found = ours(lambda: load_dataset(f"npz('{place}')").x())
    if found is not None:
        assert float(found.min()) >= 0 and float(found.max()) <= 1


@SOME
@given(st.binary(min_size=1, max_size=120), st.sampled_from([b"\x93NUMPY\x01\x00", b"\x93NUMPY\x02\x00", b"\x93NUMPY", b""]))
def test_headers_of_arrays(tmp_path_factory, body, magic):
    place = tmp_path_factory.mktemp("headers") / "set.npz"
    with zipfile.ZipFile(place, "w") as archive:
        archive.writestr("x.npy", magic + len(body).to_bytes(2, "little") + body)
        archive.writestr("y.npy", magic + body)
    assert ours(lambda: load_dataset(f"npz('{place}')").x()) is None


@settings(SOME, max_examples=150)
@given(st.data())
def test_tables(tmp_path_factory, data):
    place = tmp_path_factory.mktemp("tables") / "set.parquet"
    text = "".join(f"\\x{byte:02x}" for byte in FILES["PNG"])
    duckdb.sql(f"copy (select '{text}'::blob as image, 0 as label) to '{place}' (format parquet)")
    body = bytearray(place.read_bytes())
    for _ in range(data.draw(st.integers(1, 5))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    place.write_bytes(body)
    ours(lambda: load_dataset(f"parquet('{place}')").x())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
ENTRIES = ("networks", "data", "perturbations", "probes", "versions", "format", "seed", "findings", "name", "verdict", "message", "net")


@MANY
@given(st.dictionaries(st.sampled_from(ENTRIES), JSON) | JSON)
def test_what_a_run_directory_holds(value):
    value = json.loads(json.dumps(value))
    ours(plan_of, value, "plan.json")
    ours(findings_of, value, "findings.json")
    ours(rows_of, [value], "readings.parquet")
