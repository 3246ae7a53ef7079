-- Records the pipeline of a processor that starts; of another one than before, the walk over all claims begins. Called by the processor. One row.
insert into pipeline (fingerprint, walked_to) values ($1, 0)
on conflict (only_row) do update set fingerprint = excluded.fingerprint, walked_to = 0, leased_until = null
where pipeline.fingerprint <> excluded.fingerprint
