//! A watch sees each entity's versions in rising order, none twice, its newest in the end, however it lags, resumes or begins anew.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use api::{Error, v1};
use bus::{
    EntityMessage,
    Followed::{self, CaughtUp, Entity, Stream, StreamReplaced, Watermark},
};
use proptest::prelude::*;
use prost::{Message, bytes::Buf};
use serde_json::json;
use tonic::{Code, Status, Streaming, codec::CompressionEncoding};

use super::{Served, entity, message};
use crate::{
    selection::Selection,
    state::State,
    watch::{Begin, Event, Limits, Mark, Place, ResumeToken, Watcher},
};

const LIMITS: Limits = Limits { recent: 3, recent_bytes: 1 << 20, traces: 12, watchers: 100 };

#[derive(Clone, Debug)]
enum Step {
    /// An entity (of six) is published with this type; none: deleted.
    Publish(u8, Option<bool>),
    /// A watcher (of four) takes as many events.
    Take(u8, u8),
    /// A watcher takes as many times what it shares with those who stand where it does.
    Share(u8, u8),
    /// A watcher is cut and resumes where it stopped.
    Resume(u8),
}

/// What a client of a watch knows.
struct Client {
    watcher: Watcher,
    filter: Vec<String>,
    /// The newest version of each ref that was told, deletions too.
    versions: BTreeMap<String, i64>,
    /// What it takes the catalog to be: versions by ref.
    view: BTreeMap<String, i64>,
    /// Where it would resume, once it may.
    mark: Option<Mark>,
}

impl Client {
    async fn new(state: &State, filter: &[&str]) -> Client {
        let filter: Vec<String> = filter.iter().map(|text| text.to_string()).collect();
        let watcher = begin(state, &filter, Begin::AsItIs).await.expect("a watch begins");
        Client { watcher, filter, versions: BTreeMap::new(), view: BTreeMap::new(), mark: None }
    }

