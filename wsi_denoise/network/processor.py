"""What the CPU is called, and whether bfloat16 makes it faster."""

from __future__ import annotations

import platform
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
INTEL = "GenuineIntel"


@dataclass(frozen=True)
class Processor:
    """A CPU as Linux describes it.

    Parameters
    ----------
    name, vendor : str
        Empty where nothing says so.
    flags : frozenset of str
        Instruction sets, by the names of ``/proc/cpuinfo``.
    """

    name: str
    vendor: str
    flags: frozenset[str]


def parsed(cpuinfo: str) -> Processor:
    """Return the first processor of a text as ``/proc/cpuinfo`` has it."""
    known: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        known.setdefault(key.strip(), value.strip())
    return Processor(known.get("model name", ""), known.get("vendor_id", ""), frozenset(known.get("flags", "").split()))


@lru_cache
def here() -> Processor:
    """Return this machine's processor; elsewhere than on Linux only its name is known."""
    found = parsed(CPUINFO.read_text("utf-8")) if CPUINFO.is_file() else parsed("")
    return found if found.name else Processor(platform.processor() or platform.machine(), found.vendor, found.flags)


def gains_from_bf16(vendor: str, flags: Collection[str]) -> bool:
    """Whether bfloat16 is faster than fp32 on a CPU that can multiply it at all.

    Intel's cores are fast at it in their matrix units (AMX) alone. Where those are missing, or a virtual machine hides
    them, AVX-512's own instruction for it remains, which is slower than fp32: measured on a Xeon with ``avx512_bf16``
    and without ``amx_bf16``, OpenVINO, one thread, 1.8 instead of 2.5 megapixels a second. On AMD's Zen 4 that
    instruction is twice as fast as fp32.
    """
    return vendor != INTEL or "amx_bf16" in flags
