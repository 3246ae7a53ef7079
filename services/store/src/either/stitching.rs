//! The methods of the stitcher's transaction, each passed on.

use super::{Stitching, Work};
use crate::{Error, Incoming, Shown, StateWrite};

impl Stitching {
    pub async fn read_shown(&mut self, entity_ids: &[i64]) -> Result<Vec<Shown>, Error> {
        match &mut self.work {
            Work::Postgres(work) => work.read_shown(entity_ids).await,
            Work::Twin(work) => work.read_shown(entity_ids).await,
        }
    }

    pub async fn read_incoming(&mut self, entity_ids: &[i64]) -> Result<Vec<Incoming>, Error> {
        match &mut self.work {
            Work::Postgres(work) => work.read_incoming(entity_ids).await,
            Work::Twin(work) => work.read_incoming(entity_ids).await,
        }
    }

    pub async fn take_versions(&mut self, count: usize) -> Result<Vec<i64>, Error> {
        match &mut self.work {
            Work::Postgres(work) => work.take_versions(count).await,
            Work::Twin(work) => work.take_versions(count).await,
        }
    }

    pub async fn raise_versions(&mut self, above: i64) -> Result<(), Error> {
        match &mut self.work {
            Work::Postgres(work) => work.raise_versions(above).await,
            Work::Twin(work) => work.raise_versions(above).await,
        }
    }

    pub async fn commit(self, written: &[StateWrite]) -> Result<(), Error> {
        match self.work {
            Work::Postgres(work) => work.commit(written).await,
            Work::Twin(work) => work.commit(written).await,
        }
    }
}
