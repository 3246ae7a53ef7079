-- What needs outside reads, what parent entities emit, and what of it is still to be looked after.

-- The newest event's content as it came: of claims that failed, and of claims that need outside reads, whether these succeeded or not.
alter table contents rename column failed to raw;

-- Revision of the entity's last emission; null: it never emitted anything.
alter table entities add column emitted bigint;
-- Since when nothing that is reached from a provider emits the entity (Backstage's orphan); null: something does.
alter table entities add column orphan_since timestamptz;
create index entities_orphans on entities (orphan_since) where orphan_since is not null;

-- The parent entity has stopped emitting it, and nobody else claimed it then: it stands as an orphan.
alter table claims add column released boolean not null default false;
-- The children of a parent entity. Providers' claims are not in it, so their writes do not pay for it.
create index claims_of_parents on claims (source) where source like 'entity:%';

-- Claims that need outside reads: a Location, placeholders. The row is the truth; a message in the reads stream is a hint that some row is due.
create table reads (
  entity_id bigint not null,
  source text collate "C" not null,
  -- Hash of the claim's content for which the row stands. Of another one, the claim needs no reads any more, and the row goes.
  hash text not null,
  -- Revision of the newest event that asks for the read: the claim's own, or a refresh.
  asked bigint not null,
  asked_at timestamptz not null default clock_timestamp(),
  -- fresh, bulk, or scheduled (nobody asked: it is time again).
  lane text not null,
  due_at timestamptz not null,
  -- Counts the readers that took the row; one that was replaced by a later one writes nothing any more.
  lease bigint not null default 0,
  leased_until timestamptz,
  -- What the last read of this content noted (etags, hashes), for the next one; null: it is read in full.
  notes text,
  -- Failed reads in a row.
  failures integer not null default 0,
  primary key (entity_id, source)
);
create index reads_due on reads (lane, due_at);
alter table reads set (autovacuum_vacuum_scale_factor = 0.05, fillfactor = 70);

-- What a successful read names as its outside sources: a refresh of the key reads again (Backstage's refresh keys).
create table refresh_keys (
  key text collate "C" not null,
  entity_id bigint not null,
  source text collate "C" not null,
  primary key (key, entity_id, source)
);
create index refresh_keys_claim on refresh_keys (entity_id, source);

-- Removals that are still on their way. The watermark stays below them.
create table cascade (
  entity_id bigint not null,
  -- children: the entity is gone, and what it emitted is to be withdrawn. held: it goes unless it is reached from a provider.
  -- orphan: the same, but it becomes an orphan.
  step text not null,
  -- Of what caused it.
  revision bigint not null,
  primary key (entity_id, step)
);
