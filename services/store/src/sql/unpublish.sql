-- Has every outbox row published again: the stream that held the requests is gone. Called at connect.
update outbox set sequence = null where sequence is not null
