"""What the CPU is called, and when bfloat16 is chosen on it."""

import pytest

from training.run import machine
from wsi_denoise.network import denoiser, processor
from wsi_denoise.settings import ComputeSettings

CPUINFO = """processor\t: 0
vendor_id\t: {vendor}
model name\t: Some Chip: 7
flags\t\t: fpu avx512f avx512_bf16{more}

processor\t: 1
vendor_id\t: Other
model name\t: Other
flags\t\t: fpu
"""


def test_the_first_processor_is_read():
    found = processor.parsed(CPUINFO.format(vendor="GenuineIntel", more=" amx_bf16"))
    assert (found.name, found.vendor) == ("Some Chip: 7", "GenuineIntel")
    assert found.flags == {"fpu", "avx512f", "avx512_bf16", "amx_bf16"}
    assert processor.parsed("") == processor.Processor("", "", frozenset())


def test_this_machine_has_a_name():
    assert processor.here().name
    assert machine.described(1).startswith("1 of ")
    assert processor.here().name in machine.described(1)


@pytest.mark.parametrize(
    ("vendor", "more", "can", "chosen"),
    [
        ("GenuineIntel", " amx_bf16", True, "bf16"),
        ("GenuineIntel", "", True, "fp32"),
        ("AuthenticAMD", "", True, "bf16"),
        ("AuthenticAMD", "", False, "fp32"),
        ("", "", True, "bf16"),
    ],
)
def test_bf16_is_chosen_where_it_is_faster(vendor, more, can, chosen, monkeypatch):
    cpu = processor.parsed(CPUINFO.format(vendor=vendor, more=more))
    monkeypatch.setattr(processor, "here", lambda: cpu)
    monkeypatch.setattr(denoiser, "cpu_has_bf16", lambda _backend: can)
    compute = ComputeSettings(device="cpu")
    assert denoiser.choose(compute).precision == chosen
    assert denoiser.choose(compute.model_copy(update={"precision": "bf16"})).precision == "bf16"
