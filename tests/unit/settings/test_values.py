"""Settings that cannot work are refused when they are loaded, in words that say what is allowed."""

import re

import pytest
from dask.utils import parse_bytes

from wsi_denoise.cli import options
from wsi_denoise.errors import SettingsInvalid
from wsi_denoise.settings import FILE_NAME, Settings, allowed_values, load, table


def refusal(folder, text="", *, environ=None, overrides=None):
    if text:
        (folder / FILE_NAME).write_text(text, "utf-8")
    with pytest.raises(SettingsInvalid) as caught:
        load(folder=folder, environ=environ or {}, overrides=overrides)
    said = str(caught.value)
    # No regular expression, no class of ours or of pydantic, and no address of its documentation.
    assert not re.search(r"\^|\\d|\(\?|pydantic|Input should|Value error|errors\.", said.replace(str(folder), "")), said
    return said


@pytest.mark.parametrize(
    ("name", "values", "allowed"),
    [
        ("intake.inbox", ["[]", '[""]', '["a", " "]', '"/mnt"', '["a\\u0000b"]'], "one or more paths"),
        ("output.folder", ['""', '"  "', "5", "true", '"~no-such-user/x"'], "a path"),
        ("intake.quarantine", ['""'], "a path"),
        ("jobs.state", ['""'], "a path"),
        (
            "intake.scan_seconds",
            ["inf", "nan", "-inf", "0", "true", "1e300", '"soon"', '"inf"'],
            "a number, 0.01",
        ),
        ("intake.settle_seconds", ["inf", "nan", "-1"], "a number, 0 to"),
        ("intake.grace_seconds", ["inf", "nan", "-1"], "a number, 0 to"),
        ("jobs.lease_seconds", ["inf", "nan", "-1", "0"], "a number, 0.02 to"),
        ("jobs.heartbeat_seconds", ["inf", "nan", "-1", "0"], "a number, 0.01 to"),
        ("jobs.retry_seconds", ["inf", "nan", "-1", "0", "7200"], "a number, above 0 to 3,600"),
        ("jobs.keep_days", ["inf", "nan", "-1"], "a number, 0 or more"),
        ("jobs.keep_spool_days", ["inf", "nan", "-1"], "a number, 0 or more"),
        ("limits.megapixels", ["inf", "nan", "0"], "a number, above 0"),
        ("limits.free_gigabytes", ["inf", "nan", "-1"], "a number, 0 to"),
        ("notify.timeout", ["inf", "nan", "0"], "a number, above 0"),
        ("dashboard.upload_megabytes", ["inf", "nan", "0"], "a number, above 0"),
        ("log.megabytes", ["inf", "nan", "0", "1e-9"], "a number, 0.001"),
        ("output.quality", ["49", "101", "60.5", '"good"', "true"], "a whole number, 50 to 100"),
        ("output.compression", ['"webp"'], "jpeg, deflate, zstd"),
        ("compute.halo", ["50"], "a whole number, 0 to 256, in steps of 16"),
        ("output.overwrite", ['"maybe"'], "true, false"),
        ("output.mode", ["0o640", "640", "416", "true", '"0999"', '"rw-r--r--"', '"64"', '"0044"'], 'as text, "0640"'),
        ("limits.worker_memory", ['"4 gigs"', '"-4GB"', '"lots"', '"4GiBs"', "4", '"100MB"', '"inf"'], "such as 4GiB"),
        (
            "compute.scheduler",
            ['"host:8786"', '"http://host:8786"', '"tcp://host"', '"tcp://:8786"'],
            "tcp://host:8786",
        ),
        ("compute.quiet_hours", ['"8-18"', '"Mon"', '"25:00-26:00"', '"00:00-00:00"'], "Mon-Fri 08:00-18:00"),
        ("compute.quiet_hours", ['"Mon-Sat 00:00-00:00, Sun 00:00-12:00, Sun 11:00-00:00"'], "leaves no time"),
        ("intake.ignore", ['["*"]', '[""]', '"*.bak"'], "patterns"),
        ("dashboard.people", ['["lab.example"]', '[""]', '["a b@lab.example"]'], "addresses and @domains"),
        ("dashboard.host", ['""'], "a name or an address"),
        ("dashboard.port", ["70000", '"http"'], "0 to 65,535"),
        ("model.preset", ['""'], "a name"),
        ("log.level", ['"INFO"'], "debug, info, warning, error"),
    ],
)
def test_a_value_that_cannot_work_is_refused_and_the_allowed_ones_are_named(tmp_path, name, values, allowed):
    section, _, key = name.partition(".")
    for value in values:
        said = refusal(tmp_path, f"[{section}]\n{key} = {value}\n")
        assert name in said
        assert allowed in said
        assert str(tmp_path / FILE_NAME) in said


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        ({"jobs.heartbeat_seconds": 60}, ["jobs.heartbeat_seconds", "jobs.lease_seconds = 60", "at most 30"]),
        ({"jobs.heartbeat_seconds": 120}, ["jobs.heartbeat_seconds", "at most 30"]),
        ({"jobs.lease_seconds": 3}, ["jobs.heartbeat_seconds", "jobs.lease_seconds = 3", "at most 1.5"]),
        ({"jobs.lease_seconds": 3, "jobs.heartbeat_seconds": 2.9}, ["jobs.heartbeat_seconds"]),
        ({"compute.backend": "openvino", "compute.device": "cuda"}, ["compute.backend", "compute.device"]),
        ({"compute.precision": "fp16", "compute.device": "cpu"}, ["compute.precision", "compute.device"]),
        ({"jobs.state": "inbox"}, ["jobs.state", "inbox"]),
        ({"jobs.state": "x/../inbox"}, ["jobs.state", "inbox"]),
        ({"intake.quarantine": "inbox/"}, ["intake.quarantine", "inbox"]),
        ({"folders": [{"path": "a", "preset": "x"}, {"path": "a/", "preset": "y"}]}, ["folders", "2 times"]),
    ],
)
def test_values_that_contradict_each_other_are_refused(tmp_path, overrides, named):
    said = refusal(tmp_path, overrides=overrides)
    assert [text for text in named if text not in said] == []