    /// Takes answers that are shared, if there are any now.
    fn share(&mut self) {
        let Some(mut answers) = self.watcher.shared_now() else { return };
        let fingerprint = Selection::parse(&self.filter, None).unwrap().fingerprint();
        while !answers.is_empty() {
            assert_eq!(answers.get_u8(), 0, "it is not compressed");
            let length = answers.get_u32() as usize;
            let answer = v1::WatchEntitiesResponse::decode(answers.split_to(length)).unwrap();
            let mark = ResumeToken::decode(&answer.resume_token, fingerprint, SystemTime::now()).unwrap().mark;
            let (entity_ref, is_there) = match answer.event {
                Some(v1::watch_entities_response::Event::Change(entity)) => (entity.r#ref, true),
                Some(v1::watch_entities_response::Event::Deletion(deletion)) => (deletion.r#ref, false),
                other => panic!("{other:?} is not shared"),
            };
            self.know(entity_ref, answer.version, is_there, Some(mark));
        }
        assert_eq!(self.mark.and(self.watcher.mark()), self.mark, "it stands where the last answer says");
    }

    /// Takes an event; false: there is none, or the watch was cut off and begun anew.
    async fn take(&mut self, state: &State) -> bool {
        match self.watcher.next_now() {
            Ok(Some(event)) => {
                self.hear(event);
                true
            }
            Ok(None) => false,
            Err(Error::TooSlow { .. }) => {
                self.begin_anew(state).await;
                false
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn hear(&mut self, event: Event) {
        let (entity_ref, version, is_there) = match event {
            Event::Bookmark(_) => {
                self.mark = self.watcher.mark();
                assert!(self.mark.is_some(), "a bookmark says where to resume");
                return;
            }
            Event::Change(told) => (told.entity_ref().to_owned(), told.version(), true),
            Event::Deletion(entity_ref, version) => (entity_ref.to_string(), version, false),
        };
        self.know(entity_ref, version, is_there, self.watcher.mark());
    }

    fn know(&mut self, entity_ref: String, version: i64, is_there: bool, mark: Option<Mark>) {
        let before = self.versions.insert(entity_ref.clone(), version);
        assert!(before.is_none_or(|before| before < version), "{entity_ref} {version} after {before:?}");
        match is_there {
            true => self.view.insert(entity_ref, version),
            false => self.view.remove(&entity_ref),
        };
        if self.mark.is_some() {
            assert_ne!(mark, self.mark, "after the first bookmark each event says where to resume");
            self.mark = mark;
        }
    }

    async fn resume(&mut self, state: &State) {
        let Some(mark) = self.mark else { return self.begin_anew(state).await };
        match begin(state, &self.filter, Begin::At(mark)).await {
            Ok(watcher) => self.watcher = watcher,
            Err(Error::TooOld { .. }) => self.begin_anew(state).await,
            Err(error) => panic!("{error}"),
        }
    }

    async fn begin_anew(&mut self, state: &State) {
        let filter: Vec<&str> = self.filter.iter().map(String::as_str).collect();
        *self = Client::new(state, &filter).await;
    }
}

async fn begin(state: &State, filter: &[String], begin: Begin) -> Result<Watcher, Error> {
    Watcher::begin(state, Selection::parse(filter, None)?, begin).await
}

fn published(of: u8, version: i64, is_service: Option<bool>) -> Followed {
    let spec = is_service.map(|is_service| json!({"type": if is_service { "service" } else { "website" }}));
    Entity(entity(&format!("component:default/e{of}"), version, spec))
}

async fn check(steps: &[Step]) {
    let state = State::with_limits(LIMITS);
    for told in [Stream(1), CaughtUp, Watermark(0)] {
        state.apply(told, 0);
    }
    let mut clients = Vec::new();
    for filter in [&[][..], &["spec.type=service"], &["metadata.name=e1,metadata.name=e2"], &[]] {
        clients.push(Client::new(&state, filter).await);
    }
    for (version, step) in (1..).zip(steps) {
        match *step {
            Step::Publish(of, is_service) => state.apply(published(of, version, is_service), 0),
            Step::Take(client, count) => {
                for _ in 0..count {
                    clients[usize::from(client)].take(&state).await;
                }
            }
            Step::Share(client, count) => (0..count).for_each(|_| clients[usize::from(client)].share()),
            Step::Resume(client) => clients[usize::from(client)].resume(&state).await,
        }
    }
    for client in &mut clients {
        // Cut off at most once more: nothing changes any more.
        for _ in 0..2 {
            while client.take(&state).await {}
        }
        let selection = Selection::parse(&client.filter, None).unwrap();
        let matching = state.memory().matching_after(selection.query(), "", usize::MAX).0;
        let expected: BTreeMap<String, i64> =
            matching.iter().map(|stored| (stored.entity_ref().to_owned(), stored.version())).collect();
        assert_eq!(client.view, expected, "{:?} after {steps:?}", client.filter);
    }
    drop(clients);
    assert_eq!(state.hub().counts().watchers, 0);
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..6_u8, prop::option::weighted(0.75, any::<bool>())).prop_map(|(of, spec)| Step::Publish(of, spec)),
        3 => (0..4_u8, 0..6_u8).prop_map(|(client, count)| Step::Take(client, count)),
        3 => (0..4_u8, 0..3_u8).prop_map(|(client, count)| Step::Share(client, count)),
        1 => (0..4_u8).prop_map(Step::Resume),
    ];
    prop::collection::vec(step, 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn a_watch_sees_rising_versions_and_the_newest_in_the_end(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(check(&steps));
    }
}

#[tokio::test]
async fn a_watch_that_lags_by_more_than_is_remembered_is_cut_off() {
    let state = State::with_limits(LIMITS);
    [Stream(1), CaughtUp, Watermark(0)].into_iter().for_each(|told| state.apply(told, 0));
    let mut slow = Client::new(&state, &[]).await;
    while slow.take(&state).await {}
    for version in 1..=20 {
        state.apply(published(1, version, Some(true)), 0);
    }
    assert!(matches!(slow.watcher.next_now(), Err(Error::TooSlow { behind: 20 })));
    let again = begin(&state, &[], Begin::At(slow.mark.unwrap())).await.map(drop);
    assert!(matches!(again, Err(Error::TooOld { .. })), "{again:?}");
    assert_eq!(state.hub().counts().cut_off, 1);
}

#[tokio::test]
async fn a_replaced_stream_that_takes_nothing_away_is_watched_on() {
    let state = State::default();
    let told = [Stream(1), published(1, 1, Some(true)), CaughtUp, Watermark(0)];
    told.into_iter().for_each(|told| state.apply(told, 0));
    let mut client = Client::new(&state, &[]).await;
    while client.take(&state).await {}
    let replay = [StreamReplaced, Stream(2), published(1, 1, Some(true)), published(2, 2, Some(true))];
    replay.into_iter().chain([CaughtUp, Watermark(3)]).for_each(|told| state.apply(told, 0));
    let told = client.watcher.next_now().unwrap();
    assert!(matches!(&told, Some(Event::Change(told)) if told.version() == 2), "{told:?}");
    state.hub().tick();
    let then = client.watcher.next_now();
    assert!(matches!(then, Ok(Some(Event::Bookmark(Some(3))) | None)), "it goes on: {then:?}");
}

#[tokio::test]
async fn a_token_is_good_for_the_stream_that_it_is_of_though_another_has_its_sequence() {
    let state = State::default();
    let at = |sequence: u64, seconds: u64| {
        let Entity(message) = published(sequence as u8, sequence as i64, Some(true)) else { unreachable!() };
        let published = UNIX_EPOCH + Duration::from_secs(seconds);
        Entity(EntityMessage { sequence, published, ..message })
    };
    for told in [Stream(7), at(1, 10), CaughtUp, Watermark(0), at(2, 20), at(3, 30)] {
        state.apply(told, 0);
    }
    let mark = |sequence, seconds: u64| {
        let place = Place { stream: 7, sequence, stored: seconds * 1_000_000_000 };
        Begin::At(Mark { place, merged: 0 })
    };
    let resumes = async |at: Begin| begin(&state, &[], at).await.map(drop);
    for (sequence, seconds) in [(1, 10), (2, 20), (3, 30)] {
        assert_eq!(resumes(mark(sequence, seconds)).await, Ok(()), "{sequence}");
    }
    // It went back to before the second message, and has grown to another second and third since.
    for told in [StreamReplaced, Stream(7), at(1, 10), CaughtUp, Watermark(9), at(2, 40), at(3, 50), at(4, 60)] {
        state.apply(told, 0);
    }
    for (sequence, seconds) in [(2, 20), (3, 30), (5, 31)] {
        let refused = resumes(mark(sequence, seconds)).await;
        assert!(matches!(refused, Err(Error::TooOld { .. })), "{sequence} at {seconds}: {refused:?}");
    }
    for (sequence, seconds) in [(2, 40), (3, 50), (4, 60)] {
        assert_eq!(resumes(mark(sequence, seconds)).await, Ok(()), "{sequence}");
    }
}

#[tokio::test]
async fn a_replaced_stream_takes_away_what_it_does_not_name() {
    let state = State::default();
    let told = [Stream(1), published(1, 1, Some(true)), published(2, 2, Some(true)), CaughtUp, Watermark(0)];
    told.into_iter().for_each(|told| state.apply(told, 0));
    let mut client = Client::new(&state, &[]).await;
    while client.take(&state).await {}
    let before = client.mark.unwrap();
    for told in [StreamReplaced, Stream(2), published(1, 1, Some(true)), published(3, 3, Some(true))] {
        state.apply(told, 0);
    }
    while let Some(event) = client.watcher.next_now().unwrap() {
        assert_eq!(client.watcher.mark(), Some(before), "nobody can resume in the middle of a replay: {event:?}");
    }
    [CaughtUp, Watermark(3)].into_iter().for_each(|told| state.apply(told, 0));
    let gone = client.watcher.next_now();
    assert!(matches!(gone, Err(Error::TooOld { .. })), "what is gone has no version to be told in: {gone:?}");
    let mut anew = Client::new(&state, &[]).await;
    while anew.take(&state).await {}
    assert_eq!(
        anew.view,
        BTreeMap::from([("component:default/e1".to_owned(), 1), ("component:default/e3".to_owned(), 3)])
    );
    state.apply(published(1, 5, Some(true)), 0);
    assert!(matches!(anew.watcher.next_now().unwrap(), Some(Event::Change(_))));
    assert_eq!(anew.watcher.mark().map(|mark| (mark.place.stream, mark.place.sequence)), Some((2, 5)));
    let again = begin(&state, &[], Begin::At(before)).await.map(drop);
    assert!(matches!(again, Err(Error::TooOld { .. })), "{again:?}");
}

const A: &str = "component:default/a";
const B: &str = "component:default/b";

async fn served(messages: impl IntoIterator<Item = bus::EntityMessage>) -> Served {
    let served = Served::start().await;
    served.state.apply(Stream(7), 0);
    served.tell(messages.into_iter().map(Entity));
    served.tell([CaughtUp, Watermark(0)]);
    served
}

async fn watch(
    served: &Served,
    filter: &[&str],
    resume_token: &str,
) -> Result<Streaming<v1::WatchEntitiesResponse>, Status> {
    let request = v1::WatchEntitiesRequest {
        filter: filter.iter().map(|text| text.to_string()).collect(),
        resume_token: resume_token.into(),
        ..Default::default()
    };
    Ok(served.client().watch_entities(request).await?.into_inner())
}

/// The next event in words, and where to resume.
async fn next(watch: &mut Streaming<v1::WatchEntitiesResponse>) -> (String, String) {
    use v1::watch_entities_response::Event;
    let event = tokio::time::timeout(Duration::from_secs(10), watch.message()).await.expect("within 10 s");
    let response = event.expect("the watch goes on").expect("the watch goes on");
    let words = match response.event.expect("an event") {
        Event::Change(entity) => format!("{}@{}", entity.r#ref, response.version),
        Event::Deletion(deletion) => format!("-{}@{}", deletion.r#ref, response.version),
        Event::Bookmark(bookmark) => format!("bookmark {}", bookmark.revision),
    };
    (words, response.resume_token)
}

fn of_type(entity_ref: &str, version: i64, of_type: &str) -> Followed {
    Entity(entity(entity_ref, version, Some(json!({"type": of_type}))))
}

#[tokio::test]
async fn a_watch_begins_with_what_is_and_goes_on_with_what_changes() {
    let served = served([message(B, 2, false), message(A, 1, false)]).await;
    let mut watched = watch(&served, &[], "").await.unwrap();
    assert_eq!(next(&mut watched).await, (format!("{A}@1"), String::new()));
    assert_eq!(next(&mut watched).await, (format!("{B}@2"), String::new()));
    let (bookmark, token) = next(&mut watched).await;
    assert_eq!(bookmark, "bookmark 0");
    served.tell([Entity(message(A, 3, false)), Entity(message(A, 3, false)), Entity(message(B, 4, true))]);
    let (changed, _) = next(&mut watched).await;
    assert_eq!(changed, format!("{A}@3"));
    let (gone, last) = next(&mut watched).await;
    assert_eq!(gone, format!("-{B}@4"));
    // A later revision is told by a bookmark, at most one a second.
    served.tell([Watermark(40)]);
    assert_eq!(next(&mut watched).await.0, "bookmark 40");

    // Another reader of the same stream knows the place.
    let messages = [message(B, 2, false), message(A, 3, false), message(B, 4, true), message(B, 5, false)];
    let other = self::served(messages).await;
    let mut resumed = watch(&other, &[], &token).await.unwrap();
    assert_eq!(next(&mut resumed).await.0, format!("{A}@3"));
    assert_eq!(next(&mut resumed).await.0, format!("{B}@5"));
    let mut resumed = watch(&other, &[], &last).await.unwrap();
    assert_eq!(next(&mut resumed).await.0, format!("{B}@5"));
}

#[tokio::test]
async fn who_takes_compressed_answers_is_told_the_same() {
    let served = served([message(A, 1, false)]).await;
    let mut watches = Vec::new();
    for client in [served.client(), served.client().accept_compressed(CompressionEncoding::Gzip)] {
        let answer = client.clone().watch_entities(v1::WatchEntitiesRequest::default()).await.unwrap();
        watches.push((answer.metadata().contains_key("grpc-encoding"), answer.into_inner()));
    }
    assert_eq!([watches[0].0, watches[1].0], [false, true]);
    served.tell([Entity(message(A, 2, false)), Entity(message(B, 3, true)), of_type(B, 4, "service")]);
    let mut told = Vec::new();
    for (_, watched) in &mut watches {
        let mut events = Vec::new();
        while events.last() != Some(&format!("{B}@4")) {
            events.push(next(watched).await.0);
        }
        told.push(events.into_iter().filter(|event| !event.starts_with("bookmark")).collect::<Vec<_>>());
    }
    // What changes while the first walks over what there is may be told as what is there.
    assert_eq!(told[0].last(), told[1].last());
    assert!(told.iter().all(|events| events.contains(&format!("{A}@2"))), "{told:?}");
}

#[tokio::test]
async fn entering_and_leaving_the_filter_is_change_and_deletion() {
    let served = served([]).await;
    let mut watched = watch(&served, &["spec.type=service"], "").await.unwrap();
    assert_eq!(next(&mut watched).await.0, "bookmark 0");
    served.tell([
        of_type(A, 1, "website"),
        of_type(A, 2, "service"),
        of_type(B, 3, "website"),
        of_type(A, 4, "website"),
        Entity(message(B, 5, true)),
        of_type(B, 6, "service"),
        Entity(message(B, 7, true)),
    ]);
    for expected in [format!("{A}@2"), format!("-{A}@4"), format!("{B}@6"), format!("-{B}@7")] {
        assert_eq!(next(&mut watched).await.0, expected);
    }
}

#[tokio::test]
async fn what_cannot_be_watched_is_refused() {
    let served = served([message(A, 1, false)]).await;
    let mut watched = watch(&served, &["kind=component"], "").await.unwrap();
    next(&mut watched).await;
    let (_, token) = next(&mut watched).await;
    let refused = |status: Status| (status.code(), api::field_violations(&status).pop().map(|(field, _)| field));
    let of_field = |field: &str| (Code::InvalidArgument, Some(field.to_owned()));
    assert_eq!(refused(watch(&served, &["=x"], "").await.unwrap_err()), of_field("filter"));
    assert_eq!(refused(watch(&served, &[], &token).await.unwrap_err()), of_field("resume_token"));
    assert_eq!(refused(watch(&served, &["kind=component"], "00").await.unwrap_err()), of_field("resume_token"));
    let both = v1::WatchEntitiesRequest { resume_token: token.clone(), changes_only: true, ..Default::default() };
    let status = served.client().watch_entities(both).await.unwrap_err();
    assert_eq!(refused(status), of_field("changes_only"));
    // The stream has been replaced.
    served.tell([StreamReplaced, Stream(8), Entity(message(A, 1, false)), CaughtUp, Watermark(1)]);
    let status = watch(&served, &["kind=component"], &token).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange);
    assert!(status.message().contains("watch again without a token"), "{status}");
}

#[tokio::test]
async fn only_changes_are_told_if_that_is_asked_for() {
    let served = served([message(A, 1, false)]).await;
    let request = v1::WatchEntitiesRequest { changes_only: true, ..Default::default() };
    let mut watched = served.client().watch_entities(request).await.unwrap().into_inner();
    assert_eq!(next(&mut watched).await.0, "bookmark 0");
    served.tell([Entity(message(B, 2, false))]);
    assert_eq!(next(&mut watched).await.0, format!("{B}@2"));
}

#[tokio::test]
async fn a_watch_ends_when_the_reader_stops() {
    let served = served([]).await;
    let mut watched = watch(&served, &[], "").await.unwrap();
    next(&mut watched).await;
    served.stopper.stop();
    let status = watched.message().await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(api::retry_after(&status).is_some());
    tokio::time::timeout(Duration::from_secs(10), served.server).await.expect("within 10 s").unwrap().unwrap();
}

/// A client that does not read holds its own stream up, and nobody else's; when it reads again it is told that it was too slow.
#[tokio::test]
async fn a_stalled_client_is_cut_off_and_costs_the_others_nothing() {
    let served = Served::serve(State::with_limits(Limits { traces: 400, recent: 50, ..LIMITS })).await;
    served.tell([Stream(1), CaughtUp, Watermark(0)]);
    let mut stalled = watch(&served, &[], "").await.unwrap();
    let mut other = watch(&served, &[], "").await.unwrap();
    next(&mut stalled).await;
    next(&mut other).await;
    let text = "x".repeat(10_000);
    for version in 1..=1500 {
        served.tell([Entity(entity(A, version, Some(json!({"text": text}))))]);
        let mut told = next(&mut other).await.0;
        // One comes now and then, however slow the machine is.
        while told.starts_with("bookmark") {
            told = next(&mut other).await.0;
        }
        assert_eq!(told, format!("{A}@{version}"));
    }
    let ended = loop {
        match stalled.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the watch ended without a reason"),
            Err(status) => break status,
        }
    };
    assert_eq!(ended.code(), Code::ResourceExhausted);
    assert!(ended.message().contains("too slow"), "{ended}");
}

#[tokio::test]
async fn what_the_reader_passed_over_is_told_to_who_knew_it() {
    let state = State::with_limits(Limits { recent: 100, ..LIMITS });
    let tell = |told: Followed, sequence: u64, lag: u64| {
        state.apply(told, lag);
        state.reach(sequence, sequence);
    };
    tell(Stream(1), 0, 0);
    tell(CaughtUp, 0, 0);
    tell(Watermark(0), 4, 0);
    // Another reader had told of e1 in sequence 5, which is replaced by 7 before this one comes to it.
    tell(published(2, 6, Some(true)), 6, 1);
    let place = Place { stream: 1, sequence: 5, stored: 5 };
    let filter = ["spec.type=service".to_owned()];
    let mut watcher = begin(&state, &filter, Begin::At(Mark { place, merged: 0 })).await.expect("it resumes");
    tell(published(1, 7, None), 7, 0);
    // Nobody knew this one: nothing was passed over any more.
    tell(published(3, 8, None), 8, 0);
    let mut told = Vec::new();
    while let Some(event) = watcher.next_now().expect("it goes on") {
        match event {
            Event::Change(told_of) => told.push((told_of.entity_ref().to_owned(), told_of.version(), true)),
            Event::Deletion(entity_ref, version) => told.push((entity_ref.to_string(), version, false)),
            Event::Bookmark(_) => break,
        }
    }
    let (e1, e2) = ("component:default/e1".to_owned(), "component:default/e2".to_owned());
    assert_eq!(told, [(e2, 6, true), (e1, 7, false)]);
}
