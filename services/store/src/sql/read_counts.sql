-- How much there is. Called by the operator's status.
select
  (select count(*) from entities where winner is not null) as entities,
  (select count(*) from contents where error is not null) as failed,
  (select count(*) from outbox) as outbox,
  (select count(*) from reads where due_at <= clock_timestamp()) as reads,
  (select count(*) from cascade) as removals,
  (select count(*) from entities where orphan_since is not null) as orphans
