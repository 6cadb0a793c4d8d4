import codecs
import os
import pickle
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brinell.core.errors import DataError
from brinell.data.pickled import byte_array, read_pickle


class Hostile:
    """Unpickled for real, it makes a directory."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


class Evaluated:
    def __reduce__(self):
        return eval, ("__import__('os').getcwd()",)


class Attribute:
    def __init__(self):
        self.x = 1


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_of_every_protocol(protocol, order):
    pixels = np.asarray(np.random.default_rng(0).integers(0, 256, (3, 4), dtype=np.uint8), order=order)
    value = {b"data": pixels, "labels": [1, 2, 300, -1, 2**40], b"n": (None, True, False, (), [], {}, 0.5), "t": "é"}
    got = read_pickle(pickle.dumps(value, protocol), "f")
    assert np.array_equal(byte_array(got.pop(b"data"), "f"), pixels)
    assert got == {name: part for name, part in value.items() if name != b"data"}


def test_an_array_as_python_2_wrote_it():
    body = bytes(range(256)) * 2
    text = (
        b"\x80\x02}q\x01(U\x04dataq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\nq\x04K\x00\x85U\x01b\x87Rq\x05"
        b"(K\x01K\x02M\x00\x01\x86cnumpy\ndtype\nq\x06U\x02u1K\x00K\x01\x87Rq\x07(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xff"
        b"K\x00tb\x89T" + struct.pack("<i", 512) + body + b"tbu."
    )
    assert np.array_equal(byte_array(read_pickle(text, "f")["data"], "f"), np.frombuffer(body, np.uint8).reshape(2, 256))


@pytest.mark.parametrize("body", [
    pickle.dumps(Evaluated(), 0), pickle.dumps(Evaluated()),
    pickle.dumps(Attribute(), 2), pickle.dumps(Attribute(), 4), pickle.dumps(codecs.decode), pickle.dumps(print, 2),
    b"cos\nsystem\n(S'touch /tmp/x'\ntR.", b"(S'touch /tmp/x'\nios\nsystem\n.", b"\x80\x02(cposix\nsystem\nU\x01xo.",
    b"\x80\x02cnumpy\nload\nU\x01x\x85R.", b"\x80\x02cnumpy.core.multiarray\n_reconstruct.__globals__\n.",
    b"\x80\x02cnumpy\nndarray\n)\x81.", b"\x80\x02P0\n.", b"\x80\x02U\x01aQ.", b"\x80\x02\x82\x01.", b"\x80\x05\x97.",
])  # fmt: skip
def test_hostile_pickles_are_refused_by_the_name_of_what_they_ask_for(body):
    with pytest.raises(DataError, match=r"batch: the pickle (asks for '|uses the instruction [A-Z])") as caught:
        read_pickle(body, "batch")
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("protocol", range(6))
def test_nothing_in_a_pickle_runs(protocol, tmp_path):
    body = pickle.dumps({"labels": [1], "data": Hostile(tmp_path / "made")}, protocol)
    with pytest.raises(DataError, match=r"asks for '(posix|nt)\.mkdir'|uses the instruction"):
        read_pickle(body, "batch")
    assert not (tmp_path / "made").exists()
    pickle.loads(body)
    assert (tmp_path / "made").exists()  # for real it runs


@pytest.mark.parametrize("body", [
    b"", b".", b"\x80\x02", b"hello", b"\x80\x02K\x01K\x02.", b"\x80\x02t.", b"\x80\x02h\x05.", b"\x80\x02K\x01K\x02a.", b"\x80\x02)R.",
    b"\x80\x02K\x01)R.", b"\x80\x02}]K\x01s.", b"\x80\x02}(K\x01u.", b"\x80\x02T\xff\xff\xff\x7fab.", b"\x80\x02K\x01}b.",
    b"\x80\x02cnumpy.",
    b"\x80\x04\x8e" + struct.pack("<Q", 1 << 60) + b"ab.", pickle.dumps({"a": list(range(500))})[:-40],
])  # fmt: skip
def test_damaged_pickles(body):
    with pytest.raises(DataError, match="batch is no whole pickle"):
        read_pickle(body, "batch")


def test_bombs_cost_nothing():
    memo = b"\x80\x02K\x01r\xff\xff\xff\x7f."  # the built-in unpickler would make room for 2^31 entries
    assert read_pickle(memo, "f") == 1
    deep = b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b"."
    assert isinstance(read_pickle(deep, "f"), list)
    nested = b"\x80\x02}" + b")" + b"\x85" * 100_000 + b"K\x01s."  # a key that could not be hashed within the stack
    with pytest.raises(DataError, match="a tuple where a str or bytes or int belongs"):
        read_pickle(nested, "f")


def array(shape=(2, 2), kind="u1", fortran=False, body=b"abcd"):
    """The records that a pickled array becomes."""
    value = np.zeros(shape, dtype=kind) if body is None else np.frombuffer(body, dtype=np.uint8)
    text = pickle.dumps(value if body is None else value.reshape(shape, order="F" if fortran else "C"), 2)
    return read_pickle(text, "f")


@pytest.mark.parametrize("value", [
    1, "data", [1, 2], array(kind="f4", body=None), array(kind="i8", body=None), array(kind=object, body=None),
    read_pickle(b"\x80\x02cnumpy\ndtype\nU\x02u1\x85R.", "f"), read_pickle(b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n)R.", "f"),
    read_pickle(b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n)R(K\x01K\x03\x85cnumpy\ndtype\nU\x02u1\x85R\x89U\x02abtb.", "f"),
    read_pickle(b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n)R(K\x01U\x01x\x85cnumpy\ndtype\nU\x02u1\x85R\x89U\x02abtb.", "f"),
    read_pickle(b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n)R(K\x01K\x02\x85cnumpy\ndtype\n)R\x89U\x02abtb.", "f"),
    read_pickle(b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n)R(K\x01K\x02\x85cnumpy\ndtype\nU\x02u1\x85R\x89K\x05tb.", "f"),
])  # fmt: skip
def test_what_is_no_array_of_bytes(value):
    with pytest.raises(DataError, match="f: expected an array of bytes"):
        byte_array(value, "f")


@given(st.binary(max_size=60), st.integers(0, 200), st.integers(0, 255))
@settings(max_examples=300, deadline=None)
def test_any_bytes_give_a_value_or_a_data_error(tail, place, value):
    body = bytearray(pickle.dumps({"data": np.zeros((2, 3), np.uint8), "labels": [1, 2]}, 2))
    body[place % len(body)] = value
    for text in (tail, b"\x80\x02" + tail, bytes(body)):
        try:
            read_pickle(text, "f")
        except DataError as error:
            assert str(error).startswith("f")
