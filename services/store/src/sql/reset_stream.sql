-- Gives a stream that was wiped or went back a new offset, above every revision known. One process wins: the row must still be
-- as it was compared. Called at connect.
update streams set
  previous_offset = revision_offset,
  revision_offset = greatest(
    revision_offset + last_sequence,
    (select revision from floor),
    (select coalesce(max(newest), 0) from claims)
  ),
  offset_since = greatest(last_stored, $6),
  created = $4,
  last_sequence = $5,
  last_stored = $6
where name = $1 and last_sequence = $2 and last_stored = $3
