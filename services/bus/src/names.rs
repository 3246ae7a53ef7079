//! Every subject, stream and durable consumer of an installation, and the one place where names become subject tokens.

use crate::Error;

/// The names of one installation: its name is the prefix of its subjects and, in capitals, of its streams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    installation: String,
}

impl Names {
    /// Durable consumer of the fresh lane of events: upsert, delete, refresh, remove.
    pub const PROCESSOR: &str = "processor";
    /// Durable consumer of the bulk lane of events: import, snapshot.
    pub const PROCESSOR_BULK: &str = "processor-bulk";
    /// Durable consumer of the fresh lane of stitch requests.
    pub const STITCHER: &str = "stitcher";
    /// Durable consumer of the hints that outside reads are due.
    pub const LOCATION_READER: &str = "location-reader";
    /// Durable consumer of the bulk lane of stitch requests.
    pub const STITCHER_BULK: &str = "stitcher-bulk";
    /// The provider's name under which an operator removes entities; nobody else does.
    pub const OPERATOR: &str = "operator";
    /// Operations of the fresh lane.
    pub const FRESH_OPERATIONS: [&str; 4] = ["upsert", "delete", "refresh", "remove"];
    /// Operations of the bulk lane.
    pub const BULK_OPERATIONS: [&str; 2] = ["import", "snapshot"];

    /// An installation's name: 1 to 32 of `[a-z0-9_]`, a letter first, since it also names a database schema.
    pub fn new(installation: &str) -> Result<Self, Error> {
        let starts = installation.starts_with(|c: char| c.is_ascii_lowercase());
        let fits = installation.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        if !starts || !fits || installation.len() > 32 {
            return Err(Error::Unusable(format!(
                "installation \"{installation}\": expected 1 to 32 of [a-z0-9_], a letter first, for example \"catalog\""
            )));
        }
        Ok(Names { installation: installation.to_owned() })
    }

    /// The installation's name.
    pub fn installation(&self) -> &str {
        &self.installation
    }

    fn stream(&self, suffix: &str) -> String {
        format!("{}_{suffix}", self.installation.to_ascii_uppercase())
    }

    /// `CATALOG_EVENTS`
    pub fn events_stream(&self) -> String {
        self.stream("EVENTS")
    }

    /// `CATALOG_STITCH`
    pub fn stitch_stream(&self) -> String {
        self.stream("STITCH")
    }

    /// `CATALOG_READS`
    pub fn reads_stream(&self) -> String {
        self.stream("READS")
    }

    /// `catalog.reads.<lane>`, or a pattern of it.
    pub fn read(&self, lane: &str) -> String {
        format!("{}.reads.{lane}", self.installation)
    }

    /// `CATALOG_ENTITIES`
    pub fn entities_stream(&self) -> String {
        self.stream("ENTITIES")
    }

    /// `CATALOG_DEAD_LETTERS`
    pub fn dead_letters_stream(&self) -> String {
        self.stream("DEAD_LETTERS")
    }

    /// `CATALOG_CONFLICTS`
    pub fn conflicts_stream(&self) -> String {
        self.stream("CONFLICTS")
    }

    /// `catalog.conflicts.<provider>`; what an entity emits has the entity's name there.
    pub fn conflict(&self, provider: &str) -> String {
        format!("{}.conflicts.{}", self.installation, encode_token(provider))
    }

    /// Every conflict.
    pub fn all_conflicts(&self) -> String {
        format!("{}.conflicts.>", self.installation)
    }

    /// `catalog.events.<provider>.<operation>`
    pub fn event(&self, provider: &str, operation: &str) -> String {
        format!("{}.events.{}.{operation}", self.installation, encode_token(provider))
    }

    /// Everything below `catalog.events`.
    pub fn all_events(&self) -> String {
        format!("{}.events.>", self.installation)
    }

    /// The events of one operation, whoever sends them.
    pub fn events_of(&self, operation: &str) -> String {
        format!("{}.events.*.{operation}", self.installation)
    }

    /// The provider and the operation that an event's subject names; none where it has another form.
    pub fn parse_event(&self, subject: &str) -> Option<(String, String)> {
        let rest = subject.strip_prefix(&self.installation)?.strip_prefix(".events.")?;
        let (provider, operation) = rest.split_once('.')?;
        if provider.is_empty() || operation.contains('.') {
            return None;
        }
        Some((decode_token(provider)?, operation.to_owned()))
    }

