"""The description of the routes."""

import json
import re

from dashboard import routes
from dashboard.api.openapi import description
from wsi_denoise.jobs.states import JobState


def test_the_description_describes_what_is_answered(client, case):
    document = client.get("/api/openapi.json").json()
    assert document == json.loads(json.dumps(description()))
    # Every route but the viewer's own files, and the addresses that are answered with 404.
    paths = [re.sub(r":int", "", getattr(route, "path", "")) for route in routes.routes(case.settings)]
    nothing = re.compile(r"/viewer/static/|.*\{rest|/(slides|viewer|api|upload|export)$")
    assert set(document["paths"]) == {path for path in paths if not nothing.match(path)}
    for path, methods in document["paths"].items():
        for operation in methods.values():
            named = {one["name"] for one in operation["parameters"] if one["in"] == "path"}
            assert named == set(re.findall(r"\{(\w+)\}", path)), path
    text = json.dumps(document)
    for name in re.findall(r"#/components/schemas/(\w+)", text):
        assert name in document["components"]["schemas"]
    asked = {one["name"]: one["schema"] for one in document["paths"]["/api/jobs"]["get"]["parameters"]}
    for name in asked["sort"]["enum"]:
        assert client.get("/api/jobs", params={"sort": name}).status_code == 200
    assert asked["state"]["items"]["enum"] == [state.value for state in JobState]
    assert {"pass", "review", "not_needed"} == set(asked["verdict"]["enum"])
    tile = document["paths"]["/slides/{job}/{which}_files/{level}/{column}_{row}.{suffix}"]["get"]["parameters"]
    enums = {one["name"]: one["schema"].get("enum") for one in tile}
    assert (enums["which"], enums["suffix"], enums["of"]) == (
        ["before", "after", "difference"],
        ["jpeg", "png"],
        ["mean", "rms"],
    )
    schemas = document["components"]["schemas"]
    details = schemas["JobDetails"]
    job = client.get(f"/api/jobs/{case.job.id}").json()
    assert set(details["properties"]) == set(job)
    assert set(details["required"]) == set(job) - {"events", "attempt_list"}
    kinds = {"string": str, "integer": int, "number": (int, float), "boolean": bool, "array": list, "object": dict}
    for name, value in job.items():
        schema = details["properties"][name]
        if "$ref" in schema:
            schema = schemas[schema["$ref"].rpartition("/")[2]]
        names = {each["type"] for each in schema.get("anyOf", [schema])}
        assert any(value is None if kind == "null" else isinstance(value, kinds[kind]) for kind in names), name
