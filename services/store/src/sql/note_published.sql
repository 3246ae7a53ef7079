-- Notes that an outbox row stands in the stitch stream. Called by the processor after the broker's confirmation.
update outbox set sequence = $2 where id = $1
