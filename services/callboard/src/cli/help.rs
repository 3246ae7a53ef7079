//! What `callboard help` says below each command: examples, and what is to be known.

pub(super) const TOUR: &str = "Two minutes:
  callboard demo                                 everything below with an example catalog, in one go
  callboard up                                   broker, database and every role in one process, data in .callboard
  callboard publish catalog-info.yaml --wait     check and publish entities; directories and - (stdin) work too
  callboard list --filter kind=component         what there is
  callboard get component:default/web            one entity, stitched, with its relations
  callboard status                               how much there is, how much waits, and what is wrong
  callboard errors                               entities whose newest content failed

`callboard help COMMAND` shows a command's examples and every setting. A setting is a flag, an environment variable and a key of a
file: --nats-url is CALLBOARD_NATS_URL is nats_url.";

pub(super) const UP: &str = "Examples:
  callboard up                                        with servers and data in .callboard
  callboard up --grpc-listen 127.0.0.1:0 --http-listen 127.0.0.1:0
  callboard up --nats-url nats://broker:4222 --database-url postgres://callboard:…@db/callboard

While it runs, `callboard status`, `callboard list` and the others in the same directory find it by themselves.
Ctrl-C (SIGINT) or SIGTERM finishes what is in hand, within 10 s; a second one ends it at once.";

pub(super) const DEMO: &str = "Examples:
  callboard demo                     until Ctrl-C, with servers and data in .callboard
  callboard demo --once --fresh      from nothing to the first answer, and out

Needs nothing installed: a broker and a database that are not there are fetched once. Ports that are in use are replaced by free ones.
While it runs, `callboard list`, `callboard get`, `callboard status` in the same directory find it by themselves.";

pub(super) const ROLE: &str = "Examples:
  CALLBOARD_NATS_URL=nats://broker:4222 CALLBOARD_DATABASE_URL=postgres://callboard:…@db/callboard callboard processor
  callboard reader --nats-url nats://broker:4222 --grpc-listen 0.0.0.0:7070

A role waits for a broker or a database that is away, at its start too. SIGTERM finishes or gives back what it holds, within 10 s.";

pub(super) const PUBLISH: &str = "Examples:
  callboard publish catalog-info.yaml
  callboard publish services/ --provider monorepo --wait
  callboard publish services/ --check            checks by the rules of processing, and publishes nothing
  callboard publish services/ --provider monorepo --snapshot   and withdraws what the provider has published before and has no more
  callboard publish web.yaml --expected-revision 1234    only if nobody has changed it since
  generate-entities | callboard publish -

A document that breaks a rule is told with file, line and field; the others are published all the same, and the exit code is 1.
Up to 50 entities go as upserts; more go as imports, which wait behind every fresh change.";

pub(super) const REMOVE: &str = "Examples:
  callboard remove location:default/old-repo            its claims go, and what only it emitted after it
  callboard remove component:default/web --wait         until no reader shows it any more, or it is there again as a new one

A provider's claim comes back when the provider publishes it again. An entity that a Location still emits comes back as soon as that is read again,
which is at once, with a new uid. To withdraw one provider's claim only, use `callboard delete`.";

pub(super) const DELETE: &str = "Examples:
  callboard delete component:default/web
  callboard delete component:web api:web-api --provider monorepo --wait

Only the provider's own claims are withdrawn: where another source claims the entity, that one takes over.";

pub(super) const GET: &str = "Examples:
  callboard get component:default/web
  callboard get component:web --output json | jq .relations
  callboard get component:web --at-least-revision 1234";

pub(super) const LIST: &str = "Examples:
  callboard list
  callboard list --filter kind=component,spec.type=service --filter kind=api
  callboard list --filter relations.ownedBy=group:default/team-a
  callboard list --output json | jq -r .metadata.uid";

pub(super) const STATUS: &str = "Examples:
  callboard status
  callboard status --output json | jq '.consumers[] | select(.pending > 0)'
  callboard status --http-url http://processor-1:7071      the queue delays of that process";

pub(super) const WATCH: &str = "Examples:
  callboard watch --filter kind=component
  callboard watch --all --output json > entities.jsonl          what there is, then what changes
  callboard watch --resume \"$(tail -1 entities.jsonl | jq -r .resume)\" --output json >> entities.jsonl

It goes on across readers that restart. A token is good for six days; one that is too old ends it, with what to do.";

pub(super) const SNAPSHOTS: &str = "Examples:
  callboard snapshots
  callboard snapshots approve 2026-07-01T06:00:00Z
  callboard snapshots discard 2026-07-01T06:00:00Z --provider monorepo
  callboard snapshots --output json | jq 'select(.state == \"held\")'

Needs the database. A snapshot with a refused part, or one that would withdraw more than --snapshot-max-removal of its provider's claims,
withdraws nothing: it is held until an operator approves or discards it. One that is not complete in time (timed_out) withdraws nothing.";

pub(super) const CONFLICTS: &str = "Examples:
  callboard conflicts
  callboard conflicts --output json | jq -r '.loses.source' | sort | uniq -c

Needs the database. Who was first with a location key keeps the entity; the others take over when it withdraws.";

pub(super) const ERRORS: &str = "Examples:
  callboard errors
  callboard errors --output json | jq -r '.ref + \": \" + .error.message'

Needs the database. SHOWN says whether readers show an earlier, good version meanwhile.";

pub(super) const DEAD_LETTERS: &str = "Examples:
  callboard dead-letters --limit 10
  callboard dead-letters list --provider monorepo --reason metadata.name
  callboard dead-letters --output json | jq -r .payload    the originals
  callboard dead-letters show 17
  callboard dead-letters replay 17 18                      needs the database
  callboard dead-letters drop --provider monorepo --limit 1000

A dead letter could not be a claim on an entity (no JSON, no kind or name, over a limit, unknown operation), or failed five times
alone. Its provider has to mend and publish it again.";

pub(super) const VERIFY: &str = "Examples:
  callboard verify
  callboard verify --output json | jq -r .ref
  callboard verify --grpc-url http://reader-2:7070      another reader

What the database makes of each entity is built anew and compared, by its hash, with the newest message of the entity stream and with what
the reader shows. What differs is looked at three more times, a second apart, since a running installation changes meanwhile.
Exit code 1 if anything differs then.";

pub(super) const REBUILD: &str = "Examples:
  callboard rebuild --wait

Streams that are missing are made anew by any processor within ten seconds. A rebuild begins by itself when the entity stream was wiped or
went back; by hand it is needed only where somebody has changed what stands in it. Readers serve what they have meanwhile.";
