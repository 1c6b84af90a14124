"""Nuclei are found one by one, matched one to one, and a preset that removes some says so."""

import numpy as np
import pytest

from training.evaluate import nuclei
from training.evaluate.noises import KINDS

WHITE = tuple(kind for kind in KINDS if kind.name == "white 10")


def discs(count: int) -> np.ndarray:
    """A white field with purple discs, some of which touch."""
    image = np.full((128, 256, 3), 240, np.uint8)
    rows, columns = np.mgrid[:128, :256]
    for n in range(count):
        inside = (rows - 30 - 26 * (n // 8)) ** 2 + (columns - 25 - 21 * (n % 8)) ** 2 < 12**2
        image[inside] = (90, 60, 140)
    return image


@pytest.mark.parametrize("count", [1, 7, 24])
def test_touching_nuclei_are_found_one_by_one(count):
    found = nuclei.centres_of(discs(count))
    assert len(found) == count
    assert np.abs(found[0] - (30, 25)).max() < 2.0


def test_an_empty_field_has_no_nucleus():
    assert nuclei.centres_of(np.full((64, 64, 3), 200, np.uint8)).shape == (0, 2)


def test_a_nucleus_is_matched_once_and_within_reach():
    reference = np.array([(10.0, 10.0), (50.0, 50.0)])
    assert nuclei.found_again(reference, reference + 3) == 2
    assert nuclei.found_again(reference, np.array([(10.0, 12.0), (11.0, 10.0), (59.0, 50.0)])) == 1
    # The shortest total distance would leave the first nucleus without a partner.
    assert nuclei.found_again(np.array([(0.0, 0.0), (5.0, 0.0)]), np.array([(5.0, 1.0), (8.0, 5.0)])) == 2
    assert nuclei.f1(reference, reference[:1]) == pytest.approx(2 / 3)
    assert nuclei.f1(reference[:0], reference[:0]) == 1.0
    assert nuclei.f1(reference, reference[:0]) == 0.0


def test_a_preset_that_erases_nuclei_is_marked():
    clean = np.stack([discs(24), discs(16)])

    def erases(noisy, _sigma):
        return np.stack([discs(20), discs(14)])

    one_less = np.stack([discs(23), discs(16)])
    methods = {"keeps": lambda _noisy, _sigma: one_less, "erases": erases}
    keeps, lost = nuclei.measured(methods, clean, "discs", WHITE)
    assert (keeps.clean, keeps.denoised, keeps.f1_denoised, keeps.losing) == (20, 19.5, 0.989, 0)
    assert (lost.denoised, lost.losing, lost.losing_noisy) == (17, 2, 0)
    text = nuclei.markdown([keeps, lost])
    assert "| noise | noisy | keeps | erases |" in text
    assert "| 0.99 (-3 %, 0) |" in text
    assert "(-15 %, 2)** |" in text
    assert "`erases` leaves more than 5 % fewer nuclei in up to 2 of 2 images (white 10)." in text
    assert "`keeps` leaves" not in text
