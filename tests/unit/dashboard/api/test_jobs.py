"""Jobs as JSON."""

import json
import os

from dashboard.responses import refusal


def test_jobs_are_what_the_command_line_prints(client, case):
    page = client.get("/api/jobs", params={"state": "done", "verdict": "review"}).json()
    assert (page["total"], page["jobs"][0]["id"]) == (1, case.job.id)
    assert client.get("/api/jobs", params={"state": "failed"}).json() == {"jobs": [], "total": 0}
    wrong = client.get("/api/jobs", params={"state": "gone"})
    assert (wrong.status_code, wrong.json()["error_code"]) == (400, "usage")
    assert client.get(f"/api/jobs/{case.job.id}").json() == json.loads(json.dumps(case.store.details(case.job.id)))


def test_a_name_that_is_no_text_is_answered_as_it_is(processed, asked):
    name = os.fsdecode(b"caf\xe9.tiff")
    case = processed(name)
    client = asked(case.settings)
    assert client.get("/api/jobs").json()["jobs"][0]["relative"] == name
    assert client.get(f"/api/jobs/{case.job.id}").json()["slide"] == case.job.slide
    assert client.get(f"/slides/{case.job.id}/info.json").json()["name"] == name
    refused = client.get("/api/jobs", params={"state": "caf\u00e9"})
    assert (refused.status_code, "caf\u00e9" in refused.json()["error"]) == (400, True)
    said = refusal(404, "not_found", f"{name} is gone")
    assert json.loads(said.body)["error"] == f"{name} is gone"
