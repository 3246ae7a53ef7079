//! The reader role: holds the stitched catalog in memory, follows its stream, serves it over gRPC.
