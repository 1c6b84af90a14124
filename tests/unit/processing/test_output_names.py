"""Names of outputs: never two slides with one name, never a name that a file system refuses."""

from pathlib import Path, PurePosixPath

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from wsi_denoise.processing.output_names import LONGEST, UNNAMED_PRESETS, output_path

FOLDER = Path("denoised")
FACTS = {
    "fingerprint": "f" * 64,
    "preset": "auto",
    "model_sha256": "0" * 64,
    "settings": {"output.compression": "jpeg"},
    "region": None,
}

letters = st.characters(blacklist_categories=("Cs",), blacklist_characters="/\0")
names = st.text(letters, min_size=1, max_size=255).filter(
    lambda name: name not in {".", ".."} and len(name.encode()) <= LONGEST
)
relatives = st.lists(names, min_size=1, max_size=3).map(lambda parts: Path(*parts))


def free(_path: Path) -> bool:
    return False


def taken(_path: Path) -> bool:
    return True


def test_the_source_s_suffix_is_kept():
    assert output_path(FOLDER, Path("a.svs"), FACTS, taken=free) == Path("denoised/a.svs.denoised.tiff")
    assert output_path(FOLDER, Path("a.ndpi"), FACTS, taken=free) == Path("denoised/a.ndpi.denoised.tiff")


def test_subfolders_are_kept():
    assert output_path(FOLDER, Path("lab/day 1/a.svs"), FACTS, taken=free) == FOLDER / "lab/day 1/a.svs.denoised.tiff"


def test_another_preset_is_named():
    found = output_path(FOLDER, Path("a.svs"), {**FACTS, "preset": "scanner"}, taken=free)
    assert found.name == "a.svs.scanner.denoised.tiff"


def test_a_trial_is_named_by_its_region():
    found = output_path(FOLDER, Path("a.svs"), {**FACTS, "region": [96, 0, 500, 400]}, taken=free)
    assert found.name == "a.svs.trial-96-0-500x400.tiff"
    other = output_path(FOLDER, Path("a.svs"), {**FACTS, "region": [96, 0, 500, 401]}, taken=free)
    assert other != found


def test_a_trial_with_other_settings_gets_another_name():
    trial = {**FACTS, "region": [96, 0, 500, 400]}
    first, second = (output_path(FOLDER, Path("a.svs"), {**trial, "settings": {"x": x}}, taken=taken) for x in (1, 2))
    assert first != second
    assert first.name.endswith(".trial-96-0-500x400.tiff")
    large = {**FACTS, "region": [123456, 234567, 345678, 456789]}
    assert len(output_path(FOLDER, Path("a" * 240 + ".svs"), large, taken=taken).name) <= 250


def test_a_taken_name_gets_digits_that_stay_the_same():
    plain = output_path(FOLDER, Path("a.svs"), FACTS, taken=free)
    first = output_path(FOLDER, Path("a.svs"), FACTS, taken=taken)
    assert first != plain
    assert first.parent == plain.parent
    assert first.name.startswith("a.svs.")
    assert first.name.endswith(".denoised.tiff")
    assert output_path(FOLDER, Path("a.svs"), dict(reversed(FACTS.items())), taken=taken) == first


@pytest.mark.parametrize("key", ["fingerprint", "model_sha256", "settings"])
def test_other_work_gets_other_digits(key):
    other = {**FACTS, key: {"output.compression": "deflate"} if key == "settings" else "1" * 64}
    assert output_path(FOLDER, Path("a.svs"), FACTS, taken=taken) != output_path(
        FOLDER, Path("a.svs"), other, taken=taken
    )


def test_only_the_plain_name_is_asked_for():
    asked: list[Path] = []
    output_path(FOLDER, Path("a.svs"), FACTS, taken=lambda path: bool(asked.append(path)))
    assert asked == [FOLDER / "a.svs.denoised.tiff"]


@given(relatives, relatives)
@settings(deadline=None, max_examples=300)
def test_two_slides_never_get_one_name(one, other):
    assume(one != other)
    for is_taken in (free, taken):
        assert output_path(FOLDER, one, FACTS, taken=is_taken) != output_path(FOLDER, other, FACTS, taken=is_taken)


@given(st.text(letters, min_size=200, max_size=230), st.text(letters, min_size=1, max_size=20))
@settings(deadline=None, max_examples=200)
def test_long_names_that_differ_only_in_front_stay_apart(tail, heads):
    one, other = Path(heads + tail), Path(heads[::-1] + "x" + tail)
    assume(one != other and one.name and other.name)
    assert output_path(FOLDER, one, FACTS, taken=free) != output_path(FOLDER, other, FACTS, taken=free)


@given(relatives, st.sampled_from([*sorted(UNNAMED_PRESETS), "scanner", "a-long-preset-name"]), st.booleans())
@settings(deadline=None, max_examples=300)
def test_every_name_fits_and_stays_under_the_folder(relative, preset, is_taken):
    for region in (None, [100_000, 100_000, 100_000, 100_000]):
        facts = {**FACTS, "preset": preset, "region": region}
        found = output_path(FOLDER, relative, facts, taken=taken if is_taken else free)
        assert len(found.name.encode()) <= LONGEST - len(".part")
        assert found.parent == FOLDER / relative.parent
        assert PurePosixPath(found).name.endswith(".tiff")


def test_the_end_of_a_long_name_and_its_suffix_stay():
    long = "Ä" * 120 + " 2026-11 block 7.svs"
    found = output_path(FOLDER, Path(long), FACTS, taken=free).name
    assert found.endswith(" 2026-11 block 7.svs.denoised.tiff")
    found.encode("utf-8")


def test_names_that_are_no_utf8_can_be_written(tmp_path):
    for raw in (b"caf\xe9.svs", b"\xe9" * 250 + b".svs"):
        relative = Path(raw.decode("utf-8", "surrogateescape"))
        found = output_path(tmp_path, relative, FACTS, taken=free)
        found.write_bytes(b"")
        assert found.is_file()
