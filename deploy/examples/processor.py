"""A processor for Callboard as a service of its own: who is on call for a component.

It is asked over NATS (request and reply) about each entity of the kinds for which the catalog file names it, and answers in JSON
(schemas/processor). This one looks the owner of a component up in a rota, which is a JSON file {"team": ["user", ...]}, and

- sets the annotation example.com/on-call,
- adds the relations onCall and onCallFor between the component and the first one in the rota,
- names a refresh key, so that `on-call:<team>` in a refresh event has the team's components processed again,
- reports an owner that is not in the rota as an error: the component keeps its last good version and shows it.

    pip install nats-py
    python3 processor.py nats://localhost:4222 catalog.processors.on-call rota.json
"""

import asyncio
import json
import signal
import sys

import nats


def answer(question, rota):
    entity = question["entity"]
    team = entity.get("spec", {}).get("owner", "").split("/")[-1].split(":")[-1]
    key = f"on-call:{team}"
    on_call = rota.get(team)
    if not on_call:
        return {"errors": [{"message": f"the rota has nobody of team {team!r}"}], "refreshKeys": [key]}
    user = f"user:default/{on_call[0]}"
    entity["metadata"].setdefault("annotations", {})["example.com/on-call"] = user
    return {
        "entity": entity,
        "relations": [
            {"type": "onCall", "targetRef": user},
            {"sourceRef": user, "type": "onCallFor", "targetRef": question["entityRef"]},
        ],
        "refreshKeys": [key],
    }


async def serve(url, subject, rota_file):
    async def asked(message):
        try:
            with open(rota_file, encoding="utf-8") as file:
                said = answer(json.loads(message.data), json.load(file))
        except Exception as error:  # whatever it is, the entity shows it
            said = {"errors": [{"name": type(error).__name__, "message": str(error)}]}
        await message.respond(json.dumps(said).encode())

    client = await nats.connect(url, name="on-call", max_reconnect_attempts=-1)
    # The queue shares the questions among all who run this program.
    await client.subscribe(subject, queue="on-call", cb=asked)
    await client.flush()
    print(f"answering on {subject}", flush=True)
    stop = asyncio.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    await stop.wait()
    await client.drain()


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("usage: processor.py NATS_URL SUBJECT ROTA_FILE")
    asyncio.run(serve(*sys.argv[1:]))
