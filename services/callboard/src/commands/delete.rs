//! `callboard delete`: withdraws a provider's claims on refs.

use super::publish::{count, revisions, show, tell_when_readable};
use crate::cli::DeleteArgs;
use crate::config::Config;
use crate::failure::{Failure, tell};
use crate::{operator, publishing};
use catalog::entity_ref::EntityRef;

/// Publishes the deletions.
///
/// # Errors
/// [`Failure::Usage`] for what is no ref; then nothing is deleted.
pub fn run(config: &Config, args: &DeleteArgs) -> Result<(), Failure> {
    let parse = |text: &String| EntityRef::parse(text).map(|name| name.to_string()).map_err(Failure::usage);
    let refs: Vec<String> = args.refs.iter().map(parse).collect::<Result<_, _>>()?;
    operator::ask(config, async |operator| {
        let bus = operator.bus().await?;
        let sequences = publishing::delete(&bus, &args.provider, &refs).await?;
        let revisions = revisions(operator, &bus.names().events_stream(), &sequences).await?;
        let refs: Vec<&str> = refs.iter().map(String::as_str).collect();
        show(operator, &refs, &revisions)?;
        tell(&format!(
            "{} published as provider {}; what another source claims stays",
            count(refs.len(), "deletion", "deletions"),
            args.provider
        ));
        match args.wait {
            true => tell_when_readable(operator, &refs, &revisions).await,
            false => Ok(()),
        }
    })
}
