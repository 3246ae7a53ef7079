-- Forgets what entities were stitched to, so that they are published again whatever the stream holds. The rows are locked, in order.
update stitch_states set
  hash = case when version > 0 then '' end,
  seen = null,
  not_before = null
where entity_id = any($1::bigint[])
