//! Forgetting claims that were withdrawn long enough ago.

use crate::Error;
use crate::task::Task;
use store::Store;

/// Claims forgotten in one statement.
const AT_ONCE: i64 = 2000;

pub(crate) struct Forget {
    store: Store,
}

impl Forget {
    pub fn new(store: &Store) -> Self {
        Forget { store: store.clone() }
    }
}

impl Task for Forget {
    async fn run(&mut self) -> Result<(), Error> {
        // The mark of a minute ago moves on only when somebody looks.
        let floor = self.store.floor().await?;
        self.store.raise_floor(floor).await?;
        self.store.forget_snapshots().await?;
        while self.store.forget_claims(AT_ONCE).await? == AT_ONCE as u64 {}
        Ok(())
    }
}
