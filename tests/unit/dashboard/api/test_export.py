"""Exports of the history: valid for any number of jobs, without formulas, and never in memory whole."""

import csv
import io
import json
import tracemalloc
from dataclasses import replace

import pytest

from dashboard.api import export
from support.jobs import PLAIN


def jobs(count):
    return (
        replace(PLAIN, id=number, slide=f"/in/={number}\udcff.svs", metrics={"psnr": 1.5}) for number in range(count)
    )


def test_csv_has_no_formulas_and_only_text():
    (line,) = csv.DictReader(
        io.StringIO(b"".join(export.as_csv(iter([replace(PLAIN, slide="=1+1")]), ["psnr"])).decode())
    )
    assert line["slide"] == "'=1+1"
    assert line["metrics.psnr"] == ""


def test_json_is_valid_for_none_one_and_many():
    for count in (0, 1, 401):
        found = json.loads(b"".join(export.as_json(jobs(count), [])))
        assert (len(found["jobs"]), found["total"]) == (count, count)


@pytest.mark.parametrize("write", [export.as_csv, export.as_json, export.as_parquet])
def test_an_export_holds_only_a_part_in_memory(write, monkeypatch):
    pytest.importorskip("pyarrow.parquet")  # before memory is traced
    monkeypatch.setattr(export, "_ROWS", 100)

    def most(count):
        tracemalloc.start()
        for _ in write(jobs(count), ["psnr"]):
            pass
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    most(10)  # imports
    # All at once would be 20 times as much; other threads of this process are counted too, so not twice.
    assert most(2_000) < 5 * most(100)
