"""Tables by kind of noise: gains, worst images, and comparisons with other methods."""

import json

import numpy as np
import pytest

from training.evaluate import kinds, measures, split
from training.evaluate.kinds import Row
from training.evaluate.noises import CLEAN, KINDS, noisy_images
from wsi_denoise.network import weights

NAMED = {kind.name: kind for kind in KINDS}


@pytest.fixture
def tissue(tissue_image, monkeypatch) -> np.ndarray:
    clean = np.stack([tissue_image[top : top + 96, :96] for top in (0, 60, 120)])
    monkeypatch.setitem(split.TISSUES, "tissue", split.Tissue("choice", lambda _patches: clean))
    return clean


def test_a_row_is_the_gain_over_the_noisy_input(tissue, tmp_path):
    chosen = (NAMED[CLEAN], NAMED["white 10"])
    methods = {"nothing": lambda noisy, _: noisy, "truth": lambda _noisy, _sigma: tissue}
    rows = list(kinds.measured(methods, tmp_path, sources=["tissue"], kinds=chosen, seeds=2))
    found = {(row.method, row.kind): row for row in rows}
    nothing, truth = found["nothing", "white 10"], found["truth", "white 10"]
    assert (nothing.gain, nothing.worst, nothing.losing, nothing.images, nothing.seeds) == (0, 0, 0, 3, 2)
    noisy = [noisy_images(tissue, "tissue", chosen[1], seed) for seed in range(2)]
    before = np.mean([measures.psnr(images, tissue) for images in noisy])
    assert truth.gain == pytest.approx(measures.PERFECT - before, abs=1e-3)
    assert truth.gain_low <= truth.gain <= truth.gain_high
    assert (found["nothing", CLEAN].psnr, found["nothing", CLEAN].losing) == (measures.PERFECT, 0)


def test_an_image_that_loses_is_counted_at_each_seed(tissue, tmp_path):
    def harmful(noisy, _sigma):
        worse = noisy.copy()
        worse[0] = 255 - worse[0]
        return worse

    rows = list(kinds.measured({"harmful": harmful}, tmp_path, sources=["tissue"], kinds=KINDS[:3], seeds=2))
    assert [row.losing for row in rows] == [1, 2, 2]
    assert all(row.worst < -3 for row in rows[1:])


def test_methods_and_noise_stand_in_the_table():
    rows = [
        Row("s", "a", CLEAN, 4, 1, 60.0, 0, 0, 0, 55.0, 0),
        Row("s", "a", "white 10", 4, 3, 33.0, 5.0, 4.5, 5.5, 4.0, 0),
        Row("s", "b", "white 10", 4, 3, 32.0, 4.0, 3.5, 4.5, -0.5, 1),
    ]
    text = kinds.markdown(rows)
    assert "`s`, 4 images, 3 noise seeds" in text
    assert "| clean | 60.0, least 55.0 |  |" in text
    assert "| white 10 | +5.00 [+4.50, +5.50], worst +4.00 | +4.00 [+3.50, +4.50], worst -0.50 |" in text
    assert kinds.markdown([]) == ""


@pytest.mark.training
@pytest.mark.shared
def test_the_program_writes_a_table_of_a_presets_weights(shared, tmp_path):
    out = tmp_path / "kinds.json"
    source = "kather-crc-20x, even positions"
    given = ["--preset", "paper", "--shared", str(shared), "--source", source, "--count", "1", "--seeds", "1"]
    kinds.main([*given, "--out", str(out)])
    found = json.loads(out.read_text())
    assert found["sha256"] == weights.card("paper").sha256
    assert [row["kind"] for row in found["rows"]] == [kind.name for kind in KINDS]
    assert next(row["gain"] for row in found["rows"] if row["kind"] == "white 25") > 5


def test_a_mean_over_sources_weights_them_equally_and_keeps_the_worst():
    rows = [
        Row("s", "a", "white 10", 400, 3, 33.0, 5.0, 4.5, 5.5, 4.0, 0),
        Row("t", "a", "white 10", 4, 3, 31.0, 1.0, 0.5, 1.5, -0.5, 2),
    ]
    (mean,) = kinds.over_sources(rows)
    assert (mean.source, mean.images, mean.gain, mean.psnr) == ("mean of 2 sources", 404, 3.0, 32.0)
    assert (mean.worst, mean.losing, mean.gain_low) == (-0.5, 2, 1.0)


def test_a_method_is_compared_with_the_better_of_the_others():
    rows = [
        Row("s", "auto", CLEAN, 4, 1, 60.0, 0, 0, 0, 55.0, 0),
        Row("s", "paper", CLEAN, 4, 1, 70.0, 0, 0, 0, 65.0, 0),
        Row("s", "scanner", CLEAN, 4, 1, 65.0, 0, 0, 0, 60.0, 0),
        Row("s", "auto", "white 10", 4, 3, 33.0, 5.0, 4.5, 5.5, -0.4, 1),
        Row("s", "paper", "white 10", 4, 3, 33.0, 5.5, 4.5, 5.5, 4.0, 0),
        Row("s", "scanner", "white 10", 4, 3, 33.0, 5.25, 4.5, 5.5, 4.0, 0),
    ]
    text = kinds.shortfalls(rows, ["paper", "auto", "scanner"], ["paper", "scanner"])
    assert "| clean | +60.00 | +70.00 (paper) | -10.00 | +55.00 | 0 |" in text
    assert "| white 10 | +5.00 | +5.50 (paper) | -0.50 | -0.40 | 1 |" in text
