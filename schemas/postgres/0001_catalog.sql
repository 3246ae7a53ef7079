-- The truth: claims and what processing made of them, what is to be stitched, how far everything is.
-- Each installation has a schema of its own; names here are bare and found by search_path.

-- How far the event stream is settled: the highest revision up to which every event is applied, superseded or a dead
-- letter, and acknowledged. Never lowered. One row.
create table floor (
  only_row boolean primary key default true check (only_row),
  revision bigint not null default 0,
  -- Claims withdrawn at or below this are forgotten: the floor as it stood at least a minute ago.
  forget_through bigint not null default 0,
  -- The floor as it stood at that moment; becomes forget_through a minute later.
  noted bigint not null default 0,
  noted_at timestamptz not null default now()
);
insert into floor default values;

-- Each stream as it was last seen, and the offset that turns its sequences into revisions. A stream that is missing,
-- shorter, or holds another message at that sequence was wiped or went back: it gets a new offset, above every revision known.
create table streams (
  name text primary key,
  revision_offset bigint not null default 0,
  -- Messages stored after this moment (by the broker's clock, in nanoseconds since 1970) have the new offset.
  offset_since bigint not null default 0,
  previous_offset bigint not null default 0,
  created bigint not null,
  last_sequence bigint not null,
  last_stored bigint not null
);

-- Every ref that anyone named, present or not: refs are long and numbers are short. Locked before anything of the entity changes.
create table entities (
  id bigint generated always as identity primary key,
  ref text collate "C" not null unique,
  -- The revision with which the present incarnation began, and the same as far as settled events tell; null: not present.
  born bigint,
  settled_born bigint,
  -- The source whose claim is shown.
  winner text,
  -- Revision of the event that last changed what is shown.
  revision bigint not null default 0
) with (fillfactor = 80);

-- One row a source's claim; narrow, since an event that changes nothing still moves it on.
create table claims (
  entity_id bigint not null,
  source text collate "C" not null,
  -- The newest event, and whether it claims (or withdraws).
  newest bigint not null,
  present boolean not null,
  location_key text,
  -- Hash of the newest event's entity as it came.
  hash text,
  -- The settled result and the events above the floor, as catalog::claims folds them.
  fold json not null,
  primary key (entity_id, source)
) with (fillfactor = 70);
create index claims_withdrawn on claims (newest) where not present;

-- What processing gave for a claim; wide, and written only when it changes.
create table contents (
  entity_id bigint not null,
  source text collate "C" not null,
  -- The newest good content, processed, with the entity's own relations; null: none since the last withdrawal.
  body bytea,
  -- The newest event's content as it came, and why its processing failed; null: it did not.
  failed bytea,
  error json,
  primary key (entity_id, source)
);
create index contents_failed on contents (entity_id) where error is not null;

-- What an entity says of others: on the subject's stitched form stands (type, target_ref). What it says of itself stands in its body.
create table relations (
  subject_id bigint not null,
  originator_id bigint not null,
  type text collate "C" not null,
  target_ref text collate "C" not null
);
create index relations_subject on relations (subject_id);
create index relations_originator on relations (originator_id);

-- How each ref was last stitched. Only stitchers lock these; processors insert them with the ref.
create table stitch_states (
  entity_id bigint primary key,
  -- The version and the stream sequence of the newest message; 0: none was published.
  version bigint not null default 0,
  sequence bigint not null default 0,
  -- Hash of what was published; null: a deletion, or nothing.
  hash text,
  -- The snapshot before what was stitched was read (pg_current_snapshot()): every transaction in it is in what was stitched.
  seen text,
  -- Not stitched again before this moment: an expensive entity costs a bounded share.
  not_before timestamptz
) with (fillfactor = 60);
create sequence stitch_versions;

-- What committed batches ask to be stitched: published after the commit, kept until the stitchers have acknowledged it.
create table outbox (
  id bigint generated always as identity primary key,
  lane text not null,
  -- The lowest revision of the batch.
  revision bigint not null,
  transaction bigint not null default pg_current_xact_id()::text::bigint,
  entity_ids bigint[] not null,
  asked_at timestamptz not null default clock_timestamp(),
  -- Sequence of its last message in the stitch stream; null: not known to be published.
  sequence bigint
);

-- Periodic tasks: one run at a time in the whole installation, taken over when its host is silent.
create table tasks (
  name text primary key,
  holder text,
  held_until timestamptz not null default '-infinity',
  last_run timestamptz,
  last_error text,
  runs bigint not null default 0
);

-- Rows come and go quickly in these: keep them short.
alter table outbox set (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, fillfactor = 70);
alter table stitch_states set (autovacuum_vacuum_scale_factor = 0.05);
alter table claims set (autovacuum_vacuum_scale_factor = 0.05);
