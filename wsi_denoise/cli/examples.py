"""Examples in the output of ``wsi-denoise COMMAND --help``. A test parses each of them."""

from __future__ import annotations

#: Examples by command.
EXAMPLES: dict[str, tuple[str, ...]] = {
    "up": ("wsi-denoise up", "wsi-denoise up /mnt/scanner --output /data/denoised --port 9000"),
    "watch": ("wsi-denoise watch /mnt/scanner --output /data/denoised --set output.compression=deflate",),
    "run": ("wsi-denoise run a.svs b.ndpi --output out", "wsi-denoise run a.svs --region 20000,15000,2000,2000"),
    "dashboard": ("wsi-denoise dashboard --port 9000",),
    "jobs": ("wsi-denoise jobs --since 7d --verdict review", "wsi-denoise jobs --state failed,quarantined --json"),
    "job": ("wsi-denoise job 12",),
    "retry": ("wsi-denoise retry 12",),
    "cancel": ("wsi-denoise cancel 12",),
    "priority": ("wsi-denoise priority 12 100",),
    "pause": ('wsi-denoise pause "scanner service until noon"',),
    "resume": ("wsi-denoise resume",),
    "models": ("wsi-denoise models", "wsi-denoise models paper"),
    "bench": ("wsi-denoise bench", "wsi-denoise bench a.svs --preset fine"),
    "doctor": ("wsi-denoise doctor", "wsi-denoise doctor --config /etc/wsi-denoise.toml"),
    "confirm": ("wsi-denoise confirm", "wsi-denoise confirm /mnt/nas/denoised"),
    "sample": ("wsi-denoise sample inbox",),
    "verify": ("wsi-denoise verify denoised/a.svs.denoised.tiff",),
    "config": ("wsi-denoise config --config /etc/wsi-denoise.toml",),
    "db upgrade": ("wsi-denoise db upgrade",),
    "db check": ("wsi-denoise db check",),
    "db backup": ("wsi-denoise db backup /backup/jobs.sqlite",),
    "db tidy": ("wsi-denoise db tidy --dry-run",),
}


def epilog(command: str) -> str:
    r"""Return a command's examples for its help. ``\b`` prevents click from wrapping them into one paragraph."""
    lines = EXAMPLES[command]
    return "\n".join(["\b", "Examples:" if len(lines) > 1 else "Example:", *(f"  {line}" for line in lines)])
