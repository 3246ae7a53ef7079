//! Seeds that were broken only as they ran after so many others. Alone in its file: nothing else may run in this process.

use sim::run_after;

/// By a connection that was made anew while a processor began; by a consumer that began behind what was settled in the stream before, in a
/// stream that had been made anew meanwhile; by the deletion of an entity that a reader had never shown, but the one before it.
#[test]
fn what_was_broken_once_after_others_holds() {
    for (seed, after) in [(501_037, 4), (705_067, 5_070), (711_769, 11_772)] {
        let outcome = run_after(seed, false, after);
        assert_eq!(outcome.after, after, "seed {seed}");
        assert_eq!(outcome.violations, Vec::<String>::new(), "seed {seed}");
    }
}
