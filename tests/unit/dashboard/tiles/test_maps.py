"""Maps of a job as pictures, with the worst places."""

import imagecodecs
from hypothesis import given, settings
from hypothesis import strategies as st

from dashboard.tiles.maps import load, round_up


def test_a_map_is_a_picture_of_its_patches(processed):
    found = load(processed().job)
    picture = imagecodecs.png_decode(found.picture("structure"))
    assert picture.shape == (10, 8, 4)
    assert (picture[0, 0, 3], picture[2, 3, 3]) == (0, 255), "the first was not measured"
    assert found.worst() == [{"x": 336.0, "y": 240.0, "value": -9.5}, {"x": 144.0, "y": 816.0, "value": 4.0}]
    # One wild patch does not make the others dark; a slide without structure is dark.
    assert found.high("structure") == 8.0


@settings(deadline=None)
@given(st.floats(1e-6, 1e6))
def test_the_end_of_a_scale_is_round(value):
    high = round_up(value)
    assert value * (1 - 1e-6) <= high <= value * 1.67 + 1e-12
