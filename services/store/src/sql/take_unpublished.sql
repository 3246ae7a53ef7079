-- Outbox rows that nobody published within seconds: whoever asked died in between. Called by any processor's relay.
-- Rows that another relay holds are passed over.
select id, lane, revision, transaction, entity_ids, (extract(epoch from asked_at) * 1000)::bigint
from outbox
where sequence is null and asked_at < clock_timestamp() - interval '3 seconds'
order by id
limit 100
for update skip locked