def test_a_job_s_own_settings_are_checked_for_contradictions_too():
    with pytest.raises(SettingsInvalid, match=r"jobs\.heartbeat_seconds"):
        Settings().with_values({"jobs.lease_seconds": 1.0})


def test_a_heartbeat_of_half_a_lease_works(tmp_path):
    settings = load(folder=tmp_path, environ={}, overrides={"jobs.lease_seconds": 10.0}).settings
    assert settings.jobs.heartbeat_seconds == 5.0


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("path = '/abs'\npreset = 'paper'", "folders.0.path"),
        ("path = '../x'\npreset = 'paper'", "folders.0.path"),
        ("path = ''\npreset = 'paper'", "folders.0.path"),
        ("path = 'a'\npreset = ''", "folders.0.preset"),
        ("path = 'a'", "folders.0.preset: missing"),
        ("path = 'a'\nprset = 'paper'", "folders.0.prset: unknown name; the nearest is folders.preset"),
    ],
)
def test_a_folder_s_settings_are_checked(tmp_path, text, named):
    assert named in refusal(tmp_path, f"[[folders]]\n{text}\n")


def test_folders_can_be_set_by_a_flag(tmp_path):
    overrides = {"folders": '[{path = "a", preset = "scanner"}]'}
    (folder,) = load(folder=tmp_path, environ={}, overrides=overrides).settings.folders
    assert folder.preset == "scanner"


@pytest.mark.parametrize(
    ("variable", "nearest"),
    [
        ("WSI_DENOISE_OUTPUT_FOLDER", "WSI_DENOISE_OUTPUT__FOLDER; allowed: a path"),
        ("WSI_DENOISE_PORT", "WSI_DENOISE_DASHBOARD__PORT; allowed: a whole number, 0 to 65,535"),
        ("WSI_DENOISE_TOKEN", "WSI_DENOISE_DASHBOARD__TOKEN; allowed: printable ASCII"),
        ("WSI_DENOISE_INBOX", "WSI_DENOISE_INTAKE__INBOX"),
        ("WSI_DENOISE_JOBS_LEASE_SECONDS", "WSI_DENOISE_JOBS__LEASE_SECONDS"),
        ("WSI_DENOISE_JOBS__LEASE__SECONDS", "WSI_DENOISE_JOBS__LEASE_SECONDS"),
        ("WSI_DENOISE__OUTPUT__FOLDER", "WSI_DENOISE_OUTPUT__FOLDER"),
        ("WSI_DENOISE_OUTPUT__FOLDR", "WSI_DENOISE_OUTPUT__FOLDER"),
        ("wsi_denoise_output_folder", "WSI_DENOISE_OUTPUT__FOLDER"),
        ("Wsi_Denoise_Output__Foldr", "WSI_DENOISE_OUTPUT__FOLDER"),
        ("WSI_DENOISE_LIMITS__MEMORY", "WSI_DENOISE_LIMITS__WORKER_MEMORY"),
        ("WSI_DENOISE_FOLDERS__PATH", "WSI_DENOISE_FOLDERS"),
        ("WSI_DENOISE_COLOUR", "two underscores"),
        ("WSI_DENOISE_", "two underscores"),
    ],
)
def test_every_unknown_variable_is_refused_with_the_nearest_name(tmp_path, variable, nearest):
    said = refusal(tmp_path, environ={variable: "1"})
    assert f"{variable}: " in said
    assert nearest in said


