"""A PostgreSQL server of its own, from Debian's package (`apt-get install postgresql`): started, restarted, stopped."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

USERS = ("postgres", "nobody")
"""It refuses to run as root: then it runs as the first of these."""


class NotThere(Exception):
    """There is no PostgreSQL here, and why."""


def program(name: str) -> str:
    """Return the path of one of the server's programs; Debian keeps them out of the path."""
    found = shutil.which(name)
    if found:
        return found
    for folder in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True):
        if (folder / name).is_file():
            return str(folder / name)
    raise NotThere(f"{name} is not installed (apt-get install postgresql)")


class Server:
    """One server in a temporary folder, on loopback, without passwords.

    Attributes
    ----------
    url : str
        Of its database ``postgres``.
    """

    def __init__(self) -> None:
        try:
            import psycopg  # noqa: F401, PLC0415
        except ImportError as error:
            raise NotThere("the extra postgres is not installed (pip install .[postgres])") from error
        self._control, initdb = program("pg_ctl"), program("initdb")
        self._user = _other_user() if os.geteuid() == 0 else None
        self._folder = Path(tempfile.mkdtemp(prefix="wsi-postgres-"))
        self._data = self._folder / "data"
        if self._user is not None:
            os.chown(self._folder, pwd.getpwnam(self._user).pw_uid, -1)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"postgresql://lab@127.0.0.1:{self.port}/postgres"
        try:
            self._run(initdb, "-D", self._data, "-U", "lab", "-A", "trust", "-E", "UTF8", "--no-sync")
            self.start()
        except NotThere:
            self.close()
            raise

    def start(self) -> None:
        # As durable as in earnest, but for what only a power cut would tell.
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c fsync=off -k {self._folder}"
        log = self._folder / "log"
        self._run(self._control, "-D", self._data, "-w", "-t", "120", "-l", log, "-o", options, "start")

    def stop(self) -> None:
        """Stop at once; connections are cut."""
        self._run(self._control, "-D", self._data, "-w", "-t", "120", "-m", "immediate", "stop")

    def close(self) -> None:
        with contextlib.suppress(NotThere):
            self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def database(self) -> contextlib.AbstractContextManager[str]:
        """Give the URL of a new, empty database."""
        return database(self.url)

    def _run(self, *command: str | Path) -> None:
        try:
            subprocess.run(
                command,
                cwd="/",
                user=self._user,
                # Not inherited: the server would keep a test's pipe open.
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                timeout=180,
                check=True,
            )  # fmt: skip
        except (OSError, subprocess.SubprocessError) as error:
            raise NotThere(f"{Path(command[0]).name} fails ({error})") from error


@contextlib.contextmanager
def database(server: str) -> Iterator[str]:
    """Give the URL of a new, empty database on a server."""
    import psycopg  # noqa: PLC0415

    name = f"wsi_denoise_{uuid.uuid4().hex}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    try:
        yield f"{server.rpartition('/')[0]}/{name}"
    finally:
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def _other_user() -> str:
    for name in USERS:
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    raise NotThere("PostgreSQL does not run as root, and there is no other user")
