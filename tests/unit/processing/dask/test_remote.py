"""What comes out of a task: values, and errors that can be sent."""

import pickle

import imagecodecs
import pytest
from distributed.protocol import deserialize, serialize

from wsi_denoise.errors import InternalError, UnreadableTile
from wsi_denoise.processing.dask import remote, tasks


def damaged() -> UnreadableTile:
    """An error as the readers raise it: caused by one of imagecodecs that cannot be unpickled."""
    try:
        try:
            imagecodecs.deflate_decode(b"x\x9c" + b"no deflate at all")
        except Exception as cause:
            with pytest.raises(TypeError):
                pickle.loads(pickle.dumps(cause))
            raise UnreadableTile("level 0, x 0, y 256") from cause
    except UnreadableTile as error:
        return error


def sent(value):
    """What arrives at the other end of a connection of Dask's."""
    return deserialize(*serialize(value))


def test_an_error_from_a_damaged_tile_arrives(monkeypatch, tmp_path):
    assert damaged().__cause__ is not None
    monkeypatch.setattr(tasks, "probe", lambda *_args: damaged())
    error = sent(remote.probe(tmp_path, 1.0))
    assert (type(error), error.detail) == (UnreadableTile, "level 0, x 0, y 256")


def test_an_error_that_is_raised_arrives(monkeypatch):
    def block(*_args):
        raise damaged()

    monkeypatch.setattr(tasks, "block", block)
    with pytest.raises(UnreadableTile) as caught:
        remote.blocks(None, [()])
    assert caught.value.__cause__ is caught.value.__context__ is None
    assert sent(caught.value).detail == "level 0, x 0, y 256"


def test_what_nobody_foresaw_arrives_as_our_mistake(monkeypatch):
    def block(*_args):
        imagecodecs.deflate_decode(b"x\x9c" + b"no deflate at all")

    monkeypatch.setattr(tasks, "block", block)
    with pytest.raises(InternalError, match=r"(Zlib|Deflate)Error.*line") as caught:
        remote.blocks(None, [()])
    assert sent(caught.value).code == "internal_error"


def test_values_pass(monkeypatch):
    monkeypatch.setattr(tasks, "verify", lambda *args: args)
    assert remote.verify(1, 2) == (1, 2)
    assert pickle.loads(pickle.dumps(remote.verify)) is remote.verify
