//! `callboard delete` and `callboard remove`: withdraws a provider's claims on refs, or everybody's.

use super::publish::{count, revisions, show, tell_when_readable};
use crate::cli::{DeleteArgs, RemoveArgs};
use crate::config::Config;
use crate::failure::{Failure, tell};
use crate::{operator, publishing};
use bus::Names;
use catalog::entity_ref::EntityRef;

/// Publishes the deletions.
///
/// # Errors
/// [`Failure::Usage`] for what is no ref; then nothing is deleted.
pub fn run(config: &Config, args: &DeleteArgs) -> Result<(), Failure> {
    let published = count(args.refs.len(), "deletion", "deletions");
    let told = format!("{published} published as provider {}; what another source claims stays", args.provider);
    publish(config, (&args.provider, "delete"), &args.refs, (&told, args.wait))
}

/// Publishes the removals.
///
/// # Errors
/// [`Failure::Usage`] for what is no ref; then nothing is removed.
pub fn remove(config: &Config, args: &RemoveArgs) -> Result<(), Failure> {
    let published = count(args.refs.len(), "removal", "removals");
    let told = format!("{published} published; what is still emitted comes back as a new entity");
    publish(config, (Names::OPERATOR, "remove"), &args.refs, (&told, args.wait))
}

fn publish(
    config: &Config,
    (provider, operation): (&str, &str),
    refs: &[String],
    (told, wait): (&str, bool),
) -> Result<(), Failure> {
    let parse = |text: &String| EntityRef::parse(text).map(|name| name.to_string()).map_err(Failure::usage);
    let refs: Vec<String> = refs.iter().map(parse).collect::<Result<_, _>>()?;
    operator::ask(config, async |operator| {
        let bus = operator.bus().await?;
        let subject = bus.names().event(provider, operation);
        let sequences = publishing::delete(&bus, &subject, &refs).await?;
        let revisions = revisions(operator, &bus.names().events_stream(), &sequences).await?;
        let refs: Vec<&str> = refs.iter().map(String::as_str).collect();
        show(operator, &refs, &revisions)?;
        tell(told);
        match wait {
            true => tell_when_readable(operator, &refs, &revisions).await,
            false => Ok(()),
        }
    })
}
