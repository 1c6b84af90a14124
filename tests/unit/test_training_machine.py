"""The machine that a figure was taken on."""

from training import machine


def test_the_processor_names_itself(tmp_path, monkeypatch):
    place = tmp_path / "cpuinfo"
    place.write_text("processor\t: 0\nmodel name\t: Some Chip 7\nflags\t: a b\n")
    monkeypatch.setattr(machine, "CPUINFO", place)
    assert machine.processor() == "Some Chip 7"
    assert machine.described(1).startswith("1 of ")
    assert machine.described(1).endswith(" cores of Some Chip 7; no GPU")


def test_without_cpuinfo_there_is_still_a_name(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "CPUINFO", tmp_path / "none")
    assert machine.processor()
