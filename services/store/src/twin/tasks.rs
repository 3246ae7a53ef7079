//! Leases on periodic tasks: `tasks.rs`, statement by statement.

use super::database::{Key, Moment, Task};
use super::{Store, micros, seconds};
use crate::Error;
use std::time::Duration;

impl Store {
    pub async fn take_task(
        &self,
        name: &str,
        host: &str,
        lease: Duration,
        ran: Option<Result<(), String>>,
    ) -> Result<Option<Option<Duration>>, Error> {
        let mut transaction = self.statement("take_task").await?;
        transaction.lock(Key::Task(name.to_owned())).await?;
        let taken = {
            let mut view = transaction.view();
            let (tid, now) = (view.tid, view.began());
            let (holder, held_until) = (Some(host.to_owned()), now.saturating_add(micros(lease)));
            let known = view.database.tasks.get(tid, &name.to_owned()).cloned();
            let task = match known {
                None => Some(Task { holder, held_until, last_run: None, last_error: None, runs: 0 }),
                Some(task) if task.held_until < now || task.holder == holder => Some(match ran {
                    None => Task { holder, held_until, ..task },
                    Some(ran) => {
                        let (last_run, last_error, runs) = (Some(now), ran.err(), task.runs + 1);
                        Task { holder, held_until, last_run, last_error, runs }
                    }
                }),
                Some(_) => None,
            };
            task.map(|task| {
                let since = task.last_run.map(|last_run| Duration::from_secs_f64(seconds(now - last_run).max(0.0)));
                view.database.tasks.put(tid, name.to_owned(), Some(task));
                since
            })
        };
        transaction.finish().await?;
        Ok(taken)
    }

    pub async fn drop_tasks(&self, host: &str) -> Result<(), Error> {
        let mut transaction = self.statement("drop_tasks").await?;
        let is_held = |task: &Task| task.holder.as_deref() == Some(host);
        let names: Vec<String> = {
            let view = transaction.view();
            view.database.tasks.all(view.tid).filter(|(_, task)| is_held(task)).map(|(name, _)| name.clone()).collect()
        };
        for name in names {
            transaction.lock(Key::Task(name.clone())).await?;
            let mut view = transaction.view();
            let tid = view.tid;
            if view.database.tasks.get(tid, &name).is_some_and(is_held) {
                view.database.tasks.change(tid, &name, |task| {
                    (task.holder, task.held_until) = (None, Moment::MIN);
                });
            }
        }
        transaction.finish().await
    }
}
