//! The stitcher role: takes stitch requests, builds final entities, publishes them.
