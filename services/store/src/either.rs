//! `Store`, `Merge` and `Stitching` as the roles name them in a build with the twin: over PostgreSQL, or over the twin. Everything is passed on.

mod merge;
mod stitching;
mod store;
mod upkeep;

use crate::{Error, Options, StitchState, connect, twin};

/// The truth of one installation. Clones share its connections.
#[derive(Clone, Debug)]
pub struct Store {
    truth: Truth,
}

#[derive(Clone, Debug)]
enum Truth {
    Postgres(connect::Store),
    Twin(twin::Store),
}

/// The processor's transaction. Dropped without [`Merge::commit`], it has done nothing.
#[allow(clippy::large_enum_variant, reason = "there are few, and they do not wait")]
pub enum Merge {
    /// In PostgreSQL.
    Postgres(crate::merge::Merge),
    /// In the twin.
    Twin(twin::Merge),
}

/// The stitcher's transaction. Dropped without [`Stitching::commit`], it has done nothing.
pub struct Stitching {
    work: Work,
    /// The locked states, by entity; what another stitcher holds is missing.
    pub states: Vec<StitchState>,
}

enum Work {
    Postgres(crate::stitch::Stitching),
    Twin(twin::Stitching),
}

impl Store {
    /// Connects to PostgreSQL, and brings the schema up to date. One try.
    ///
    /// # Errors
    /// [`Error::Unusable`] for a wrong address, refused credentials or a PostgreSQL older than 14; [`Error::Away`] if nobody answers.
    pub async fn connect(options: &Options) -> Result<Store, Error> {
        Ok(Store { truth: Truth::Postgres(connect::Store::connect(options).await?) })
    }

    /// PostgreSQL, if it is that.
    #[cfg(test)]
    pub(crate) fn pool(&self) -> Option<&sqlx::PgPool> {
        match &self.truth {
            Truth::Postgres(truth) => Some(&truth.pool),
            Truth::Twin(_) => None,
        }
    }
}

impl From<twin::Store> for Store {
    fn from(truth: twin::Store) -> Store {
        Store { truth: Truth::Twin(truth) }
    }
}

impl Stitching {
    fn postgres(mut work: crate::stitch::Stitching) -> Stitching {
        Stitching { states: std::mem::take(&mut work.states), work: Work::Postgres(work) }
    }

    fn twin(mut work: twin::Stitching) -> Stitching {
        Stitching { states: std::mem::take(&mut work.states), work: Work::Twin(work) }
    }
}
