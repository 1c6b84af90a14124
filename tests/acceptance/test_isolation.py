"""No process of the program reaches another machine, or executes a file of the folder that it works in."""

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.sync.client import connect

from support.slides import tiled_tissue, write_slide

HOOK = """
import ipaddress, json, os, sys

log = os.open(os.environ["AUDIT_LOG"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

def write(**entry):
    os.write(log, (json.dumps({"process": os.getpid(), **entry}) + "\\n").encode())

def is_foreign(host):
    if isinstance(host, bytes):
        host = host.decode("utf-8", "replace")
    if not host or host == "localhost":
        return False
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return True  # a name: its address has to be looked up
    return not (address.is_loopback or address.is_unspecified)

def host_of(event, arguments):
    if event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
        return arguments[0]
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg", "socket.getnameinfo"):
        address = arguments[-1]
        return address[0] if isinstance(address, tuple) else None  # a Unix socket has a path
    return None

def hook(event, arguments):
    if event.startswith("socket.") and is_foreign(host := host_of(event, arguments)):
        write(event=event, host=str(host))
        raise PermissionError(f"{event} {host}")  # nothing leaves the machine

write(start=sys.orig_argv)
sys.addaudithook(hook)
"""
"""A sitecustomize: Python imports it at the start of every process whose PYTHONPATH has it."""

LOADED = 'import os\nopen(os.path.join({folder!r}, __name__), "w").close()\n'


def entries(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def started(file):
    """Return the processes in which the hook runs."""
    return {entry["process"] for entry in entries(file) if "start" in entry}


@pytest.fixture(scope="module")
def audit(tmp_path_factory):
    """Return the environment of a process under audit, and the file with what its hook found."""
    folder = tmp_path_factory.mktemp("audit")
    (folder / "sitecustomize.py").write_text(HOOK)
    (folder / "home").mkdir()
    log = folder / "log"
    variables = {"PYTHONPATH": str(folder), "AUDIT_LOG": str(log), "HOME": str(folder / "home")}
    for name in ("PYTHONSAFEPATH", "PYTHONHOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
        variables[name] = ""
    return SimpleNamespace(variables=variables, log=log, home=folder / "home")


def answers(url):
    try:
        return urllib.request.urlopen(f"{url}healthz", timeout=30).status
    except OSError:
        return None


def run_page(url):
    """Have the page's script run once, as a browser does; return whether the browser is asked to send statistics."""
    asked = True
    with connect(f"{url.replace('http', 'ws')}_stcore/stream", subprotocols=["streamlit"], open_timeout=120) as socket:
        message = BackMsg()
        message.rerun_script.query_string = ""
        socket.send(message.SerializeToString())
        while True:
            answer = ForwardMsg.FromString(socket.recv(timeout=120))
            if answer.WhichOneof("type") == "new_session":
                asked = answer.new_session.config.gather_usage_stats
            if answer.WhichOneof("type") == "script_finished":
                return asked


@pytest.fixture(scope="module")
def day(open_workplace, audit, tmp_path_factory):
    """Every command that starts processes, in a lab's folder with a file for each module that there is."""
    executed = tmp_path_factory.mktemp("executed")
    with open_workplace(variables=audit.variables) as place:
        names = {*sys.stdlib_module_names, *importlib.metadata.packages_distributions(), "usercustomize"}
        for name in filter(str.isidentifier, names):
            (place.folder / f"{name}.py").write_text(LOADED.format(folder=str(executed)))
        (place.folder / ".streamlit").mkdir()
        (place.folder / ".streamlit" / "config.toml").write_text("[browser]\ngatherUsageStats = true\n")
        place.cli("doctor", "--json", code=None)
        slide = write_slide(place.folder / "slides" / "a.tiff", tiled_tissue(400, 300))
        place.cli("bench", slide)
        place.cli("run", slide)
        place.cli("verify", place.folder / "denoised" / "a.tiff.denoised.tiff")
        place.cli("sample", "demo")
        write_slide(place.inbox / "b.tiff", tiled_tissue(400, 300, 1))
        place.start("--port", "0", command="up")
        place.done("b.tiff")
        terminal = place.folder / "terminal"
        said = place.wait(lambda: re.search(r"http://\S+", terminal.read_text()), "the address is printed")
        place.wait(lambda: answers(said[0]), "the page answers")
        statistics = run_page(said[0])
        # The page has a session of its own, and is not among the processes of the place.
        family = [
            place.process.pid,
            *(child.pid for child in psutil.Process(place.process.pid).children(recursive=True)),
        ]
        place.wait(lambda: all(pid in started(audit.log) for pid in family), "the hook runs in every process")
        place.stop()
    return SimpleNamespace(
        executed=sorted(file.name for file in executed.iterdir()), family=family, statistics=statistics
    )


@pytest.mark.timeout(1800)
def test_no_process_reaches_another_machine(day, audit):
    # The daemon, the page, a worker and multiprocessing's resource tracker.
    assert len(day.family) >= 4
    assert [entry for entry in entries(audit.log) if "host" in entry] == []
    assert not (audit.home / "intel").exists()
    assert day.statistics is False


@pytest.mark.timeout(1800)
def test_no_file_of_the_working_folder_is_executed(day):
    assert day.executed == []


def test_no_folder_that_others_may_write_is_searched_for_modules(tmp_path):
    code = (
        "import json, sys; from pathlib import Path; from wsi_denoise.processing.dask.cluster import connect;"
        "from wsi_denoise.settings import load;"
        "settings = load(folder=Path.cwd(), environ={}, overrides={'compute.workers': '1'}).settings\n"
        "with connect(settings): print(json.dumps(sys.path))"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=True
    )
    shared = Path(tempfile.gettempdir())
    own = {Path(path) for path in sys.path}  # the checkout itself may lie there
    searched = [Path(path) for path in json.loads(done.stdout.splitlines()[-1]) if Path(path) not in own]
    assert [path for path in searched if path.is_relative_to(shared) and not path.is_relative_to(tmp_path)] == []


@pytest.mark.parametrize(
    "code",
    [
        "import socket; socket.create_connection(('192.0.2.1', 80))",
        "import socket; socket.getaddrinfo('collector.invalid', 443)",
        "import socket; socket.gethostbyname('collector.invalid')",
        "import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 53))",
        "import urllib.request; urllib.request.urlopen('http://collector.invalid/')",
        "import os, sys; os.system(f\"{sys.executable} -c 'import socket; socket.gethostbyname(chr(120))'\")",
    ],
)
def test_the_audit_finds_what_leaves_the_machine(audit, tmp_path, code):
    log = tmp_path / "log"
    environment = {**os.environ, **audit.variables, "AUDIT_LOG": str(log)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=False, capture_output=True, timeout=120)
    assert [entry for entry in entries(log) if "host" in entry]
