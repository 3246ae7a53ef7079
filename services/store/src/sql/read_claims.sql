-- All claims on the locked entities. Called by the processor's commit after lock_entities.sql. Index: primary key.
select entity_id, source, hash, fold::text from claims where entity_id = any($1::bigint[])
