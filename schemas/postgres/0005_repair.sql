-- What a broker lost, and what is repaired of it.

-- Every offset that a stream had: messages stored after earlier_since[i] (and not after a later one) have earlier_offsets[i].
alter table streams add column earlier_since bigint[] not null default '{}';
alter table streams add column earlier_offsets bigint[] not null default '{}';
update streams set earlier_since = '{0}', earlier_offsets = array[previous_offset] where offset_since > 0;
alter table streams drop column previous_offset;
-- How often it was found wiped or gone back.
alter table streams add column resets bigint not null default 0;

-- What was found missing, for operators: a stream that was wiped or went back.
create table gaps (
  id bigint generated always as identity primary key,
  stream text not null,
  found_at timestamptz not null default clock_timestamp(),
  -- The last sequence that was known, and the one that was found; 0: the stream was missing.
  known_sequence bigint not null,
  found_sequence bigint not null,
  -- Events that were known to be accepted and were not settled; 0 for streams that are rebuilt.
  lost_at_most bigint not null
);

-- How far repair is. One row.
create table repair (
  only_row boolean primary key default true check (only_row),
  -- Every entity up to this one was asked to be published again; null: no rebuild is going on.
  rebuild_after bigint,
  -- The checker's place: every entity up to this one was compared in this round.
  checked_after bigint not null default 0,
  rounds bigint not null default 0,
  -- Entities whose newest message was not what the truth says, since the installation began.
  mended bigint not null default 0
);
insert into repair default values;
