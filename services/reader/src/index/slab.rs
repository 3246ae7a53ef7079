//! Things under numbers that are used again after they were removed.

use std::ops::{Index, IndexMut};

/// Things of one type, by number. A place that is free holds the type's default.
#[derive(Clone, Debug, Default)]
pub struct Slab<T> {
    places: Vec<T>,
    free: Vec<u32>,
}

impl<T: Default> Slab<T> {
    /// Keeps a thing; its number is the last that was freed, or a new one.
    pub fn insert(&mut self, thing: T) -> u32 {
        match self.free.pop() {
            Some(id) => {
                self.places[id as usize] = thing;
                id
            }
            None => {
                self.places.push(thing);
                (self.places.len() - 1) as u32
            }
        }
    }

    /// Takes a thing out, which must be there.
    pub fn remove(&mut self, id: u32) -> T {
        self.free.push(id);
        std::mem::take(&mut self.places[id as usize])
    }

    /// Every place with its number, free ones too.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.places.iter().enumerate().map(|(id, thing)| (id as u32, thing))
    }

    /// Numbers are below this.
    pub fn places(&self) -> usize {
        self.places.len()
    }
}

impl<T> Index<u32> for Slab<T> {
    type Output = T;

    fn index(&self, id: u32) -> &T {
        &self.places[id as usize]
    }
}

impl<T> IndexMut<u32> for Slab<T> {
    fn index_mut(&mut self, id: u32) -> &mut T {
        &mut self.places[id as usize]
    }
}
