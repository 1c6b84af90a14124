"""Name of the CPU, and whether bfloat16 is faster on it."""

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
    """A CPU as described by Linux.

    Parameters
    ----------
    name, vendor : str
        Empty if unknown.
    flags : frozenset of str
        Instruction sets, with the names of ``/proc/cpuinfo``.
    """

    name: str
    vendor: str
    flags: frozenset[str]


def parsed(cpuinfo: str) -> Processor:
    """Return the first processor of a text in the format of ``/proc/cpuinfo``."""
    known: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        known.setdefault(key.strip(), value.strip())
    return Processor(known.get("model name", ""), known.get("vendor_id", ""), frozenset(known.get("flags", "").split()))


@lru_cache
def here() -> Processor:
    """Return this machine's processor. On systems other than Linux only its name is known."""
    found = parsed(CPUINFO.read_text("utf-8")) if CPUINFO.is_file() else parsed("")
    return found if found.name else Processor(platform.processor() or platform.machine(), found.vendor, found.flags)


def gains_from_bf16(vendor: str, flags: Collection[str]) -> bool:
    """Return whether bfloat16 is faster than fp32 on a CPU that multiplies it in hardware.

    On Intel's CPUs only the matrix units (AMX) are fast. Without them, for example in a virtual machine that hides
    them, the AVX-512 instruction is used, which is slower than fp32. Measured with OpenVINO and one thread on a Xeon
    with ``avx512_bf16`` and without ``amx_bf16``: 1.8 instead of 2.5 megapixels per second. On AMD's Zen 4 that
    instruction is twice as fast as fp32.
    """
    return vendor != INTEL or "amx_bf16" in flags
