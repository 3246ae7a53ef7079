-- Gives a stream that was wiped or went back a new offset, above every revision known, for all that is stored after the last message
-- that was known. One process wins: the row must still be as it was compared. Called at connect. The newest 100 offsets are kept.
update streams set
  earlier_since = (earlier_since || offset_since)[greatest(cardinality(earlier_since) - 98, 1):],
  earlier_offsets = (earlier_offsets || revision_offset)[greatest(cardinality(earlier_offsets) - 98, 1):],
  revision_offset = greatest(
    revision_offset + last_sequence,
    (select revision from floor),
    (select coalesce(max(newest), 0) from claims)
  ),
  offset_since = greatest(offset_since, last_stored),
  created = $4,
  last_sequence = $5,
  last_stored = $6,
  published = 0,
  resets = resets + 1
where name = $1 and last_sequence = $2 and last_stored = $3