    /// `catalog.stitch.<lane>`
    pub fn stitch(&self, lane: &str) -> String {
        format!("{}.stitch.{lane}", self.installation)
    }

    /// `catalog.entities.<kind>.<namespace>.<name>` for an entity ref in its lower-case form.
    pub fn entity(&self, entity_ref: &str) -> String {
        let (kind, rest) = entity_ref.split_once(':').unwrap_or(("", entity_ref));
        let (namespace, name) = rest.split_once('/').unwrap_or(("", rest));
        format!(
            "{}.entities.{}.{}.{}",
            self.installation,
            encode_token(kind),
            encode_token(namespace),
            encode_token(name)
        )
    }

    /// The entity ref that such a subject stands for.
    pub fn parse_entity(&self, subject: &str) -> Option<String> {
        let rest = subject.strip_prefix(&self.installation)?.strip_prefix(".entities.")?;
        let mut tokens = rest.split('.').map(decode_token);
        let (kind, namespace, name) = (tokens.next()??, tokens.next()??, tokens.next()??);
        tokens.next().is_none().then(|| format!("{kind}:{namespace}/{name}"))
    }

    /// Every entity.
    pub fn all_entities(&self) -> String {
        format!("{}.entities.>", self.installation)
    }

    /// `catalog.watermark`
    pub fn watermark(&self) -> String {
        format!("{}.watermark", self.installation)
    }

    /// `catalog.dead.<stage>.<provider>`
    pub fn dead_letter(&self, stage: &str, provider: &str) -> String {
        format!("{}.dead.{stage}.{}", self.installation, encode_token(provider))
    }

    /// Every dead letter.
    pub fn all_dead_letters(&self) -> String {
        format!("{}.dead.>", self.installation)
    }
}

/// One subject token for any text: whatever is not `[a-z0-9_-]` is written `=` and two hex digits a byte; nothing at all is `=`.
pub fn encode_token(text: &str) -> String {
    use std::fmt::Write;
    if text.is_empty() {
        return "=".to_owned();
    }
    let mut token = String::with_capacity(text.len() + 8);
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' => token.push(char::from(byte)),
            _ => write!(token, "={byte:02x}").expect("writing to a String cannot fail"),
        }
    }
    token
}

/// The text that a token stands for. Tokens that others wrote plainly (capitals, say) stand for themselves.
pub fn decode_token(token: &str) -> Option<String> {
    if token == "=" {
        return Some(String::new());
    }
    let mut bytes = Vec::with_capacity(token.len());
    let mut rest = token.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'=' {
            bytes.push(byte);
            continue;
        }
        let (high, low) = (rest.next()?, rest.next()?);
        let digit = |b: u8| char::from(b).to_digit(16);
        bytes.push(u8::try_from(digit(high)? * 16 + digit(low)?).ok()?);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_round_trip() {
        for (text, token) in [
            ("web", "web"),
            ("my.app", "my=2eapp"),
            ("a=b", "a=3db"),
            ("", "="),
            ("Ä b", "=c3=84=20b"),
            ("a_b-c", "a_b-c"),
            ("x*>", "x=2a=3e"),
        ] {
            assert_eq!(encode_token(text), token);
            assert_eq!(decode_token(token).as_deref(), Some(text));
        }
        assert_eq!(decode_token("a=2"), None);
        assert_eq!(decode_token("a=zz"), None);
    }

    #[test]
    fn subjects() {
        let names = Names::new("catalog").unwrap();
        assert_eq!(names.entity("component:default/my.app"), "catalog.entities.component.default.my=2eapp");
        assert_eq!(
            names.parse_entity("catalog.entities.component.default.my=2eapp").as_deref(),
            Some("component:default/my.app")
        );
        assert_eq!(names.parse_entity("catalog.entities.a.b"), None);
        for (subject, expected) in [
            ("catalog.events.p1.upsert", Some(("p1", "upsert"))),
            ("catalog.events.p1.bogus", Some(("p1", "bogus"))),
            ("catalog.events.p1", None),
            ("catalog.events.p1.a.b", None),
            ("other.events.p1.upsert", None),
        ] {
            let found = names.parse_event(subject);
            assert_eq!(found.as_ref().map(|(p, o)| (p.as_str(), o.as_str())), expected, "{subject}");
        }
        for bad in ["", "Catalog", "1a", "a-b", "a.b", "a b"] {
            assert!(Names::new(bad).is_err(), "{bad}");
        }
    }
}
