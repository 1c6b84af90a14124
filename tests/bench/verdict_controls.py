"""Measure how often the verdict is right, on controls with a known answer made from real tissue.

    python tests/bench/verdict_controls.py                # the reported sources, the shipped network
    python tests/bench/verdict_controls.py --set choosing # the sources that the thresholds were chosen on

Kinds: ``denoised`` (fresh noise, denoised) must pass; ``clean`` must be not_needed; ``blurred``, ``pasted``,
``erased``, ``colour``, ``patch`` and ``swapped`` (a denoised image, damaged) and ``untouched`` (noise left in) must be
sent to review for the right reason. Prints a Markdown table with Wilson's 95 % intervals; ``--save`` keeps the metrics
of every control as JSON lines.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsi_denoise.quality import evidence, structure, verdict

Pixels = NDArray[np.uint8]
Denoise = Callable[[Pixels, Pixels], Pixels]

PATCH = 96
EXPECTED: dict[str, tuple[str, tuple[str, ...]]] = {
    "denoised": ("pass", ()),
    "clean": ("not_needed", ()),
    "blurred": ("review", ("blurred",)),
    "pasted": ("review", ("structure_added",)),
    "erased": ("review", ("structure_removed",)),
    "colour": ("review", ("colour_shifted",)),
    "patch": ("review", ("colour_shifted",)),
    "swapped": ("review", ("misplaced", "seam")),
    "untouched": ("review", ("noise_left",)),
}
"""Kind of control to its verdict and the reasons of which one must be given."""

SOURCES = {
    "choosing": ("CMU-1-Small-Region.svs", "generic-CropBreastSlide.tiff", "tiatoolbox"),
    "reported": ("monuseg",),
}
"""Thresholds are chosen on the first and error rates reported on the second, which no network is trained on."""


@dataclass(frozen=True)
class Control:
    """One control: what the evidence is measured on. Images are (height, width, 3) uint8.

    Parameters
    ----------
    kind, source : str
    before, after : ndarray
    note : str
        What was done to it.
    """

    kind: str
    source: str
    before: Pixels
    after: Pixels
    note: str


def shared_folder() -> Path:
    return Path(os.environ.get("WSI_DENOISE_SHARED", Path(__file__).parents[3] / "shared"))


def load_images(which: str, shared: Path) -> list[tuple[str, Pixels]]:
    """Return (source, image) of every image of a set that is there."""
    found: list[tuple[str, Pixels]] = []
    for name in SOURCES[which]:
        if name == "tiatoolbox":
            spec = find_spec("tiatoolbox")
            assert spec is not None
            assert spec.origin is not None
            found.append((name, _read(Path(spec.origin).parent / "data" / "target_image.png")))
        elif name == "monuseg":
            files = sorted((shared / "data" / "patches" / "monuseg" / "test").glob("*.webp"))
            found += [(name, _read(file)) for file in files]
        elif (file := shared / "data" / "slides" / name).exists():
            found.append((name, _read(file)))
    return found


def _read(file: Path) -> Pixels:
    if file.suffix in {".png", ".webp"}:
        with Image.open(file) as image:
            return np.asarray(image.convert("RGB"))
    if file.name.endswith(".ome.tif"):
        import tifffile  # noqa: PLC0415 - only here

        pixels = np.asarray(tifffile.imread(file))
        return np.ascontiguousarray(pixels if pixels.shape[-1] == 3 else np.moveaxis(pixels, 0, -1))
    import openslide  # noqa: PLC0415 - only here

    with openslide.OpenSlide(file) as slide:
        return np.asarray(slide.read_region((0, 0), 0, slide.dimensions).convert("RGB"))


def tissue_of(image: Pixels) -> NDArray[np.bool_]:
    """Say which 96-px patches have tissue: (rows, cols) bool, at least 5 % of their pixels darker than glass."""
    dark = (image.mean(axis=2) < 220).astype(np.float32)
    rows, cols = structure.patch_grid(*image.shape[:2])
    mask = np.zeros((rows, cols), np.bool_)
    for row in range(rows):
        for col in range(cols):
            mask[row, col] = dark[row * PATCH : (row + 1) * PATCH, col * PATCH : (col + 1) * PATCH].mean() > 0.05
    return mask


def add_noise(clean: Pixels, sigma: float, rng: np.random.Generator) -> Pixels:
    """Fresh noise, clipped and rounded as a camera would."""
    noisy = clean + rng.normal(0.0, sigma, clean.shape)
    return np.rint(np.clip(noisy, 0, 255)).astype(np.uint8)


def nuclei_of(image: Pixels) -> list[tuple[slice, slice, NDArray[np.float32]]]:
    """Find dark blue blobs of 60 to 1500 px: their box and a soft mask (height, width) float32 in it."""
    smooth = cv2.GaussianBlur(image, (0, 0), 1.5).astype(np.float32)
    haematoxylin = structure.stain_density(smooth)[..., 0]
    level = np.quantile(haematoxylin, 0.85)
    if level < 0.15:
        return []
    count, labels, stats, _ = cv2.connectedComponentsWithStats((haematoxylin > level).astype(np.uint8))
    found = []
    for label in range(1, count):
        left, top, width, height, area = (int(value) for value in stats[label])
        margin = 5
        y, x = top - margin, left - margin
        inside = (
            y >= 0 and x >= 0 and y + height + 2 * margin <= image.shape[0] and x + width + 2 * margin <= image.shape[1]
        )
        if not (60 <= area <= 1500 and inside and max(width, height) < 70):
            continue
        box = (slice(y, y + height + 2 * margin), slice(x, x + width + 2 * margin))
        blob = cv2.dilate((labels[box] == label).astype(np.uint8), np.ones((5, 5), np.uint8))
        found.append((*box, cv2.GaussianBlur(blob.astype(np.float32), (0, 0), 1.0)))
    return found


def _pale_places(image: Pixels) -> NDArray[np.int64]:
    """Give (y, x) of tissue without nuclei: haematoxylin low over 24 px, not glass."""
    wide = cv2.blur(image, (25, 25)).astype(np.float32)
    haematoxylin = structure.stain_density(wide)[..., 0]
    grey = wide.mean(axis=2)
    places = (haematoxylin < np.quantile(haematoxylin, 0.35)) & (grey < 235)
    return np.argwhere(places)


def paste_nuclei(image: Pixels, tissue: NDArray[np.bool_], rng: np.random.Generator) -> tuple[Pixels, int]:
    """Copy 2 to 8 of the image's own nuclei to places that have none."""
    nuclei, places = nuclei_of(image), _pale_places(image)
    result, done, wanted = image.copy(), 0, int(rng.integers(2, 9))
    for _ in range(200):
        if done == wanted or not nuclei or not len(places):
            break
        ys, xs, mask = nuclei[int(rng.integers(len(nuclei)))]
        y, x = (int(value) for value in places[int(rng.integers(len(places)))] - np.array(mask.shape) // 2)
        height, width = mask.shape
        if y < 0 or x < 0 or y + height > image.shape[0] or x + width > image.shape[1]:
            continue
        if not tissue[y // PATCH, x // PATCH] or not tissue[(y + height - 1) // PATCH, (x + width - 1) // PATCH]:
            continue
        there, source = result[y : y + height, x : x + width], image[ys, xs]
        if float(((there.mean(axis=2) - source.mean(axis=2)) * (mask > 0.5)).sum() / (mask > 0.5).sum()) < 25:
            continue  # the place is as dark as the nucleus
        result[y : y + height, x : x + width] = np.rint(there * (1 - mask[..., None]) + source * mask[..., None])
        done += 1
    return result, done


def erase_nuclei(image: Pixels, tissue: NDArray[np.bool_], rng: np.random.Generator) -> tuple[Pixels, int]:
    """Replace 2 to 8 nuclei by what is around them."""
    nuclei = nuclei_of(image)
    rng.shuffle(nuclei)  # type: ignore[arg-type]
    result, done, wanted = image.copy(), 0, int(rng.integers(2, 9))
    for ys, xs, mask in nuclei:
        if done == wanted:
            break
        if (
            not tissue[ys.start // PATCH, xs.start // PATCH]
            or not tissue[(ys.stop - 1) // PATCH, (xs.stop - 1) // PATCH]
        ):
            continue
        hole = cv2.dilate((mask > 0.3).astype(np.uint8), np.ones((3, 3), np.uint8))
        filled = cv2.inpaint(np.ascontiguousarray(result[ys, xs]), hole, 3, cv2.INPAINT_TELEA)
        change = (filled.astype(np.float32) - result[ys, xs]).mean(axis=2)
        if float(change[mask > 0.5].mean()) < 25:
            continue  # the surroundings are as dark: nothing would be gone
        result[ys, xs] = filled
        done += 1
    return result, done


def shift_colour(image: Pixels, rng: np.random.Generator) -> tuple[Pixels, str]:
    """Move a channel by 6 to 15 grey levels, or change the density of all stain by 12 to 25 %."""
    sign = 1 if rng.random() < 0.5 else -1
    if rng.random() < 0.5:
        channel, step = int(rng.integers(3)), sign * rng.uniform(6, 15)
        moved = image.astype(np.float32)
        moved[..., channel] += step
        return np.rint(np.clip(moved, 0, 255)).astype(np.uint8), f"channel {channel} {step:+.1f}"
    factor = 1 + sign * rng.uniform(0.12, 0.25)
    moved = 256.0 * ((image.astype(np.float32) + 1) / 256.0) ** factor - 1
    return np.rint(np.clip(moved, 0, 255)).astype(np.uint8), f"density x {factor:.2f}"


def swap_block(image: Pixels, tissue: NDArray[np.bool_], rng: np.random.Generator) -> Pixels:
    """Put another block of the image, of 288 px, in the place of one, both with tissue."""
    side = 288
    spots = [
        (y, x)
        for y in range(0, image.shape[0] - side + 1, PATCH)
        for x in range(0, image.shape[1] - side + 1, PATCH)
        if tissue[y // PATCH : y // PATCH + 3, x // PATCH : x // PATCH + 3].mean() > 0.7
    ]
    result = image.copy()
    order = rng.permutation(len(spots))
    y, x = spots[order[0]]
    far = [spots[index] for index in order[1:] if max(abs(spots[index][0] - y), abs(spots[index][1] - x)) >= PATCH]
    v, u = far[0]
    result[y : y + side, x : x + side] = image[v : v + side, u : u + side]
    return result


def move_patch(image: Pixels, tissue: NDArray[np.bool_], rng: np.random.Generator) -> tuple[Pixels, str]:
    """Move one channel of one patch with tissue by 16 to 40 levels, towards the middle."""
    rows, columns = np.nonzero(tissue[: image.shape[0] // PATCH, : image.shape[1] // PATCH])
    chosen, channel = int(rng.integers(len(rows))), int(rng.integers(3))
    y, x, change = rows[chosen] * PATCH, columns[chosen] * PATCH, float(rng.uniform(16, 40))
    result = image.copy()
    part = result[y : y + PATCH, x : x + PATCH, channel]
    change = -change if part.mean() > 128 else change
    part[...] = np.clip(np.rint(part + change), 0, 255)
    return result, f"channel {channel} by {change:.0f}"


def crops(images: list[tuple[str, Pixels]], rng: np.random.Generator) -> Iterator[tuple[str, Pixels]]:
    """Draw crops of 480 to 576 px with tissue on half of their patches, turned and mirrored, without end.

    Sources take turns, so that one large slide does not outweigh the others.
    """
    names = sorted({name for name, _ in images})
    while True:
        for name in names:
            mine = [image for source, image in images if source == name]
            image = mine[int(rng.integers(len(mine)))]
            side = min(576, min(image.shape[:2]) // PATCH * PATCH)
            for attempt in range(50):
                y, x = (int(rng.integers(length - side + 1)) for length in image.shape[:2])
                crop = np.rot90(image[y : y + side, x : x + side], int(rng.integers(4)))
                crop = np.ascontiguousarray(crop[:, ::-1] if rng.random() < 0.5 else crop)
                # At a low magnification there are no nuclei to be found: such a crop makes the other controls.
                if tissue_of(crop).mean() >= 0.5 and (attempt > 9 or len(nuclei_of(crop)) >= 5):
                    yield name, crop
                    break


def controls(images: list[tuple[str, Pixels]], count: int, denoise: Denoise, seed: int) -> Iterator[Control]:
    """Make `count` controls of every kind."""
    rng = np.random.default_rng(seed)
    source_of = crops(images, rng)
    for _ in range(count):
        name, clean = next(source_of)
        tissue = tissue_of(clean)
        yield Control("clean", name, clean, denoise(clean, clean), "")
        sigma = float(rng.uniform(6, 40))
        noisy = add_noise(clean, sigma, rng)
        good = denoise(noisy, clean)
        said = f"sigma {sigma:.1f}"
        yield Control("denoised", name, noisy, good, said)
        width = float(rng.uniform(1.2, 3.0))
        yield Control("blurred", name, noisy, cv2.GaussianBlur(good, (0, 0), width), f"{said}, blur {width:.2f}")
        pasted, number = paste_nuclei(good, tissue, rng)
        if number:
            yield Control("pasted", name, noisy, pasted, f"{said}, {number} nuclei")
        erased, number = erase_nuclei(good, tissue, rng)
        if number:
            yield Control("erased", name, noisy, erased, f"{said}, {number} nuclei")
        shifted, how = shift_colour(good, rng)
        yield Control("colour", name, noisy, shifted, f"{said}, {how}")
        moved, how = move_patch(good, tissue, rng)
        yield Control("patch", name, noisy, moved, f"{said}, {how}")
        yield Control("swapped", name, noisy, swap_block(good, tissue, rng), said)
        yield Control("untouched", name, noisy, noisy, said)


def measured(control: Control) -> dict[str, float | None]:
    """Measure a control as the pipeline measures a slide: as blocks of 288 px that are added up."""
    before, after = control.before, control.after
    tissue = tissue_of(before if control.kind == "clean" else after)
    parts, strips = [], {}
    side = 288
    for y in range(0, before.shape[0], side):
        for x in range(0, before.shape[1], side):
            box = (slice(y, y + side), slice(x, x + side))
            mask = tissue[y // PATCH : y // PATCH + 3, x // PATCH : x // PATCH + 3]
            parts.append(evidence.measure(before[box], after[box], mask, origin=(x, y)))
            strips[x // side, y // side] = structure.edges(before[box], after[box])
    return evidence.Evidence.merge(parts).with_seam(structure.seam_lines(strips)).summary()


def right(kind: str, judgement: verdict.Judgement) -> tuple[bool, bool, bool]:
    """Say whether the verdict is right, whether it also has the right reason, and whether it has no other reason."""
    expected, codes = EXPECTED[kind]
    given = {reason.split(":")[0] for reason in judgement.reasons}
    same = judgement.verdict == expected
    named = same and (not codes or bool(given & set(codes)))
    return same, named, named and (not codes or given <= set(codes))


def wilson(errors: int, count: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of an error rate."""
    z, share = 1.959964, errors / count
    centre = share + z * z / (2 * count)
    spread = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, (centre - spread) / (1 + z * z / count)), min(1.0, (centre + spread) / (1 + z * z / count))


def network(preset: str) -> Denoise:
    """Return the shipped network as a function of the noisy image (the clean one is not used)."""
    import torch  # noqa: PLC0415 - heavy

    from wsi_denoise.network import weights  # noqa: PLC0415 - heavy

    torch.set_num_threads(1)
    model = weights.load(preset)

    def denoise(noisy: Pixels, _clean: Pixels) -> Pixels:
        tensor = torch.from_numpy(noisy.copy()).permute(2, 0, 1)[None].float() / 255
        with torch.inference_mode():
            result = model(tensor.contiguous(memory_format=torch.channels_last))[0]
        return np.asarray((result.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy())

    return denoise


def stand_in(noisy: Pixels, clean: Pixels) -> Pixels:
    """Act as a good denoiser would, knowing the answer; for checking this program without weights."""
    rest = cv2.GaussianBlur(noisy, (0, 0), 1.5).astype(np.float32)
    return np.rint(0.85 * clean + 0.15 * rest).astype(np.uint8)


def report(results: list[tuple[str, bool, bool, bool]]) -> str:
    """Return the table of error rates, Markdown."""
    lines = [
        "| control | expected | n | wrong verdict | 95 % interval | or reason | 95 % interval | another reason too |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for kind, (expected, codes) in EXPECTED.items():
        mine = [result for result in results if result[0] == kind]
        if not mine:
            continue
        cells = []
        for column in (1, 2):
            errors = sum(not result[column] for result in mine)
            low, high = wilson(errors, len(mine))
            cells += [f"{errors / len(mine):.1%}", f"{low:.1%} to {high:.1%}"]
        cells.append(f"{sum(named and not alone for _, _, named, alone in mine) / len(mine):.1%}")
        said = expected + (f" ({' or '.join(codes)})" if codes else "")
        lines.append(f"| {kind} | {said} | {len(mine)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", choices=tuple(SOURCES), default="reported")
    parser.add_argument(
        "--count", type=int, default=300, help="crops; each gives a control of every kind it has nuclei for"
    )
    parser.add_argument("--denoiser", default="paper", help="a preset, or stand-in")
    parser.add_argument("--seed", type=int, help="by default 1 for choosing, 3 for reported")
    parser.add_argument("--write", action="store_true", help="put the table into docs/evidence/verdict.md")
    parser.add_argument("--save", type=Path, help="metrics of every control, JSON lines")
    options = parser.parse_args(arguments)
    cv2.setNumThreads(1)
    images = load_images(options.set, shared_folder())
    if not images:
        print(f"no images: {shared_folder()} is not there", file=sys.stderr)
        return 1
    seed = options.seed if options.seed is not None else {"choosing": 1, "reported": 3}[options.set]
    denoise = stand_in if options.denoiser == "stand-in" else network(options.denoiser)
    started, results, kept = time.process_time(), [], []
    for control in controls(images, options.count, denoise, seed):
        metrics = measured(control)
        judgement = verdict.judge(metrics)
        results.append((control.kind, *right(control.kind, judgement)))
        row: dict[str, Any] = {"kind": control.kind, "source": control.source, "note": control.note}
        kept.append(json.dumps({**row, "verdict": judgement.verdict, "reasons": judgement.reasons, "metrics": metrics}))
    if options.save:
        options.save.write_text("\n".join(kept) + "\n", "utf-8")
    text = (
        f"Sources: {', '.join(SOURCES[options.set])}. Denoiser: {described(options.denoiser)}. Seed {seed}; "
        f"{time.process_time() - started:.0f} s of processor time.\n\n{report(results)}"
    )
    print(text)
    if options.write:
        write_table(Path(__file__).parents[2] / "docs" / "evidence" / "verdict.md", options.denoiser, text)
    return 0


def described(denoiser: str) -> str:
    """Name the denoiser which distinguishes a table from those of other weights."""
    if denoiser == "stand-in":
        return "stand-in that knows the answer"
    from wsi_denoise.network import weights  # noqa: PLC0415 - only here

    card = weights.card(denoiser)
    return f"preset {card.name}, weights {card.sha256[:12]} ({card.samples_seen:,} crops seen)"


def write_table(file: Path, denoiser: str, text: str) -> None:
    """Replace what stands between a denoiser's two marks in a Markdown file."""
    mark = f"<!-- table {denoiser} -->\n"
    head, _, rest = file.read_text("utf-8").partition(mark)
    _, end, tail = rest.partition("<!-- /table -->")
    assert end, f"{file} has no marks for the table of {denoiser}"
    file.write_text(f"{head}{mark}{text}\n{end}{tail}", "utf-8")


if __name__ == "__main__":
    sys.exit(main())
