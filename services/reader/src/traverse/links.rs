//! Where a node's relations lead, as its rows in the index tell it: no entity is unpacked for that.

use std::{ops::Range, sync::Arc};

use super::{Node, Walk, is_asked, meet};
use crate::memory::{Place, Stored, read};

/// A relation of a node: its type among those that were met, and what it leads to.
pub(super) struct Link {
    pub of_type: usize,
    pub target: u64,
    pub to: Target,
}

pub(super) enum Target {
    /// A node.
    Node(usize),
    /// An entity that is none yet: where it and its ref stand.
    New(Place, Range<usize>),
    /// There is no room for another node, so it was not looked up.
    NoRoom,
}

impl Walk<'_> {
    /// The types and targets of a node's relations of the types asked for, as its rows tell them; none: they do not tell all.
    pub(super) fn told(&mut self, at: usize) -> Option<Vec<(usize, u64)>> {
        let Node { place, entity_ref, .. } = &self.nodes[at];
        let place = (*place)?;
        let segment = self.state.memory().segment(place.segment());
        let segment = read(&segment);
        // Its place may have become another's.
        segment.stored(place.doc()).filter(|stored| stored.is(&self.texts[entity_ref.clone()]))?;
        let (types, met) = (&self.types, &mut self.met);
        let numbers = self.numbers.entry(place.segment()).or_default();
        let new = segment.relation_types().iter().skip(numbers.len());
        numbers.extend(new.map(|(_, name)| is_asked(types, name).then(|| meet(met, name))));
        let mut told = Vec::new();
        let are_all = segment.for_each_relation(place.doc(), |number, target| {
            if let Some(of_type) = numbers.get(usize::from(number)).copied().flatten() {
                told.push((of_type, target));
            }
        });
        are_all.then_some(told)
    }

    /// What relations lead to, in the order in which entities have them; none: to an entity that is not there, whose ref stands in the source alone.
    pub(super) fn look_up(&mut self, told: Vec<(usize, u64)>) -> Option<Vec<Link>> {
        let memory = self.state.memory();
        let link = |(of_type, target)| {
            let to = match self.place(target) {
                Some(other) => Target::Node(other),
                // Nobody needs to look up what there is no room for.
                None if self.nodes.len() == self.limit => Target::NoRoom,
                None => {
                    let text = |place, stored: &Arc<Stored>| Target::New(place, self.text(stored.entity_ref()));
                    memory.by_hash(target, text)?
                }
            };
            Some(Link { of_type, target, to })
        };
        let mut links: Vec<Link> = told.into_iter().map(link).collect::<Option<_>>()?;
        links.sort_unstable_by(|one, other| self.order(one).cmp(&self.order(other)));
        Some(links)
    }

    /// A relation's type and target, by which they are sorted.
    fn order(&self, link: &Link) -> (&str, &str) {
        let entity_ref = match &link.to {
            Target::Node(node) => self.ref_of(*node),
            Target::New(_, entity_ref) => &self.texts[entity_ref.clone()],
            Target::NoRoom => "",
        };
        (&self.met[link.of_type], entity_ref)
    }
}
