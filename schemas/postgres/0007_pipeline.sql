-- The pipeline (kinds, formats, rules, processors) under which claims are processed: that of the processor that was started last with another one than
-- before. What was processed under an earlier one is processed again, in the order of the entities. One row, none before the first processor.
create table pipeline (
  only_row boolean primary key default true check (only_row),
  fingerprint text not null,
  -- The entity up to which claims are processed again; null: all are.
  walked_to bigint,
  -- Whoever takes the next step holds it until then.
  leased_until timestamptz
);
