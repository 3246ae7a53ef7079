"""Starts the shipped broker configuration on a free port and tries, as each user, what it may and what it may not do.

    broker_permissions.py NATS_SERVER NATS_SERVER_CONF

One line a broken rule; exit status 1 if there is any.
"""

import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import time

START_SECONDS = 15

# user, subject, may it publish there?
PUBLISH = [
    ("my-provider", "catalog.events.my-provider.upsert", True),
    ("my-provider", "catalog.events.my-provider.import", True),
    ("my-provider", "catalog.events.other.upsert", False),
    ("my-provider", "catalog.stitch.fresh", False),
    ("my-provider", "catalog.entities.component.default.web", False),
    ("my-provider", "$JS.API.STREAM.PURGE.CATALOG_EVENTS", False),
    ("my-provider", "_INBOX.somebody.else", False),
    ("reader", "$JS.API.CONSUMER.CREATE.CATALOG_ENTITIES.replay", True),
    ("reader", "$JS.API.CONSUMER.MSG.NEXT.CATALOG_ENTITIES.replay", True),
    ("reader", "catalog.events.reader.upsert", False),
    ("reader", "catalog.stitch.fresh", False),
    ("reader", "catalog.entities.component.default.web", False),
    ("reader", "catalog.watermark", False),
    ("reader", "$JS.API.STREAM.PURGE.CATALOG_ENTITIES", False),
    ("reader", "$JS.API.CONSUMER.CREATE.CATALOG_EVENTS.mine", False),
    ("processor", "catalog.stitch.bulk", True),
    ("processor", "catalog.dead.processor.my-provider", True),
    ("processor", "$JS.API.STREAM.CREATE.CATALOG_EVENTS", True),
    ("processor", "$JS.API.STREAM.PURGE.CATALOG_EVENTS", True),
    ("processor", "$JS.API.CONSUMER.CREATE.CATALOG_EVENTS.processor", True),
    ("processor", "$JS.API.CONSUMER.CREATE.CATALOG_STITCH.stitcher.catalog.stitch.fresh", True),
    ("processor", "$JS.API.CONSUMER.MSG.NEXT.CATALOG_EVENTS.processor-bulk", True),
    ("processor", "$JS.ACK.CATALOG_EVENTS.processor.1.2.3.4.5", True),
    ("processor", "$JS.ACK.hub.hash.CATALOG_EVENTS.processor.1.2.3.4.5", True),
    ("processor", "$JS.API.CONSUMER.MSG.NEXT.CATALOG_STITCH.stitcher", False),
    ("processor", "catalog.entities.component.default.web", False),
    ("processor", "$JS.API.STREAM.DELETE.CATALOG_EVENTS", False),
    ("stitcher", "catalog.entities.component.default.web", True),
    ("stitcher", "$JS.API.STREAM.MSG.GET.CATALOG_ENTITIES", True),
    ("stitcher", "$JS.API.CONSUMER.MSG.NEXT.CATALOG_STITCH.stitcher-bulk", True),
    ("stitcher", "catalog.events.stitcher.upsert", False),
    ("stitcher", "$JS.API.STREAM.DELETE.CATALOG_ENTITIES", False),
    ("scheduler", "catalog.watermark", True),
    ("scheduler", "$JS.API.CONSUMER.INFO.CATALOG_EVENTS.processor", True),
    ("scheduler", "catalog.entities.component.default.web", False),
    ("scheduler", "$JS.API.STREAM.DELETE.CATALOG_STITCH", False),
    ("operator", "$JS.API.STREAM.DELETE.CATALOG_EVENTS", True),
    ("operator", "catalog.events.anybody.upsert", True),
    ("operator", "elsewhere.events", False),
]

# user, subject, may it listen there?
SUBSCRIBE = [
    ("my-provider", "_INBOX_my-provider.x", True),
    ("my-provider", "_INBOX.>", False),
    ("my-provider", "_INBOX_other.>", False),
    ("my-provider", "catalog.>", False),
    ("reader", "_INBOX_reader.x", True),
    ("reader", "catalog.events.>", False),
    ("processor", "_INBOX_processor.x", True),
    ("stitcher", "_INBOX_stitcher.x", True),
    ("scheduler", "_INBOX_scheduler.x", True),
    ("operator", "catalog.>", True),
]


def main() -> int:
    if len(sys.argv) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    server, conf = sys.argv[1], pathlib.Path(sys.argv[2])
    passwords = {name: f"check-{name.lower()}" for name in re.findall(r"\$(CALLBOARD_\w+)", conf.read_text())}
    with tempfile.TemporaryDirectory() as directory:
        process = start(server, conf, passwords, pathlib.Path(directory))
        try:
            broken = check(client_port(process, pathlib.Path(directory)), passwords)
        finally:
            process.terminate()
            process.wait(timeout=START_SECONDS)
    for line in broken:
        print(line)
    print(f"broker permissions: {len(PUBLISH) + len(SUBSCRIBE)} rules, {len(broken)} broken")
    return 1 if broken else 0


def start(server: str, conf: pathlib.Path, passwords: dict[str, str], directory: pathlib.Path) -> subprocess.Popen:
    command = [server, "-c", conf, "-a", "127.0.0.1", "-p", "-1", "-m", "-1", "-sd", directory / "data"]
    command += ["--ports_file_dir", directory, "-l", directory / "log"]
    return subprocess.Popen([str(part) for part in command], env={**os.environ, **passwords})


def client_port(process: subprocess.Popen, directory: pathlib.Path) -> int:
    """Waits for the file in which the server says where it listens."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        for found in directory.glob("*.ports"):
            try:
                return int(json.loads(found.read_text())["nats"][0].rsplit(":", 1)[1])
            except ValueError:
                pass  # Still being written.
        time.sleep(0.02)
    log = directory / "log"
    raise SystemExit(f"the broker did not start within {START_SECONDS} s: {log.read_text() if log.exists() else 'no log'}")


def check(port: int, passwords: dict[str, str]) -> list[str]:
    broken = []
    for verb, rules in (("publish to", PUBLISH), ("subscribe to", SUBSCRIBE)):
        for user, subject, may in rules:
            answer = attempt(port, user, passwords[password_variable(user)], verb, subject)
            if ("Permissions Violation" in answer) == may:
                broken.append(f"{user}: may{'' if may else ' not'} {verb} {subject}, and the broker answered {answer!r}")
    return broken


def password_variable(user: str) -> str:
    return f"CALLBOARD_{'PROVIDER' if user == 'my-provider' else user.upper()}_PASSWORD"


def attempt(port: int, user: str, password: str, verb: str, subject: str) -> str:
    """What the broker says to it: a refusal, or nothing but its PONG."""
    line = f"PUB {subject} 2\r\n{{}}\r\n" if verb == "publish to" else f"SUB {subject} 1\r\n"
    options = json.dumps({"user": user, "pass": password, "verbose": False, "pedantic": False})
    with socket.create_connection(("127.0.0.1", port), timeout=START_SECONDS) as connection:
        answers = connection.makefile("rb")
        answers.readline()  # INFO
        connection.sendall(f"CONNECT {options}\r\nPING\r\n".encode())
        signed_in = answers.readline().decode().strip()
        if signed_in != "PONG":
            raise SystemExit(f"{user} cannot sign in: {signed_in}")
        connection.sendall(f"{line}PING\r\n".encode())
        said = []
        while (answer := answers.readline().decode().strip()) not in ("PONG", ""):
            said.append(answer)
        return " ".join(said)


if __name__ == "__main__":
    sys.exit(main())
