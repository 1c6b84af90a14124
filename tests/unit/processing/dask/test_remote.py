"""Results of a task: values, and errors that can be sent."""

import pickle

import imagecodecs
import pytest
from distributed.protocol import deserialize, serialize

from wsi_denoise.errors import InternalError, UnreadableTile
from wsi_denoise.processing.dask import remote


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
    """Return the value at the other end of a connection of Dask's."""
    return deserialize(*serialize(value))


@remote.travels
def task(outcome):
    """Return or raise what is given, as a task of a worker."""
    if isinstance(outcome, str):
        imagecodecs.deflate_decode(outcome.encode())
    return outcome()


def test_an_error_that_is_returned_arrives():
    assert damaged().__cause__ is not None
    error = sent(task(damaged))
    assert (type(error), error.detail) == (UnreadableTile, "level 0, x 0, y 256")


def test_an_error_that_is_raised_arrives():
    def raise_it():
        raise damaged()

    with pytest.raises(UnreadableTile) as caught:
        task(raise_it)
    assert caught.value.__cause__ is caught.value.__context__ is None
    assert sent(caught.value).detail == "level 0, x 0, y 256"


def test_an_unforeseen_error_arrives_as_an_error_of_this_program():
    with pytest.raises(InternalError, match=r"(Zlib|Deflate)Error.*line") as caught:
        task("no deflate at all")
    assert sent(caught.value).code == "internal_error"


def test_values_pass():
    assert task(lambda: (1, 2)) == (1, 2)
    assert pickle.loads(pickle.dumps(remote.verify)) is remote.verify
