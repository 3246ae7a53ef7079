//! The processor role: takes entity events, merges claims, asks for stitching.
