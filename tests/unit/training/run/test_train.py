"""Training: crops, schedule, averaging, checkpoints that continue, and a loss that falls."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from training.data import sources
from training.data.bank import Bank, crop, flat_crop, recoloured
from training.evaluate import nuclei, split
from training.publish import export
from training.run import checkpoint, lineage, recipe, train
from training.run.batches import Batches
from training.run.configuration import Configuration
from training.run.loss import is_smooth, loss_of
from training.run.train import Run, learning_rate, parser
from wsi_denoise.network import weights
from wsi_denoise.network.irunet import IRUNet

SMALL = Configuration(filters=4, steps=40, pixels=8, bf16=False, device="cpu", rate=4e-3, polish=0.0)


@pytest.fixture
def folder_of_tissue(tmp_path, tissue_image) -> Path:
    folder = tmp_path / "tissue"
    folder.mkdir()
    for n, top in enumerate((0, 50, 100)):
        Image.fromarray(tissue_image[top : top + 150, top : top + 150]).save(folder / f"{n}.png")
    return folder


@pytest.fixture
def source(folder_of_tissue) -> sources.Source:
    files = sources.images_in(folder_of_tissue)
    return sources.Source("tissue", "CC0-1.0", files, 1.0, 0.5, (0.5, 2.0), 0.5, again=0.3)


@pytest.fixture
def bank(source) -> Bank:
    return Bank([source])


@pytest.mark.parametrize("side", [64, 96, 128, 192])
def test_crops_have_the_size_asked_for_even_beyond_the_image(bank, side):
    crops = bank.draw(12, side, np.random.default_rng(1))
    assert crops.shape == (12, 3, side, side)
    assert float(crops.min()) >= 0
    assert float(crops.max()) <= 1
    assert float((crops * 255 - (crops * 255).round()).abs().max()) < 1e-4


def test_crops_follow_their_generator(bank):
    first, same, other = (bank.draw(4, 64, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_native_crops_are_the_images_own_pixels(source):
    native = dataclasses.replace(source, native=1.0, recolour=0.0)
    image = sources.load(native.files[0])
    cut = crop(image, 64, native, np.random.default_rng(3))
    found = (cut * 255).round().byte().permute(1, 2, 0).numpy()
    windows = np.lib.stride_tricks.sliding_window_view(image, (64, 64, 3))[:, :, 0]
    assert (windows == found).all(axis=(2, 3, 4)).any()


def test_rescaling_spans_smooth_and_sharp(source):
    def detail(crop: torch.Tensor) -> float:
        return float(crop.diff(dim=-1).abs().mean() / (crop.std() + 1e-6))

    sharp = dataclasses.replace(source, native=0.0, scales=(0.5, 0.6), again=0.0)
    smooth = dataclasses.replace(source, native=0.0, scales=(2.5, 3.0), again=0.0)
    image = sources.load(source.files[0])
    rng = np.random.default_rng(4)
    means = [np.mean([detail(crop(image, 64, one, rng)) for _ in range(10)]) for one in (sharp, smooth)]
    assert means[0] > 2 * means[1]


def test_recolouring_changes_colours_and_keeps_the_structure(bank):
    crops = bank.draw(16, 64, np.random.default_rng(5))
    changed = recoloured(crops, np.random.default_rng(6))
    assert float((changed.mean((2, 3)) - crops.mean((2, 3))).abs().mean()) > 0.02
    grey, other = (x.mean(1).flatten(1) for x in (crops, changed))
    textured = grey.std(1) > 0.05
    correlation = [np.corrcoef(a, b)[0, 1] for a, b in zip(grey[textured], other[textured], strict=True)]
    assert np.median(correlation) > 0.8


def test_nothing_to_train_on_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing to train on"):
        Bank([sources.Source("none", "CC0-1.0", (), 1.0, 1.0, (1.0, 1.0), 0.0)])
    with pytest.raises(FileNotFoundError, match="no image"):
        sources.own_source(tmp_path)


def test_flat_crops_are_flat():
    rng = np.random.default_rng(7)
    for _ in range(20):
        crop = flat_crop(64, rng)
        assert float(crop.diff(dim=-1).abs().max()) < 0.02
        assert float(crop.diff(dim=-2).abs().max()) < 0.02
        assert is_smooth(((crop * 255.0).round() / 255.0)[None]).all()


def test_kather_files_of_a_test_files_region_are_used_for_neither():
    names = ["A_HE-01_005.tif_Row_1", "B_HE-02_001.tif_Row_1", "C_HE-02_001.tif_Row_9", "D_HE-03.tif_Row_1"]
    train, test = sources.kather_split([Path(name) for name in names])
    assert [file.name[0] for file in train] == ["A"]
    assert [file.name[0] for file in test] == ["B", "D"]


@pytest.mark.training
@pytest.mark.shared
def test_slides_are_trained_on_made_smaller(shared: Path):
    (source,) = (source for source in sources.default_sources(shared) if source.name.startswith("slides"))
    assert (source.native, source.scales[1]) == (0.0, 0.5)
    images = [image for file in source.files for image in sources.load_all(file)]
    assert [image.shape for image in images] == [(1101, 1101, 3), (3567, 4443, 3), (1525, 2033, 3)]
    crops = Bank([source], flat=0.0).draw(8, 64, np.random.default_rng(1))
    assert not is_smooth(crops).all()


@pytest.mark.training
@pytest.mark.shared
def test_nothing_that_is_evaluated_is_trained_on(shared: Path):
    trained = {file for source in sources.default_sources(shared) for file in source.files}
    pixels = {image.tobytes() for file in trained for image in sources.load_all(file)}
    _, kather = sources.kather_split(sources.images_in(shared / "data" / "patches" / "kather-crc-20x"))
    assert not trained & set(kather)
    assert not any(part in str(file) for file in trained for part in ("monuseg", "author-pairs", "/val/", "/test/"))
    for source in ("pcam-kaggle/val", "pcam-kaggle/test", "irunet-author-pairs"):
        assert not any(image.tobytes() in pixels for image in split.SOURCES[source](shared / "data" / "patches"))


def test_learning_rate_rises_and_comes_down():
    rates = [learning_rate(progress, 1e-3) for progress in (0.0, 0.01, 0.02, 0.5, 0.9, 1.0)]
    assert rates[0] < rates[1] < rates[2] == pytest.approx(1e-3)
    assert rates[2] > rates[3] > rates[4] > rates[5]
    assert rates[5] == pytest.approx(1e-6)


def test_a_constant_rate_depends_on_the_step_alone():
    for progress in (0.0, 0.01, 0.5, 1.0):
        rates = [learning_rate(progress, 1e-3, "constant", step) for step in (0, 10, train.WARMING, 10**6)]
        assert rates == pytest.approx([1e-3 / train.WARMING, 11e-3 / train.WARMING, 1e-3, 1e-3])


@pytest.mark.training
def test_a_stop_file_ends_a_run_with_a_checkpoint_and_it_continues_without(tmp_path, bank):
    folder = tmp_path / "run"
    run = Run(folder, SMALL, bank)
    run.train(until=2)
    (folder / train.STOP).touch()
    stopped = Run(folder, SMALL, bank)
    stopped.train()
    assert (stopped.step, checkpoint.read(folder / "checkpoint")[1]["step"]) == (2, 2)
    (folder / train.STOP).unlink()
    going = Run(folder, SMALL, bank)
    going.train(until=4)
    assert checkpoint.read(folder / "checkpoint")[1]["step"] == 4


def test_loss_counts_the_same_relative_error_alike_at_every_sigma():
    clean = torch.full((1, 3, 8, 8), 0.5)
    weak = loss_of(clean + 0.01, clean, torch.tensor([0.0]), 0.0)
    strong = loss_of(clean + 0.06, clean, torch.tensor([50.0]), 0.0)
    assert float(weak) == pytest.approx(float(strong), rel=1e-3)


@pytest.mark.parametrize("polish", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(("truth", "beyond"), [(1.0, 0.1), (0.0, -0.1)])
def test_beyond_black_or_white_is_no_error_where_the_truth_is_that(polish, truth, beyond):
    clean, sigma = torch.full((1, 3, 8, 8), truth), torch.tensor([50.0])
    at, there, back = (loss_of(clean + shift, clean, sigma, polish) for shift in (0.0, beyond, -beyond))
    assert float(at) == float(there) < float(back)
    grey = torch.full((1, 3, 8, 8), 0.97 if truth else 0.03)
    assert float(loss_of(grey, grey, sigma, polish)) < float(loss_of(grey + beyond, grey, sigma, polish))


def test_a_blob_in_a_flat_field_weighs_more_than_as_much_error_everywhere():
    sigma = torch.tensor([50.0])
    blob = torch.zeros(1, 3, 32, 32)
    blob[:, :, 8:12, 8:12] = 0.08
    everywhere = torch.full_like(blob, float(blob.square().mean().sqrt()))
    flat, tissue = torch.full_like(blob, 0.5), torch.rand(1, 3, 32, 32) * 0.5 + 0.25
    assert is_smooth(torch.cat([flat, tissue])).tolist() == [True, False]
    of_blob, of_all = (float(loss_of(flat + error, flat, sigma, 1.0)) for error in (blob, everywhere))
    assert of_blob > of_all + 0.01
    on_tissue = [float(loss_of(tissue + error, tissue, sigma, 1.0)) for error in (blob, everywhere)]
    assert on_tissue[0] == pytest.approx(on_tissue[1], rel=1e-4)


def test_average_follows_the_network_slowly():
    network = IRUNet(2)
    average = checkpoint.Averaged(network, 0.9)
    average.steps = 1000
    before = average.weights["tail.bias"].clone()
    network.tail.bias.data.add_(1.0)
    average.update(network)
    assert torch.allclose(average.weights["tail.bias"], before + 0.1)


@pytest.mark.training
def test_twenty_steps_reduce_the_loss(tmp_path, bank):
    # Direct output: a residual network starts as the identity, a plateau that twenty steps do not leave.
    run = Run(tmp_path / "run", dataclasses.replace(SMALL, filters=8, pixels=16, residual=False), bank)
    unseen = [run.batches.make(step) for step in range(1000, 1004)]

    def loss() -> float:
        with torch.inference_mode():
            return float(np.mean([loss_of(run.network(noisy), clean, sigma, 0.0) for noisy, clean, sigma in unseen]))

    before = loss()
    for _ in range(20):
        run.advance()
    run.batches.close()
    assert loss() < 0.9 * before


@pytest.mark.training
def test_a_resumed_run_continues_as_if_never_interrupted(tmp_path, bank):
    whole = Run(tmp_path / "whole", SMALL, bank)
    for _ in range(8):
        whole.advance()
    first = Run(tmp_path / "cut", SMALL, bank)
    for _ in range(4):
        first.advance()
    first.save()
    second = Run(tmp_path / "cut", SMALL, bank)
    # Filled, not replaced: on a GPU what is read is on the CPU.
    places = {name: value.data_ptr() for name, value in second.average.weights.items()}
    checkpoint.restore(tmp_path / "cut" / "checkpoint", second.network, second.average, second.optimizer)
    assert places == {name: value.data_ptr() for name, value in second.average.weights.items()}
    assert (second.step, second.samples) == (4, first.samples)
    for _ in range(4):
        second.advance()
    for run in (whole, first, second):
        run.batches.close()
    assert second.samples == whole.samples
    for name, value in whole.network.state_dict().items():
        assert torch.allclose(value, second.network.state_dict()[name], atol=1e-6), name
        assert torch.allclose(whole.average.weights[name], second.average.weights[name], atol=1e-6), name
    assert not torch.allclose(whole.network.head.weight, first.network.head.weight, atol=1e-6)


@pytest.mark.training
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
@pytest.mark.parametrize("protocol", ["fresh", "camera"])
def test_batches_made_in_processes_are_those_made_in_a_thread(protocol, bank):
    configuration = dataclasses.replace(SMALL, protocol=protocol, steps=9)
    thread, processes = (Batches(bank, configuration, workers) for workers in (0, 2))
    # From the middle, as a resumed run, and back.
    for step in (4, 5, 6, 7, 8, 9, 10, 2, 3):
        for ours, theirs in zip(thread.at(step), processes.at(step), strict=True):
            # Sums are rounded otherwise with another number of threads.
            assert torch.allclose(ours, theirs, rtol=1e-6, atol=0.0)
    assert not torch.equal(thread.make(2)[0], thread.make(3)[0])
    thread.close()
    processes.close()


def test_a_card_says_what_a_run_had_that_others_do_not():
    usual = dataclasses.asdict(Configuration())
    assert {name: usual[name] for name in lineage.SELDOM} == lineage.SELDOM
    assert not set(lineage.SELDOM) & set(lineage.options_that_decide(usual))
    unusual = {"every": 20, "texture": 0.1, "schedule": "constant"}
    assert set(unusual) == set(lineage.SELDOM)
    assert lineage.options_that_decide(usual | unusual) == lineage.options_that_decide(usual) | unusual
    assert set(lineage.SELDOM) <= set(recipe.NAMES)


@pytest.mark.training
def test_a_run_that_goes_on_from_another_names_its_machine(tmp_path, bank):
    run = Run(tmp_path / "run", dataclasses.replace(SMALL, every=20), bank)
    run.advance()
    run.save()
    run.batches.close()
    (tmp_path / "run" / "run.json").write_text(json.dumps({"machine": "a GPU", "before": [{"filters": 1}]}))
    earlier, last = lineage.stages_before(str(tmp_path / "run" / "checkpoint"))
    assert earlier == {"filters": 1}
    assert (last["machine"], last["every"], last["steps"]) == ("a GPU", 20, 1)


@pytest.mark.training
def test_a_checkpoint_of_two_saves_is_refused(tmp_path, bank):
    run = Run(tmp_path / "run", SMALL, bank)
    run.save()
    note = (tmp_path / "run" / "checkpoint.json").read_text()
    run.advance()
    run.save()
    run.batches.close()
    (tmp_path / "run" / "checkpoint.json").write_text(note)
    with pytest.raises(checkpoint.CheckpointDamagedError):
        checkpoint.read(tmp_path / "run" / "checkpoint")


@pytest.mark.training
def test_a_run_becomes_a_preset_and_its_table_has_to_be_of_its_weights(tmp_path, bank):
    run = Run(tmp_path / "run", dataclasses.replace(SMALL, texture=0.1), bank)
    run.advance()
    run.save()
    run.batches.close()
    record = {"sources": [{"name": "tissue", "licence": "CC0-1.0", "files": 3, "sha256": "0"}]}
    (tmp_path / "run" / "run.json").write_text(json.dumps(record))
    card = export.export(tmp_path / "run", "small", "For this test.", tmp_path / "presets")
    assert card.samples_seen == run.samples
    assert [source.name.split(",")[0] for source in card.trained_on] == [
        "tissue",
        "flat fields and soft ramps",
        "textures",
    ]
    loaded = weights.load("small", tmp_path / "presets")
    assert torch.equal(loaded.head.weight, run.average.weights["head.weight"])

    row = dict(zip(("source", "protocol", "sigma", "images", "seeds"), ("a", "fresh", 25.0, 2, 1), strict=True))
    figures = {"psnr": 30.0, "psnr_low": 29.0, "psnr_high": 31.0, "ssim": 0.9}
    rows = [{**row, **figures, "method": method} for method in ("noisy input", "small")]
    table = tmp_path / "table.json"
    table.write_text(json.dumps({"sha256": card.sha256, "rows": rows}))
    found = nuclei.Row("a", "small", "white 10", 2, 20.0, 15.0, 18.0, 0.8, 0.9, 0.85, 0.95, 2, 1)
    counted = tmp_path / "nuclei.json"
    counted.write_text(json.dumps({"sha256": card.sha256, "rows": [dataclasses.asdict(found)]}))
    assert len(export.measure("small", [table], tmp_path / "presets", counted).measured) == 1
    (row,) = weights.card("small", tmp_path / "presets").nuclei
    assert (row.kind, row.f1_denoised, row.losing) == ("white 10", 0.9, 1)
    assert weights.card("small", tmp_path / "presets").measured[0].noisy_psnr == 30.0
    table.write_text(json.dumps({"sha256": "0" * 64, "rows": rows}))
    with pytest.raises(ValueError, match="was measured with weights 000000"):
        export.measure("small", [table], tmp_path / "presets")


def test_pcams_hdf5_is_a_source_and_a_large_one_is_thinned(tmp_path, tissue_image):
    h5py = pytest.importorskip("h5py", reason="h5py is not installed (extra train)")
    images = np.stack([tissue_image[at : at + 96, at : at + 96] for at in range(9)])
    file = tmp_path / "camelyonpatch_level_2_split_train_x.h5"
    with h5py.File(file, "w") as stream:
        stream["x"] = images
    assert np.array_equal(sources.load_all(file), images)
    assert np.array_equal(sources.load_all(file, most=4), images[::3])
    crops = Bank([sources.own_source(file)]).draw(3, 64, np.random.default_rng(1))
    assert crops.shape == (3, 3, 64, 64)
    with h5py.File(tmp_path / "labels.h5", "w") as stream:
        stream["y"] = np.zeros(9)
    with pytest.raises(ValueError, match="a dataset x"):
        sources.load_all(tmp_path / "labels.h5")


@pytest.mark.shared
def test_the_paper_trains_on_pcam_alone_and_others_may_be_added(shared: Path, folder_of_tissue):
    given = parser().parse_args(["--out", "x", "--protocol", "fixed-map", "--shared", str(shared)])
    (source,) = train.chosen_sources(given)
    assert source.recolour == 0
    assert all("pcam-kaggle" in str(file) for file in source.files)
    given = parser().parse_args(["--out", "x", "--shared", str(shared), "--also", str(folder_of_tissue)])
    assert [source.name for source in train.chosen_sources(given)][-1] == str(folder_of_tissue)


@pytest.mark.training
def test_a_run_may_start_from_a_preset(tmp_path, bank):
    run = Run(tmp_path / "run", dataclasses.replace(SMALL, filters=16, initial="paper"), bank)
    run.batches.close()
    assert torch.equal(run.network.head.weight, weights.load("paper").head.weight)


@pytest.mark.parametrize("protocol", ["scanner", "camera"])
def test_batches_have_the_truth_and_sigma_of_their_protocol(bank, protocol):
    made = Batches(bank, dataclasses.replace(SMALL, protocol=protocol, pixels=64))
    same = [made.make(step) for step in (0, 0)]
    made.close()
    for first, second in zip(*same, strict=True):
        assert torch.equal(first, second)
    noisy, clean, sigma = same[0]
    error = 255 * (noisy - clean).square().mean(dim=(1, 2, 3)).sqrt()
    # The scanner reports the strength before clipping where it did not compress.
    assert float((error - sigma).abs().max()) < 3
    assert int((sigma > 0).sum()) >= len(sigma) // 2


def test_textures_take_their_share_and_leave_other_runs_as_they_were(source):
    without, usual = Bank([source], texture=0.0), Bank([source])
    first, same = (bank.draw(8, 64, np.random.default_rng(8)) for bank in (without, usual))
    assert torch.equal(first, same)
    crops = Bank([source], flat=0.0, texture=1.0).draw(8, 64, np.random.default_rng(8))
    assert crops.shape == (8, 3, 64, 64)
    assert not bool(is_smooth(crops).all())
    assert float((crops * 255 - (crops * 255).round()).abs().max()) < 1e-4