def test_variables_of_kubernetes_and_of_the_tests_are_no_settings(tmp_path):
    environ = {
        "WSI_DENOISE_SERVICE_HOST": "10.0.0.1",
        "WSI_DENOISE_SERVICE_PORT": "8501",
        "WSI_DENOISE_SERVICE_PORT_HTTP": "8501",
        "WSI_DENOISE_PORT": "tcp://10.0.0.1:8501",
        "WSI_DENOISE_PORT_8501_TCP": "tcp://10.0.0.1:8501",
        "WSI_DENOISE_PORT_8501_TCP_ADDR": "10.0.0.1",
        "WSI_DENOISE_SHARED": "/data",
        "OTHER_WSI_DENOISE_X": "1",
    }
    assert set(load(folder=tmp_path, environ=environ).origins.values()) == {"default"}


@pytest.mark.parametrize(
    ("text", "nearest"),
    [
        ("[output]\nfoldr = 'x'\n", "output.folder"),
        ("[outptu]\nfolder = 'x'\n", "output"),
        ("[output]\nport = 1\n", "dashboard.port"),
        ("[jobs]\nleaseseconds = 60\n", "jobs.lease_seconds"),
    ],
)
def test_an_unknown_name_in_the_file_is_refused_with_the_nearest_name(tmp_path, text, nearest):
    assert f"the nearest is {nearest}" in refusal(tmp_path, text)


@pytest.mark.parametrize(("name", "nearest"), [("folder", "output.folder"), ("output.foldr", "output.folder")])
def test_an_unknown_name_in_a_flag_is_refused_with_the_nearest_name(tmp_path, name, nearest):
    assert f"the nearest is {nearest}" in refusal(tmp_path, overrides={name: "x"})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("dashboard.token", "päss-word-1"),
        ("dashboard.token", " pass-word-1"),
        ("notify.url", "hook.example/pass-word-1"),
        ("notify.url", "ftp://host/pass-word-1"),
        ("jobs.database", "mysql://user:pass-word-1@host/jobs"),
        ("jobs.database", "pass-word-1"),
    ],
)
def test_a_secret_is_not_shown(tmp_path, name, value):
    said = refusal(tmp_path, overrides={name: value})
    assert name in said
    assert "word-1" not in said


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///", "sqlite:///:memory:", "jobs.sqlite", "mysql://host/x"])
def test_a_database_that_cannot_be_used_is_refused(tmp_path, url):
    assert "jobs.database" in refusal(tmp_path, overrides={"jobs.database": url})


@pytest.mark.parametrize("value", ["0o17", "1_000", "1e5", "0x1f"])
def test_a_number_that_stands_for_another_text_is_refused(tmp_path, value):
    assert "put it in quotes" in refusal(tmp_path, f"[dashboard]\ntoken = {value}\n")
    (tmp_path / FILE_NAME).write_text(f"[dashboard]\ntoken = '{value}'\n", "utf-8")
    assert load(folder=tmp_path, environ={}).settings.dashboard.token == value


@pytest.mark.parametrize(
    ("source", "mode"),
    [('"0640"', "0640"), ('"640"', "0640"), ('"0o640"', "0640"), ('"2750"', "2750"), ('""', "")],
)
def test_permissions_are_octal_digits(tmp_path, source, mode):
    (tmp_path / FILE_NAME).write_text(f"[output]\nmode = {source}\n", "utf-8")
    assert load(folder=tmp_path, environ={}).settings.output.mode == mode
    flags = load(folder=tmp_path, environ={}, overrides={"output.mode": source.strip('"') or '""'})
    assert flags.settings.output.mode == mode
    variables = load(folder=tmp_path, environ={"WSI_DENOISE_OUTPUT__MODE": source.strip('"')})
    assert variables.settings.output.mode == mode


