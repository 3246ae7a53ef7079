-- Lifts the versions above one that was seen in the stream. Called by the stitcher where the truth is older than the stream.
select setval('stitch_versions', greatest($1, (select last_value from stitch_versions)))
