//! A reader without its server: the real follower and the real state, one message at a time, and watchers that come and go.

use crate::random::Random;
use crate::site::Site;
use api::ready::WatchEntitiesRequest;
use api::ready::watch_entities_response::Event;
use bus::{Bus, Followed, Follower, Stop};
use futures::StreamExt;
use reader::State;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Follows the entities until the stop, and looks at each step that no version goes back.
pub(crate) async fn follow(site: Arc<Site>, bus: Bus, state: State, stop: Stop) {
    let mut follower = Follower::new(&bus);
    let mut versions: BTreeMap<String, i64> = BTreeMap::new();
    loop {
        let followed = tokio::select! {
            biased;
            () = stop.stopped() => return,
            followed = follower.next() => followed,
        };
        let told = match &followed {
            Followed::Entity(entity) => Some(entity.entity_ref.clone()),
            _ => None,
        };
        state.apply(followed, follower.lag());
        state.reach(follower.sequence(), follower.stored());
        let Some(entity_ref) = told else { continue };
        if let Some(shown) = state.memory().by_ref(&entity_ref) {
            let known = versions.insert(entity_ref.clone(), shown.version()).unwrap_or(0);
            if shown.version() < known {
                site.violated(format!("I5: a reader shows {entity_ref} in version {} after {known}", shown.version()));
            }
        }
    }
}

/// The newest version of each entity that a watcher was told of, and whether it is there.
pub(crate) type Watched = BTreeMap<String, (i64, bool)>;

/// Watches whichever reader came up last, is cut off now and then, and resumes.
pub(crate) async fn watch(site: Arc<Site>) {
    let mut random = Random::new(site.seed, 3);
    let mut token = String::new();
    let mut seen = Watched::new();
    loop {
        tokio::time::sleep(Duration::from_millis(50 + random.below(400))).await;
        let Some(state) = site.newest_reader().filter(State::ready) else { continue };
        if token.is_empty() {
            seen.clear();
            site.watched(&seen);
        }
        let request = WatchEntitiesRequest { resume_token: token.clone(), ..WatchEntitiesRequest::default() };
        let Ok(events) = reader::watch_entities(&state, &request).await else {
            // Too old, of another stream, or ahead of this reader: a watcher begins anew.
            site.trace.note(format_args!("the watcher begins anew"));
            token.clear();
            continue;
        };
        // Not the token itself: the time of day is in it.
        site.trace
            .note(format_args!("the watcher {}", if token.is_empty() { "looks at everything" } else { "resumes" }));
        let mut events = std::pin::pin!(events);
        let mut left = if site.is_over() { u64::MAX } else { 1 + random.below(12) };
        while left > 0 {
            left -= 1;
            let patience = Duration::from_millis(200 + random.below(3000));
            let Ok(Some(Ok(event))) = tokio::time::timeout(patience, events.next()).await else { break };
            let told = match &event.event {
                Some(Event::Change(entity)) => entity.entity().ok().map(|entity| (entity.r#ref, true)),
                Some(Event::Deletion(deletion)) => Some((deletion.r#ref.clone(), false)),
                _ => None,
            };
            if let Some((entity_ref, is_there)) = told {
                site.trace.note(format_args!("the watcher is told of {entity_ref} in version {}", event.version));
                let known = seen.insert(entity_ref.clone(), (event.version, is_there));
                site.watched(&seen);
                if let Some((known, _)) = known.filter(|(known, _)| *known >= event.version) {
                    site.violated(format!(
                        "I5: a watcher is told of {entity_ref} in version {} after {known}",
                        event.version
                    ));
                }
            }
            if !event.resume_token.is_empty() {
                token = event.resume_token;
            }
        }
    }
}