@pytest.mark.parametrize("memory", ["auto", "0", "4GiB", "4 GB", "4gb", "4G", "4Gi", "512MiB", "1.5GiB", "4000000000"])
def test_sizes_of_memory_are_what_dask_reads(tmp_path, memory):
    value = load(folder=tmp_path, environ={}, overrides={"limits.worker_memory": memory}).settings.limits.worker_memory
    assert value == memory
    assert value in {"auto", "0"} or 2**28 <= parse_bytes(value) < 2**33


def test_addresses_that_work_are_taken(tmp_path):
    for scheduler in ("tcp://host:8786", "tls://10.0.0.1:1", "tcp://[::1]:8786", "ws://host:80", ""):
        assert load(folder=tmp_path, environ={}, overrides={"compute.scheduler": scheduler}).settings
    for url in ("https://host/hook?a=1", "http://[::1]:80/", ""):
        assert load(folder=tmp_path, environ={}, overrides={"notify.url": url}).settings


@pytest.mark.parametrize(
    ("name", "old", "value"),
    [("intake.move", "false", "true"), ("output.owner", '""', '"lab"'), ("compute.in_flight", "0", "1")],
)
def test_a_removed_setting_is_accepted_at_its_old_default_and_refused_otherwise(tmp_path, name, old, value):
    section, _, key = name.partition(".")
    (tmp_path / FILE_NAME).write_text(f"[{section}]\n{key} = {old}\n")
    assert name not in load(folder=tmp_path, environ={}).origins
    (tmp_path / FILE_NAME).write_text(f"[{section}]\n{key} = {value}\n")
    said = refusal(tmp_path)
    assert f"{name}: removed" in said
    assert "delete this setting" in said
    assert FILE_NAME in said
    variable = f"WSI_DENOISE_{section.upper()}__{key.upper()}"
    (tmp_path / FILE_NAME).unlink()
    with pytest.raises(SettingsInvalid, match=f"{name}: removed"):
        load(folder=tmp_path, environ={variable: value.strip('"')})
    load(folder=tmp_path, environ={variable: old.strip('"')})


def test_a_byte_order_mark_is_fine(tmp_path):
    (tmp_path / FILE_NAME).write_bytes("\ufeff[output]\r\nquality = 60\r\n".encode())
    assert load(folder=tmp_path, environ={}).settings.output.quality == 60


def test_another_encoding_is_named(tmp_path):
    (tmp_path / FILE_NAME).write_bytes("[output]\nquality = 60\n".encode("utf-16"))
    assert "UTF-8" in refusal(tmp_path)


@pytest.mark.parametrize("target", ["missing.toml", FILE_NAME, "folder"])
def test_a_file_that_leads_nowhere_is_not_passed_over(tmp_path, target):
    (tmp_path / "folder").mkdir()
    (tmp_path / FILE_NAME).symlink_to(tmp_path / target)
    said = refusal(tmp_path)
    assert FILE_NAME in said
    assert "cannot be read" in said


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    home = tmp_path / "home"
    (tmp_path / FILE_NAME).write_text(
        "[intake]\ninbox = ['~/inbox', 'b']\nquarantine = '~/q'\n[jobs]\nstate = '~/s'\ndatabase = 'sqlite:///~/j.db'\n"
    )
    overrides = {"output.folder": "~"}
    settings = load(folder=tmp_path, environ={}, overrides=overrides).settings
    assert settings.intake.inbox == [home / "inbox", tmp_path / "b"]
    assert (settings.intake.quarantine, settings.output.folder, settings.jobs.state) == (home / "q", home, home / "s")
    assert settings.database_url == f"sqlite:///{home}/j.db"
    environ = {"WSI_DENOISE_OUTPUT__FOLDER": "~/x"}
    assert load(folder=tmp_path, environ=environ).settings.output.folder == home / "x"
    assert options.given_path("~/x") == home / "x"


def test_every_setting_says_what_it_allows_and_its_default_is_allowed(tmp_path):
    allowed = allowed_values()
    assert set(allowed) == {name for name, _, _ in table()}
    assert all(text and "^" not in text for text in allowed.values())
    assert [name for name, text in allowed.items() if text == "text"] == []
    assert load(folder=tmp_path, environ={}).settings == load(folder=tmp_path, environ={}, overrides={}).settings
