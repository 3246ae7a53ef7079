-- How often a stream was found wiped or gone back. Called by the scheduler before it reads the watermark.
select resets from streams where name = $1
