-- What the batch asks to be stitched. Called last by the processor's commit.
insert into outbox (lane, revision, entity_ids) values ($1, $2, $3)
returning id, transaction, (extract(epoch from asked_at) * 1000)::bigint
