//! Seeds that have to hold, and that each gives the same run whenever it is run.

use sim::run_seed;

#[test]
fn a_seed_gives_the_same_run_each_time() {
    for seed in [1, 2, 3, 8] {
        let (first, second) = (run_seed(seed, false), run_seed(seed, false));
        assert!(first.happenings > 100, "seed {seed}: something happens");
        assert_eq!(
            (first.trace_hash, first.happenings, first.events),
            (second.trace_hash, second.happenings, second.events),
            "seed {seed}: the same twice"
        );
    }
    assert_ne!(run_seed(1, false).trace_hash, run_seed(2, false).trace_hash, "another seed is another run");
}

#[test]
fn the_first_seeds_hold() {
    for seed in 1..=12 {
        let outcome = run_seed(seed, false);
        assert_eq!(outcome.violations, Vec::<String>::new(), "seed {seed}");
        assert!(outcome.events > 0, "seed {seed}: something was published");
    }
}

/// Each of these was broken once: by a floor that stood still behind a broker's loss, by stitched entities of which nobody knew whether they were published,
/// by rows that counted as published in a stream that was gone, by what was taken of such a stream, by a snapshot that was not swept yet; by a stream that
/// went back to before what had been published since anybody looked, by what was told to watchers of what it had lost and by where they resumed, by what a
/// deleted consumer had delivered; by claims that were forgotten while others told by them since when an entity was there, by outbox rows that were noted
/// late, by older messages that were adopted in a stream that had gone back, by a connection that was made anew while a processor began; by
/// acknowledgements of a processor that was about to end, in another stream than the one it had taken the messages of; by
/// requests of a stream that was deleted, published again as if they were new.
#[test]
fn what_was_broken_once_holds() {
    for seed in [
        10829, 11426, 11571, 12461, 13439, 14252, 14282, 14588, 15465, 16432, 16985, 30138, 460, 1204, 7512, 50374,
        51414, 53661, 60385, 102007, 112449, 1549, 223707, 224679, 209366, 214864, 218908, 206058, 221119, 415943,
        406774, 440098,
    ] {
        assert_eq!(run_seed(seed, false).violations, Vec::<String>::new(), "seed {seed}");
    }
}
