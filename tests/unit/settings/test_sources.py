"""Settings: later wins, each value knows where it came from, a typo is refused, and what changes pixels is known."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from wsi_denoise.errors import SettingsInvalid
from wsi_denoise.settings import FILE_NAME, Settings, load, table

PIXEL_VALUES = {
    "output.compression": "deflate",
    "output.quality": 71,
    "output.subsampling": "4:2:0",
    "tissue.mode": "all",
    "tissue.background": "flatten",
    "tissue.dilate": 5,
    "compute.halo": 112,
}


OTHER_VALUES = {
    "output.mode": "0640",
    "compute.quiet_hours": "08:00-18:00",
    "compute.scheduler": "tcp://host:8786",
    "jobs.lease_seconds": 20.0,
    "jobs.database": "postgresql://host/jobs",
    "limits.worker_memory": "4GiB",
    "notify.url": "https://host/hook",
}
"""Where any text will not do."""


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path


def written(folder: Path, text: str) -> Path:
    file = folder / FILE_NAME
    file.write_text(text, "utf-8")
    return file


def test_defaults_without_anything(folder):
    loaded = load(folder=folder, environ={})
    assert loaded.settings.output.compression == "jpeg"
    assert set(loaded.origins.values()) == {"default"}


def test_each_source_wins_over_the_one_before(folder):
    name = "output.quality"
    assert load(folder=folder, environ={}).settings.output.quality == 95
    file = written(folder, "[output]\nquality = 60\ncompression = 'zstd'\n")
    environ = {"WSI_DENOISE_OUTPUT__QUALITY": "70"}
    for quality, variables, flags, origin in (
        (60, {}, {}, str(file)),
        (70, environ, {}, "WSI_DENOISE_OUTPUT__QUALITY"),
        (80, environ, {name: "80"}, "flag"),
        (80, {}, {name: 80}, "flag"),
    ):
        loaded = load(overrides=flags, folder=folder, environ=variables)
        assert loaded.settings.output.quality == quality
        assert loaded.origins[name] == origin
        # One key of a section leaves the others to the source that has them.
        assert loaded.settings.output.compression == "zstd"
        assert loaded.origins["output.compression"] == str(file)
        assert loaded.origins["output.folder"] == "default"


def test_every_setting_has_an_origin_and_a_description(folder):
    names = [name for name, _, _ in table()]
    assert set(load(folder=folder, environ={}).origins) == set(names)
    assert len(names) == len(set(names))
    assert [name for name, _, description in table() if not description.strip()] == []


@pytest.mark.parametrize(
    ("text", "environ", "flags", "named"),
    [
        ("[output]\nqualty = 60\n", {}, {}, "output.qualty"),
        ("[outptu]\nquality = 60\n", {}, {}, "outptu"),
        ("nonsense = 1\n", {}, {}, "nonsense"),
        ("output = 3\n", {}, {}, "output"),
        ("", {"WSI_DENOISE_OUTPUT__QUALTY": "60"}, {}, "WSI_DENOISE_OUTPUT__QUALTY"),
        ("", {"WSI_DENOISE_OUTPTU__QUALITY": "60"}, {}, "WSI_DENOISE_OUTPTU__QUALITY"),
        ("", {}, {"output.qualty": "60"}, "output.qualty"),
        ("", {}, {"quality": "60"}, "section.key"),
        ("", {}, {"output.": "60"}, "section.key"),
        ("[output]\nquality = 49\n", {}, {}, "output.quality"),
        ("[output]\nquality = 'good'\n", {}, {}, "output.quality"),
        ("[compute]\nhalo = 50\n", {}, {}, "compute.halo"),
        ("[jobs]\nlease_seconds = inf\n", {}, {}, "jobs.lease_seconds"),
        ("", {}, {"jobs.lease_seconds": "1e300"}, "jobs.lease_seconds"),
        ("", {}, {"output.compression": "webp"}, "flag"),
        ("[[folders]]\npath = 'a'\npreset = 'b'\nprset = 'c'\n", {}, {}, "folders"),
        ("[output\n", {}, {}, FILE_NAME),
    ],
)
def test_what_is_wrong_is_refused_and_named(folder, text, environ, flags, named):
    if text:
        written(folder, text)
    with pytest.raises(SettingsInvalid) as caught:
        load(overrides=flags, folder=folder, environ=environ)
    assert named in str(caught.value)


@pytest.mark.parametrize("token", ["lång", "Ключ", "two\nlines", "\x7f", "\udcff"])
def test_a_token_that_no_browser_sends_back_is_refused_without_being_shown(folder, token):
    with pytest.raises(SettingsInvalid, match=r"dashboard\.token: .*printable ASCII") as caught:
        load(overrides={"dashboard.token": token}, folder=folder, environ={})
    assert token not in str(caught.value)
    assert load(overrides={"dashboard.token": "a b&c~"}, folder=folder, environ={}).settings.dashboard.token == "a b&c~"


def test_a_section_that_is_no_table_is_refused_whatever_the_flags_say(folder):
    written(folder, "output = 3\n")
    with pytest.raises(SettingsInvalid, match="output"):
        load(overrides={"output.quality": "80"}, folder=folder, environ={})


def test_a_file_that_was_asked_for_must_be_there(folder):
    with pytest.raises(SettingsInvalid, match="cannot be read"):
        load(folder / "missing.toml", environ={})
    binary = folder / "binary.toml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsInvalid, match="cannot be read"):
        load(binary, environ={})


def test_other_variables_of_ours_are_no_settings(folder):
    load(folder=folder, environ={"WSI_DENOISE_SHARED": "/data", "PATH": "/bin", "OTHER__OUTPUT": "1"})


def test_lists_come_from_variables_as_json(folder):
    loaded = load(folder=folder, environ={"WSI_DENOISE_INTAKE__INBOX": '["a", "/b"]'})
    assert loaded.settings.intake.inbox == [folder / "a", Path("/b")]


def test_folders_come_from_a_variable_as_json(folder):
    environ = {"WSI_DENOISE_FOLDERS": '[{"path": "b", "preset": "scanner"}]'}
    loaded = load(folder=folder, environ=environ)
    assert loaded.settings.preset_for(Path("b/a.svs")) == "scanner"
    assert loaded.origins["folders"] == "WSI_DENOISE_FOLDERS"
    with pytest.raises(SettingsInvalid, match="WSI_DENOISE_FOLDERS"):
        load(folder=folder, environ={"WSI_DENOISE_FOLDERS": "b=scanner"})


def test_a_variable_that_is_no_json_where_a_list_is_wanted_is_named(folder):
    with pytest.raises(SettingsInvalid, match="WSI_DENOISE_INTAKE__INBOX"):
        load(folder=folder, environ={"WSI_DENOISE_INTAKE__INBOX": "[a"})


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("output.quality", "80", 80),
        ("output.overwrite", "true", True),
        ("notify.url", "http://host/hook?a=1", "http://host/hook?a=1"),
        ("intake.ignore", '["*.bak"]', ["*.bak"]),
        # Text that looks like a number is still text where text is wanted; 0 is what docs say for "none".
        ("limits.worker_memory", "0", "0"),
        ("dashboard.token", "123456", "123456"),
        ("dashboard.token", "1_000", "1_000"),
        ("dashboard.token", '"quoted"', "quoted"),
        ("output.folder", "/2026", Path("/2026")),
    ],
)
def test_flags_are_read_as_values_or_else_as_text(folder, name, text, value):
    settings = load(overrides={name: text}, folder=folder, environ={}).settings
    section, key = name.split(".")
    assert getattr(getattr(settings, section), key) == value


def test_a_folder_may_be_named_by_a_number(folder):
    assert (
        load(overrides={"output.folder": "2026"}, folder=folder, environ={}).settings.output.folder == folder / "2026"
    )


def test_a_file_may_write_text_of_digits_without_quotes(folder):
    written(folder, "[limits]\nworker_memory = 0\n[dashboard]\ntoken = 123456\n")
    settings = load(folder=folder, environ={}).settings
    assert (settings.limits.worker_memory, settings.dashboard.token) == ("0", "123456")


def test_relative_paths_are_meant_from_the_settings_file(folder):
    file = written(folder, "[output]\nfolder = 'out'\n[jobs]\nstate = '/state'\n")
    settings = load(file, environ={}).settings
    assert settings.output.folder == folder / "out"
    assert settings.jobs.state == Path("/state")
    assert settings.intake.inbox == [folder / "inbox"]
    assert settings.intake.quarantine == folder / "quarantine"
    assert settings.database_url == "sqlite:////state/jobs.sqlite"


def test_two_folders_never_share_a_database(folder):
    one, other = (load(folder=folder / name, environ={}).settings for name in "ab")
    assert one.database_url != other.database_url


def test_the_deepest_folder_gives_the_preset(folder):
    written(
        folder,
        "[model]\npreset = 'paper'\n[[folders]]\npath = 'a'\npreset = 'scanner'\n"
        "[[folders]]\npath = 'a/b'\npreset = 'large'\n",
    )
    settings = load(folder=folder, environ={}).settings
    for relative, preset in (("x.svs", "paper"), ("a/x.svs", "scanner"), ("a/b/c/x.svs", "large"), ("ab/x", "paper")):
        assert settings.preset_for(Path(relative)) == preset


def test_settings_do_not_change_after_loading(folder):
    settings = load(folder=folder, environ={}).settings
    with pytest.raises(ValueError, match="frozen"):
        settings.output.quality = 50


@pytest.mark.parametrize(("name", "value"), PIXEL_VALUES.items())
def test_the_hash_changes_with_what_changes_pixels(name, value):
    assert Settings().with_values({name: value}).pixel_hash() != Settings().pixel_hash()


def test_the_hash_changes_with_nothing_else():
    plain = Settings()
    assert set(plain.pixel_settings()) == set(PIXEL_VALUES)
    samples = {bool: True, int: 3, float: 7.5, str: "error", Path: "elsewhere"}
    tried = 0
    for section, field in Settings.model_fields.items():
        for key, inner in getattr(field.annotation, "model_fields", {}).items():
            name = f"{section}.{key}"
            if name in PIXEL_VALUES or inner.annotation not in samples:
                continue
            value = OTHER_VALUES.get(name, samples[inner.annotation])
            if value is True and inner.default is True:
                value = False
            changed = plain.with_values({name: value})
            assert changed != plain, name
            assert changed.pixel_hash() == plain.pixel_hash(), name
            tried += 1
    assert tried > 25


@given(
    st.fixed_dictionaries(
        {
            "output.compression": st.sampled_from(["jpeg", "deflate", "zstd"]),
            "output.quality": st.integers(50, 100),
            "output.subsampling": st.sampled_from(["4:4:4", "4:2:2", "4:2:0"]),
            "tissue.mode": st.sampled_from(["auto", "all"]),
            "tissue.background": st.sampled_from(["keep", "denoise", "flatten"]),
            "tissue.dilate": st.integers(0, 16),
            "compute.halo": st.integers(0, 16).map(lambda n: 16 * n),
        }
    )
)
@hypothesis_settings(deadline=None, max_examples=50)
def test_a_job_s_own_settings_come_back(values):
    settings = Settings().with_values(values)
    assert settings.pixel_settings() == values
    again = Settings().with_values(settings.pixel_settings())
    assert again == settings
    assert again.pixel_hash() == settings.pixel_hash()


def test_with_values_checks_values_and_leaves_the_others(folder):
    base = load(overrides={"output.folder": "/out"}, folder=folder, environ={}).settings
    changed = base.with_values({"output.quality": 71})
    assert (changed.output.folder, changed.output.quality, base.output.quality) == (Path("/out"), 71, 95)
    for name, value in (("output.quality", 3), ("output.qualty", 71), ("outputs.quality", 71), ("output", {}), ("", 1)):
        with pytest.raises(SettingsInvalid, match=f"{name}: "):
            base.with_values({name: value})
