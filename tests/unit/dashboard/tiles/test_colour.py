"""Colour profiles and the colours of maps."""

import numpy as np

from dashboard.tiles.colour import ToSrgb, map_colours, map_pixels


def test_a_damaged_profile_changes_nothing():
    managed = ToSrgb(b"not a profile at all")
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    np.testing.assert_array_equal(managed(pixels), pixels)
    assert "cannot be used" in managed.note


def test_maps_get_lighter_evenly_and_are_transparent_where_nothing_was_measured():
    lightness = map_colours("noise") @ np.array([0.2126, 0.7152, 0.0722])
    assert np.diff(lightness).min() > -0.5  # rounding
    unknown, high = map_pixels(np.array([[np.nan, 99.0]], np.float32), "noise", 2.0)[0].tolist()
    assert unknown[3] == 0
    assert high == [*map_colours("noise")[-1], 255]
