//! What emitted an entity, what emitted that, and so on: Backstage's ancestry.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
};

use api::{Error, ready as v1};
use v1::get_ancestry_response::Item;

use crate::{REPLY_LIMIT, get::parse_ref, memory::Stored, pace::Pace, state::State};

/// What an item costs in the reply beside its texts.
const FRAME_BYTES: usize = 16;

/// GetAncestry. A parent that is not shown is left out, with what is behind it, as in Backstage.
pub(crate) async fn get_ancestry(
    state: &State,
    request: &v1::GetAncestryRequest,
) -> Result<v1::GetAncestryResponse, Error> {
    let root_ref = parse_ref("ref", &request.r#ref)?;
    let root = state.memory().by_ref(&root_ref).ok_or_else(|| Error::NotFound { what: root_ref.clone() })?;
    let mut walk = Walk { seen: HashSet::new(), todo: VecDeque::new(), bytes: 0 };
    walk.find(root)?;
    let (mut items, mut pace) = (Vec::new(), Pace::new());
    while let Some(stored) = walk.todo.pop_front() {
        let mut parent_refs = Vec::new();
        for parent in stored.parents() {
            let Some(found) = state.memory().by_ref(&parent) else { continue };
            walk.spend(parent.len())?;
            walk.find(found)?;
            parent_refs.push(parent);
        }
        items.push(Item { entity: Some(stored.encoded()), parent_refs });
        pace.breathe().await;
    }
    Ok(v1::GetAncestryResponse { root_ref, items })
}

/// What was found, and what of it is to be answered still.
struct Walk {
    seen: HashSet<String>,
    todo: VecDeque<Arc<Stored>>,
    bytes: usize,
}

impl Walk {
    fn find(&mut self, stored: Arc<Stored>) -> Result<(), Error> {
        if self.seen.insert(stored.entity_ref().to_owned()) {
            self.spend(stored.message_length())?;
            self.todo.push_back(stored);
        }
        Ok(())
    }

    fn spend(&mut self, bytes: usize) -> Result<(), Error> {
        self.bytes += bytes + FRAME_BYTES;
        // The asked entity alone is answered however large it is.
        match self.bytes > REPLY_LIMIT && self.seen.len() > 1 {
            true => Err(Error::ReplyTooLarge { limit: REPLY_LIMIT }),
            false => Ok(()),
        }
    }
}
