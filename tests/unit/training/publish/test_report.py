"""Tables and pages of the presets: made from files, and those that are committed are up to date."""

import dataclasses
import json

import numpy as np
import PIL.Image
import pytest
import torch

from training import pages
from training.data import manifest, sources
from training.data.bank import FLAT_SHARE
from training.evaluate import ablation, baselines, behaviour, costs, kinds, leak, nuclei, split, strengths, table
from training.noise import corruption
from training.publish import evidence, export, pictures, report
from training.run import checkpoint, comparators, recipe, train
from training.run.configuration import Configuration
from wsi_denoise.network import weights
from wsi_denoise.network.irunet import IRUNet


@pytest.fixture
def tissue(tissue_image) -> np.ndarray:
    return np.stack([tissue_image[top : top + 96, :96] for top in (0, 60, 120)])


def test_the_pages_are_as_the_tables_say():
    for path, text in report.pages_of(pages.DOCS, pages.TABLES).items():
        assert path.read_text("utf-8") == text, f"{path.name}: run python -m training.publish.report"


def test_every_mark_of_a_page_is_a_part_and_every_part_is_shown():
    shown = "".join((pages.DOCS / name).read_text("utf-8") for name in report.PAGES)
    assert {name for name in report.PARTS if f"<!-- made: {name} -->" in shown} == set(report.PARTS)
    text = "before\n<!-- made: a -->\nold\n<!-- end -->\nafter"
    assert pages.filled(text, {"a": "new\n"}) == "before\n<!-- made: a -->\n\nnew\n\n<!-- end -->\nafter"
    with pytest.raises(KeyError):
        pages.filled("<!-- made: no such part -->\n<!-- end -->", {})


def test_a_network_that_knows_the_pattern_is_found_out(tissue):
    def knows_the_pattern(noisy, sigma):
        return np.clip(np.rint(noisy - sigma * corruption.fixed_pattern()), 0, 255).astype(np.uint8)

    rows = leak.measured({"cheat": knows_the_pattern, "noisy input": lambda noisy, _: noisy}, tissue)
    found = {(row["method"], row["noise"], row["sigma"]): row["psnr"] for row in rows}
    assert found["cheat", leak.KINDS[0], 10.0] > 40
    assert found["cheat", leak.KINDS[1], 10.0] < found["noisy input", leak.KINDS[1], 10.0]
    assert found["cheat", leak.KINDS[2], 10.0] < found["noisy input", leak.KINDS[2], 10.0]
    page = leak.markdown(
        {"source": "tissue", "trained": {"steps": 1, "crops": 8, "minutes": 1, "machine": "a"}, "rows": rows}
    )
    assert f"| cheat | {found['cheat', leak.KINDS[0], 10.0]:.2f} / " in page


def test_steps_name_programs_options_that_exist(tmp_path):
    for name, program, what in [*evidence.steps_of("paper"), *evidence.baseline_steps()]:
        if program is strengths.main:
            strengths.parser().parse_args([*what, "--out", str(tmp_path / name)])
        elif program is kinds.main:
            kinds.parser().parse_args([*what, "--out", str(tmp_path / name)])
        elif program is nuclei.main:
            nuclei.parser().parse_args([*what, "--out", str(tmp_path / name)])
        else:
            assert program is behaviour.main
            assert what == ["--preset", "paper"]


def test_a_table_of_other_weights_is_measured_again(tmp_path):
    path = tmp_path / "paper.json"
    assert not evidence.is_current(path, "paper")
    table.save(path, [], {"sha256": "0" * 64})
    assert not evidence.is_current(path, "paper")
    table.save(path, [], {"sha256": weights.card("paper").sha256})
    assert evidence.is_current(path, "paper")


