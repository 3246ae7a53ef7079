-- Asks for stitching where no event did. Called by repair. $3: the transaction that made it necessary; 0: stitch whatever was stitched before.
insert into outbox (lane, revision, transaction, entity_ids) values ('bulk', $1, $3, $2)
