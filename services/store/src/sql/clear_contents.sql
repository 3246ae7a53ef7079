-- Removes contents of withdrawn claims, and good contents that a withdrawal in between has ended. Called by the processor's commit.
-- Runs before write_contents.sql. Index: primary key.
delete from contents
using unnest($1::bigint[], $2::text[]) as gone (entity_id, source)
where contents.entity_id = gone.entity_id and contents.source = gone.source