@pytest.mark.training
def test_curves_are_drawn(tmp_path, tissue, monkeypatch):
    monkeypatch.setitem(split.SOURCES, "tissue", lambda _patches: tissue)
    rows = list(table.measured({"paper": lambda x, _: x}, tmp_path, sources=["tissue"], sigmas=[10.0, 25.0], seeds=1))
    pictures.plot(rows, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 5000


def test_a_grid_has_the_images_in_their_places():
    black, white = (np.full((4, 4, 3), value, np.uint8) for value in (0, 100))
    made = pages.grid([[black, white], [white, black]], enlarge=2, border=3)
    assert made.shape == (19, 19, 3)
    assert (made[0, 0, 0], made[0, 18, 0], made[18, 0, 0], made[9, 9, 0]) == (0, 100, 100, 255)


def test_a_card_gives_the_options_of_its_runs(tmp_path):
    card = dataclasses.replace(weights.card("paper"), name="mine", protocol="scanner")
    first = {"steps": 7, "seed": 1, "rate": 0.002, "polish": 0.3, "decay": 0.9, "pixels": 64, "bf16": True}
    last = {**first, "steps": 9, "flat": 0.2, "photographs": True, "minutes": 3.0, "finished": True}
    card = dataclasses.replace(card, training={**last, "before": [{**first, "filters": 8, "protocol": "fresh"}]})
    runs = recipe.runs_of(card, tmp_path)
    assert [folder.name for folder, _ in runs] == ["mine-1", "mine"]
    begun, given = (train.parser().parse_args(["--out", "x", *options]) for _, options in runs)
    assert (begun.filters, begun.protocol, begun.steps, begun.initial, begun.photographs) == (8, "fresh", 7, "", "")
    assert (given.filters, given.residual, given.full_skip, given.protocol) == (16, True, True, "scanner")
    assert (given.steps, given.seed, given.rate, given.flat, given.bf16) == (9, 1, 0.002, 0.2, True)
    assert (given.initial, given.photographs) == (str(tmp_path / "mine-1/checkpoint"), str(tmp_path / "photographs"))


def test_a_run_of_camera_noise_is_repeated_with_its_schedule_and_textures(tmp_path):
    stage = {"steps": 7, "seed": 1, "rate": 3e-4, "polish": 1.1, "decay": 0.9, "pixels": 64, "bf16": True}
    stage |= {"optimizer": "soap", "protocol": "camera", "schedule": "constant", "texture": 0.07, "flat": 0.15}
    card = dataclasses.replace(weights.card("paper"), name="mine", protocol="camera", training=stage)
    ((_, options),) = recipe.runs_of(card, tmp_path)
    given = train.parser().parse_args(["--out", "x", *options])
    assert {name: getattr(given, name) for name in stage} == stage


def figures(line: str) -> list[float]:
    """Return the figures of a line like ``psnr_10: 32.38 dB, as shipped 32.40``."""
    return [float(part) for part in line.split(": ")[1].replace(" dB, as shipped", "").split()]


@pytest.mark.training
@pytest.mark.shared
def test_weights_that_were_made_again_are_held_against_those_that_ship(shared, tmp_path):
    card = weights.card("paper")
    network = weights.load("paper")
    folder = tmp_path / train.CHECKPOINT
    optimizer = torch.optim.Adam(network.parameters())
    checkpoint.save(folder, network, checkpoint.Averaged(network, 0.9), optimizer, {})
    for line in recipe.compared(card, tmp_path, shared):
        now, shipped = figures(line)
        assert now == shipped
    network.tail.bias.data.add_(0.05)
    checkpoint.save(folder, network, checkpoint.Averaged(network, 0.9), optimizer, {})
    for line in recipe.compared(card, tmp_path, shared):
        now, shipped = figures(line)
        assert now < shipped


@pytest.mark.training
def test_a_repeated_run_is_seen_by_its_first_steps(tmp_path, tissue_image):
    images = tmp_path / "images"
    images.mkdir()
    PIL.Image.fromarray(tissue_image).save(images / "image.png")
    same = ["--images", str(images), "--shared", str(tmp_path), "--pixels", "4", "--filters", "2", "--steps", "12"]
    for name, options in {"shipped": [], "again": ["--until", "10"], "other": ["--seed", "2"]}.items():
        train.main(["--out", str(tmp_path / name), "--threads", "1", *same, *options])
    assert (tmp_path / "shipped" / "curve.csv").read_text().startswith("step,samples,minutes")
    card = export.card_of(tmp_path / "shipped", "mine", "to test")
    assert (card.training["threads"], card.training["torch"]) == (1, torch.__version__)
    assert checkpoint.read(tmp_path / "again" / train.CHECKPOINT)[1]["step"] == 10
    (stage,) = recipe.stages_of(card)
    assert recipe.traced(stage, tmp_path / "again") == ["again, step 10: the same weights as shipped"]
    assert recipe.traced(stage, tmp_path / "other") == ["other, step 10: other weights"]


@pytest.mark.training
def test_a_run_that_started_from_others_names_them(tmp_path, tissue_image):
    images = tmp_path / "images"
    images.mkdir()
    PIL.Image.fromarray(tissue_image).save(images / "image.png")
    same = ["--images", str(images), "--shared", str(tmp_path), "--pixels", "4", "--threads", "1"]
    ran = {"first": "2", "second": "1", "third": "1"}
    initial: list[str] = []
    for name, steps in ran.items():
        train.main(["--out", str(tmp_path / name), "--filters", "4", "--steps", steps, *initial, *same])
        initial = ["--initial", str(tmp_path / name / "checkpoint"), "--flat", "0.5"]
    (tmp_path / "first" / "run.json").unlink()  # what is known was written down before
    card = export.card_of(tmp_path / "third", "mine", "to test")
    first, second = card.training["before"]
    assert (first["filters"], first["steps"], first["flat"]) == (4, 2, FLAT_SHARE)
    assert (second["filters"], second["steps"], second["flat"]) == (4, 1, 0.5)
    assert (card.training["steps"], card.training["flat"]) == (1, 0.5)
    assert card.samples_seen > first["samples"] + second["samples"] > 0


def test_a_recipe_says_where_todays_images_are_not_those_of_the_card():
    card = weights.card("reproduce-paper")
    assert recipe.other_images(card) == []
    (source,) = (source for source in card.trained_on if source.sha256)
    other = dataclasses.replace(card, trained_on=(dataclasses.replace(source, sha256="0" * 64),))
    today, seen = recipe.other_images(other)
    assert today == f"{sources.PAPERS}: reproduce-paper saw other files under this name, or none"
    assert seen == f"{sources.PAPERS}: not as reproduce-paper saw it"


def test_the_manifest_says_what_is_missing_and_how_to_get_it(tmp_path, capsys):
    assert manifest.main(["--shared", str(tmp_path)]) == 1
    told = capsys.readouterr().err
    assert all(source["get"] in told for source in manifest.known()["sources"])
    assert recipe.main(["paper", "--shared", str(tmp_path), "--out", str(tmp_path)]) == 1
    for source in manifest.known()["sources"]:
        assert source["licence"]
        assert len(source["sha256"]) == 64


@pytest.mark.shared
def test_the_manifest_is_of_the_files_that_are_trained_on(shared):
    assert manifest.differences(shared) == []
    known = manifest.known()
    pictures = known["photographs"]
    trained = {(source["name"], source["sha256"]) for source in (*known["sources"], pictures)}
    trained |= {(pictures["name"], earlier["sha256"]) for earlier in pictures["earlier"]}
    for card in weights.presets():
        assert all((source.name, source.sha256) in trained for source in card.trained_on if source.sha256)


def test_variants_differ_from_paper_in_one_choice_and_see_as_much(tissue):
    whole = ablation.variants(dataclasses.replace(ablation.BASE, steps=7))
    base, augmented = whole["as paper"]
    for name, (configuration, augments) in whole.items():
        differs = [
            field.name
            for field in dataclasses.fields(base)
            if getattr(base, field.name) != getattr(configuration, field.name)
        ]
        # Each optimizer has the rate that suits it.
        choices = {"optimizer" if field == "rate" else field for field in differs}
        assert len(choices) + (augments != augmented) == (name != "as paper")
        assert (configuration.steps, configuration.pixels, configuration.seed) == (7, base.pixels, base.seed)
    assert ablation.enlarged(tissue).shape == tissue.shape
    figures = ablation.measured(torch.nn.Identity(), tissue, "tissue")
    noisy = {"10": 28.2, "25": 20.4, "50": 15.0}
    assert figures == pytest.approx(noisy, abs=0.7)


@pytest.mark.training
@pytest.mark.shared
def test_one_variant_is_trained_and_measured(shared, tmp_path):
    found = ablation.compare({"small": (small(2), False)}, tmp_path, shared, images=2)
    (row,) = found["rows"]
    assert (row["steps"], row["variant"]) == (2, "small")
    assert row["mpix_per_second"] > 0
    assert set(row["psnr"]) == set(row[ablation.ENLARGED]) == {"10", "25", "50"}
    (tmp_path / "capacity.json").write_text(json.dumps(found))
    told = report._experiment(tmp_path, "capacity")
    assert "MPix/s" in told
    assert f"| small | {row['parameters']:,} | " in told


@pytest.mark.training
@pytest.mark.shared
def test_networks_of_others_are_trained_and_stand_in_the_table(shared, tmp_path):
    tiny = dataclasses.replace(small(2), pixels=4)
    wanted = {name: (dataclasses.replace(tiny, architecture=name), True) for name in comparators.NETWORKS}
    found = ablation.compare(wanted, tmp_path, shared, images=1)
    assert [row["variant"] for row in found["rows"]] == list(comparators.NETWORKS)
    assert not any("mpix_per_second" in row for row in found["rows"])
    noisy = np.random.default_rng(1).integers(0, 256, (1, 96, 96, 3), np.uint8)
    for (name, method), row in zip(ablation.trained(tmp_path, wanted).items(), found["rows"], strict=True):
        assert f"{row['samples']:,} crops" in name
        assert not np.array_equal(method(noisy, 25.0), noisy)


@pytest.mark.training
def test_costs_are_those_that_are_known():
    assert costs.kmac(IRUNet(16)) == pytest.approx(20.8, abs=0.1)


def small(steps: int) -> Configuration:
    return Configuration(filters=2, steps=steps, pixels=8, bf16=False, device="cpu")


def test_baselines_that_are_not_there_are_left_out(tmp_path):
    assert baselines.anchors(tmp_path) == {}
    assert next(iter(leak.methods_of(tmp_path))) == "noisy input"
