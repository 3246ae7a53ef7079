-- Removes contents of withdrawn claims. Called by the processor's commit.
-- Index: primary key.
delete from contents
using unnest($1::bigint[], $2::text[]) as gone (entity_id, source)
where contents.entity_id = gone.entity_id and contents.source = gone.source
