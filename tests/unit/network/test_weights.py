"""Weights are what their card says, or they are not used."""

import dataclasses
import hashlib
import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from wsi_denoise.errors import NoSuchPreset, WeightsDamaged
from wsi_denoise.network import weights
from wsi_denoise.network.irunet import IRUNet


@pytest.fixture
def card() -> weights.ModelCard:
    return weights.ModelCard(
        name="tiny",
        purpose="For this test.",
        architecture="IRUNet",
        filters=4,
        residual=True,
        full_skip=True,
        parameters=0,
        protocol="fresh",
        trained_on=(weights.TrainedOn("nothing", "CC0-1.0", 0),),
        samples_seen=0,
        training={"seed": 1},
        measured=(weights.Measured("a source", 3, 2, "fresh", 25.0, 30.1, 29.0, 31.0, 0.9, 20.5, 0.4),),
        sha256="",
        licence="MIT",
        not_for_slides=False,
        created="2025-01-01",
    )


@pytest.fixture
def network() -> IRUNet:
    torch.manual_seed(3)
    network = IRUNet(4, residual=True, full_skip=True)
    torch.nn.init.normal_(network.tail.weight)
    return network.eval()


def test_saved_preset_loads_as_the_same_network(tmp_path, card, network):
    saved = weights.save(network.state_dict(), card, tmp_path)
    assert saved.parameters == sum(value.numel() for value in network.state_dict().values())
    assert weights.presets(tmp_path) == [saved]
    loaded = weights.load("tiny", tmp_path)
    assert not loaded.training
    x = torch.rand(1, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(loaded(x), network(x))


def test_card_survives_json(card):
    assert weights.ModelCard.from_json(json.loads(json.dumps(card.to_json()))) == card


def test_changed_weights_are_refused(tmp_path, card, network):
    weights.save(network.state_dict(), card, tmp_path)
    file = tmp_path / "tiny.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(WeightsDamaged):
        weights.load("tiny", tmp_path)


def test_missing_weights_are_refused(tmp_path, card, network):
    weights.save(network.state_dict(), card, tmp_path)
    (tmp_path / "tiny.safetensors").unlink()
    with pytest.raises(WeightsDamaged):
        weights.load("tiny", tmp_path)


def test_weights_of_another_architecture_are_refused(tmp_path, card, network):
    saved = weights.save(network.state_dict(), card, tmp_path)
    other = dataclasses.replace(saved, filters=8)
    (tmp_path / "tiny.json").write_text(json.dumps(other.to_json()))
    with pytest.raises(WeightsDamaged, match="IRUNet of 8"):
        weights.load("tiny", tmp_path)


def test_a_pickle_is_not_read_even_with_the_right_checksum(tmp_path, card, network):
    mark = tmp_path / "ran"

    class Trap:
        def __reduce__(self):
            return Path.touch, (mark,)

    saved = weights.save(network.state_dict(), card, tmp_path)
    data = pickle.dumps(Trap())
    (tmp_path / "tiny.safetensors").write_bytes(data)
    forged = dataclasses.replace(saved, sha256=hashlib.sha256(data).hexdigest())
    (tmp_path / "tiny.json").write_text(json.dumps(forged.to_json()))
    with pytest.raises(WeightsDamaged):
        weights.load("tiny", tmp_path)
    assert not mark.exists()


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"trained_on": [], "measured": [], "colour": 1}'])
def test_damaged_cards_are_refused(tmp_path, text):
    (tmp_path / "tiny.json").write_text(text)
    with pytest.raises(WeightsDamaged):
        weights.card("tiny", tmp_path)


@pytest.mark.parametrize("name", ["", "none", "../weights/paper", "/etc/passwd", "PAPER", "paper.json"])
def test_unknown_names_are_refused_and_lead_nowhere(name):
    with pytest.raises(NoSuchPreset):
        weights.card(name)


def test_cards_are_read_without_torch():
    code = (
        "import sys; from wsi_denoise.network import weights; assert weights.presets(); weights.card('paper');"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_paper_is_the_papers_size_and_says_what_it_was_trained_on():
    card = weights.card("paper")
    assert (card.filters, card.parameters, card.protocol, card.licence) == (16, 123_379, "fresh", "MIT")
    assert card.samples_seen > 0
    assert not card.not_for_slides
    assert all(source.licence for source in card.trained_on)
    assert not any("monuseg" in source.name or "test" in source.name for source in card.trained_on)


@pytest.mark.parametrize(("sigma", "gain"), [(10, 3.0), (25, 6.0), (50, 7.0)])
def test_paper_removes_fresh_noise_from_tissue_it_has_never_seen(tissue_image, sigma, gain):
    clean = tissue_image[:192, :192]
    rng = np.random.default_rng(4)
    noisy = np.rint(np.clip(clean + sigma * rng.standard_normal(clean.shape), 0, 255))
    network = weights.load("paper")
    with torch.inference_mode():
        y = network(torch.from_numpy(noisy).permute(2, 0, 1)[None].float() / 255.0)
    restored = (y[0].permute(1, 2, 0).numpy() * 255.0).round()
    before, after = (10 * np.log10(255.0**2 / np.mean((image - clean) ** 2.0)) for image in (noisy, restored))
    assert after - before > gain
