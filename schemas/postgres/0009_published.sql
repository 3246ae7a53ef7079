-- The highest sequence under which something was published into a stream since it was last found wiped or gone back: a stream that is shorter
-- has gone back, also where nobody had looked at it since. The highest number there is: it is known to have gone back.
alter table streams add column published bigint not null default 0;
