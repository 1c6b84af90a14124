"""Download of the viewer's library."""

import pytest

from dashboard.viewer import openseadragon


def test_another_package_is_not_taken_for_the_library(tmp_path):
    with pytest.raises(openseadragon.LibraryMissing, match="digest"):
        openseadragon.unpack(b"not what was published", tmp_path / "library")
    assert not (tmp_path / "library").exists()
    assert openseadragon.present()
