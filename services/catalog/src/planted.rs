//! Bugs planted on purpose, to see that the harness catches each: only in a build with the feature `planted`, one at a time, named by
//! `CALLBOARD_PLANTED`. In every other build [`is`] is a constant `false`, and nothing of them is left.

/// Every bug that can be planted, with what is wrong then.
pub const BUGS: [(&str, &str); 14] = [
    ("ack-before-commit", "a message is acknowledged before what it causes is durable"),
    ("floor-ignored", "an event at or below the floor takes effect again"),
    ("outbox-not-written", "a commit in eight asks for no stitching"),
    ("no-expected-sequence", "a stitcher publishes whatever the newest message of the subject is"),
    ("old-relations", "what an entity said of others before is not stitched again"),
    ("tombstone-forgotten", "a withdrawn claim is forgotten above the floor"),
    ("sweep-early", "a snapshot sweeps before the floor has passed its parts"),
    ("lock-order", "entities are locked in the opposite order by every second batch"),
    ("resume-off-by-one", "a watch resumes one change too late"),
    ("poison-silent", "a message that can never be handled is acknowledged without a dead letter"),
    ("merge-by-arrival", "a source's events count in the order in which they arrive"),
    ("purge-before-floor", "events are purged before the floor is recorded"),
    ("outbox-dropped", "an outbox row goes when it is published, not when the stitchers have acknowledged it"),
    ("version-given-back", "a version that was not committed is used again"),
];

/// Whether this bug is planted in this process.
#[cfg(feature = "planted")]
pub fn is(bug: &str) -> bool {
    static CHOSEN: std::sync::LazyLock<Option<String>> =
        std::sync::LazyLock::new(|| std::env::var("CALLBOARD_PLANTED").ok());
    CHOSEN.as_deref() == Some(bug)
}

/// Whether this bug is planted in this process: none is, in this build.
#[cfg(not(feature = "planted"))]
#[inline(always)]
pub const fn is(_bug: &str) -> bool {
    false
}
