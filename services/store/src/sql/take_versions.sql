-- Takes versions for stitched entities. Called by the stitcher; never given back, so a version is used once.
select nextval('stitch_versions') from generate_series(1, $1)
