-- Snapshots: what a provider sends as all that it has (Backstage's full mutation), while it comes in and until it is swept.

create table snapshots (
  provider text collate "C" not null,
  -- The id that the provider has given it.
  snapshot text collate "C" not null,
  -- open: not complete yet. sweeping: what it left out is being withdrawn. held: an operator is to say. done, discarded, timed_out: over.
  state text not null default 'open',
  -- Why it is held, or what came of it.
  reason text,
  -- The lowest revision of its parts and of the event that ends it.
  begun bigint not null,
  -- Revision of the event that ends it, and how many parts it names; null: it has not come yet.
  ended bigint,
  count bigint,
  -- The highest revision of its parts and of the event that ends it, once it is complete: as of this its withdrawals count.
  swept_at bigint,
  -- Number of the last entity that was looked at, and how many claims were withdrawn.
  swept_through bigint not null default 0,
  withdrawn bigint not null default 0,
  -- The processor that sweeps it has it until then.
  taken_until timestamptz not null default '-infinity',
  began_at timestamptz not null default now(),
  closed_at timestamptz,
  primary key (provider, snapshot)
);
-- What came before these may still be withdrawn: neither the watermark nor what is settled goes beyond.
create index snapshots_unswept on snapshots (begun) where state in ('open', 'sweeping');

-- The parts that were counted: a row a batch and snapshot, so that batches do not wait for one another; a row a part where it was refused.
create table snapshot_parts (
  provider text collate "C" not null,
  snapshot text collate "C" not null,
  -- The lowest and the highest revision of these parts. A revision is counted once.
  first bigint not null,
  highest bigint not null,
  parts bigint not null,
  refused boolean not null default false,
  noted_at timestamptz not null default now(),
  primary key (provider, snapshot, first)
);
