"""Starts the shipped broker configuration on a free port and tries, as each user, what it may and what it may not do;
then, with streams in place, that a provider's events are taken and that it cannot reach around its permissions.

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
    ("my-provider", "catalog.processors.on-call", False),
    ("processor", "catalog.processors.on-call", True),
    ("processor", "catalog.stitch.bulk", True),
    ("processor", "catalog.dead.processor.my-provider", True),
    ("processor", "catalog.conflicts.my-provider", True),
    ("processor", "$JS.API.STREAM.CREATE.CATALOG_CONFLICTS", True),
    ("my-provider", "catalog.conflicts.my-provider", False),
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
    ("my-provider", "_INBOX.x", True),
    ("my-provider", "catalog.>", False),
    ("my-provider", ">", False),
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
            port = client_port(process, pathlib.Path(directory))
            broken = rules_broken(port, passwords) + provider_faults(port, passwords)
        finally:
            process.terminate()
            process.wait(timeout=START_SECONDS)
    for line in broken:
        print(line)
    print(f"broker permissions: {len(PUBLISH) + len(SUBSCRIBE)} rules and a provider at work, {len(broken)} faults")
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


def rules_broken(port: int, passwords: dict[str, str]) -> list[str]:
    broken = []
    for verb, rules in (("publish to", PUBLISH), ("subscribe to", SUBSCRIBE)):
        for user, subject, may in rules:
            client = Client(port, user, passwords)
            client.publish(subject, "{}") if verb == "publish to" else client.subscribe(subject)
            answer = " ".join(client.heard())
            if ("Permissions Violation" in answer) == may:
                broken.append(f"{user}: may{'' if may else ' not'} {verb} {subject}, and the broker answered {answer!r}")
    return broken


def provider_faults(port: int, passwords: dict[str, str]) -> list[str]:
    """A provider's events are stored and answered, also in an atomic batch; no answer goes where a provider may not write."""
    operator, provider = Client(port, "operator", passwords), Client(port, "my-provider", passwords)
    for name, subject in (("CATALOG_EVENTS", "catalog.events.>"), ("CATALOG_ENTITIES", "catalog.entities.>")):
        operator.request(f"$JS.API.STREAM.CREATE.{name}", json.dumps({"name": name, "subjects": [subject], "allow_atomic": True}))
    event, faults = "catalog.events.my-provider.import", []
    if '"seq":1' not in (answer := provider.request(event, "{}")):
        faults.append(f"my-provider: an event of its own was not taken: {answer!r}")
    provider.request(event, "{}", {"Nats-Batch-Id": "b", "Nats-Batch-Sequence": "1"})
    answer = provider.request(event, "{}", {"Nats-Batch-Id": "b", "Nats-Batch-Sequence": "2", "Nats-Batch-Commit": "1"})
    if '"count":2' not in answer:
        faults.append(f"my-provider: an atomic batch of two was not taken: {answer!r}")
    provider.subscribe("_INBOX.>")
    provider.publish(event, "{}", reply="catalog.entities.component.default.web")
    provider.heard()
    entities = json.loads(operator.request("$JS.API.STREAM.INFO.CATALOG_ENTITIES", ""))["state"]["messages"]
    if entities != 0:
        faults.append("my-provider: had the broker's answer to a publish stored as an entity")
    if overheard := provider.heard():
        faults.append(f"my-provider: hears what was answered to others: {overheard}")
    return faults


class Client:
    """The few words of the NATS protocol that this takes."""

    def __init__(self, port: int, user: str, passwords: dict[str, str]) -> None:
        variable = "PROVIDER" if user == "my-provider" else user.upper()
        options = {"user": user, "pass": passwords[f"CALLBOARD_{variable}_PASSWORD"], "verbose": False, "headers": True}
        self.inbox = f"_INBOX.{user}"
        self.connection = socket.create_connection(("127.0.0.1", port), timeout=START_SECONDS)
        self.lines = self.connection.makefile("rb")
        self.lines.readline()  # INFO
        self.send(f"CONNECT {json.dumps(options)}")
        if refusal := self.heard():
            raise SystemExit(f"{user} cannot sign in: {refusal}")

    def subscribe(self, subject: str) -> None:
        self.send(f"SUB {subject} 1")

    def publish(self, subject: str, payload: str, reply: str = "", headers: dict[str, str] | None = None) -> None:
        block = "NATS/1.0\r\n" + "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items()) + "\r\n"
        self.send(f"HPUB {subject} {reply} {len(block)} {len(block) + len(payload)}\r\n{block}{payload}")

    def request(self, subject: str, payload: str, headers: dict[str, str] | None = None) -> str:
        """The payload of the one answer; waits for it."""
        self.send(f"SUB {self.inbox} 2\r\nUNSUB 2 1")
        self.publish(subject, payload, self.inbox, headers)
        while True:
            line = self.lines.readline().decode().strip()
            if line.startswith("MSG"):
                return self.payload(line)
            if line != "PING":
                return line

    def heard(self) -> list[str]:
        """Everything that the broker said until it answers a PING."""
        self.send("PING")
        said = []
        while (line := self.lines.readline().decode().strip()) not in ("PONG", ""):
            said.append(self.payload(line) if line.startswith("MSG") else line)
        return said

    def payload(self, line: str) -> str:
        return self.lines.read(int(line.split()[-1]) + 2).decode().strip()

    def send(self, text: str) -> None:
        self.connection.sendall(f"{text}\r\n".encode())


if __name__ == "__main__":
    sys.exit(main())
