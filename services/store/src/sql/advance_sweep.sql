-- Notes how far a snapshot is swept. Called by the processor's commit, after its entities are locked. Index: primary key.
update snapshots set
  swept_through = greatest(swept_through, $3),
  withdrawn = withdrawn + $4,
  taken_until = now() + interval '10 seconds'
where provider = $1 and snapshot = $2
