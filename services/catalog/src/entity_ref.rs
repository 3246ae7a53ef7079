//! An entity ref names an entity: `kind:namespace/name`, lower-cased for comparison.

use std::fmt;

/// The namespace of whatever names none (Backstage's `DEFAULT_NAMESPACE`).
pub const DEFAULT_NAMESPACE: &str = "default";

/// The identity of an entity: three parts, all lower-cased (full Unicode, no locale), as Backstage's `stringifyEntityRef` gives them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntityRef {
    pub kind: String,
    pub namespace: String,
    pub name: String,
}

/// Why a text is no entity ref; the wording is Backstage's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RefError {
    #[error("Entity reference must not be empty")]
    Empty,
    #[error("Entity reference \"{0}\" was not on the form [<kind>:][<namespace>/]<name>")]
    Form(String),
    /// Holds the ref as JSON.
    #[error("Entity reference {0} had missing or empty kind (e.g. did not start with \"component:\" or similar)")]
    NoKind(String),
}

impl RefError {
    /// The class of the error in Backstage (`TypeError`, `Error`), as status items show it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Form(_) => "TypeError",
            Self::Empty | Self::NoKind(_) => "Error",
        }
    }
}

impl EntityRef {
    /// Reads `kind:[namespace/]name`; the namespace defaults to `default`, the kind must be there.
    pub fn parse(text: &str) -> Result<Self, RefError> {
        Self::parse_with(text, None, DEFAULT_NAMESPACE)
    }

    /// Reads `[kind:][namespace/]name` with defaults for what is left out (Backstage's `parseEntityRef`).
    ///
    /// The first `:` ends the kind and the first `/` the namespace; if the `/` comes first there is no kind, and the colon belongs to the name.
    pub fn parse_with(text: &str, default_kind: Option<&str>, default_namespace: &str) -> Result<Self, RefError> {
        if text.is_empty() {
            return Err(RefError::Empty);
        }
        let (kind, namespace, name) = split(text);
        if kind == Some("") || namespace == Some("") || name.is_empty() {
            return Err(RefError::Form(text.to_owned()));
        }
        let kind = kind
            .or(default_kind)
            .filter(|kind| !kind.is_empty())
            .ok_or_else(|| RefError::NoKind(serde_json::Value::from(text).to_string()))?;
        Ok(Self::of(kind, namespace.unwrap_or(default_namespace), name))
    }

    /// The ref of three parts as they are, lower-cased; an empty namespace is `default`.
    pub fn of(kind: &str, namespace: &str, name: &str) -> Self {
        let namespace = if namespace.is_empty() { DEFAULT_NAMESPACE } else { namespace };
        Self { kind: kind.to_lowercase(), namespace: namespace.to_lowercase(), name: name.to_lowercase() }
    }
}

impl fmt::Display for EntityRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}/{}", self.kind, self.namespace, self.name)
    }
}

impl std::str::FromStr for EntityRef {
    type Err = RefError;

    fn from_str(text: &str) -> Result<Self, RefError> {
        Self::parse(text)
    }
}

fn split(text: &str) -> (Option<&str>, Option<&str>, &str) {
    let slash = text.find('/');
    let colon = text.find(':').filter(|colon| slash.is_none_or(|slash| *colon < slash));
    let after_kind = colon.map_or(0, |colon| colon + 1);
    let after_namespace = slash.map_or(after_kind, |slash| slash + 1);
    (colon.map(|colon| &text[..colon]), slash.map(|slash| &text[after_kind..slash]), &text[after_namespace..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(text: &str, kind: Option<&str>, namespace: &str, expected: &str) {
        let got = EntityRef::parse_with(text, kind, namespace)
            .map_or_else(|error| error.to_string(), |parsed| parsed.to_string());
        assert_eq!(got, expected, "{text:?} with {kind:?}, {namespace:?}");
    }

    #[test]
    fn grammar() {
        let form = |text: &str| RefError::Form(text.to_owned()).to_string();
        check("component:default/web", None, "default", "component:default/web");
        check("Component:Default/Web", None, "default", "component:default/web");
        check("component:web", None, "default", "component:default/web");
        check("component:web", None, "retail", "component:retail/web");
        check("web", Some("Group"), "retail", "group:retail/web");
        check("ns/web", Some("Group"), "retail", "group:ns/web");
        check("ns/a:b", Some("Group"), "default", "group:ns/a:b");
        check("a:b:c", None, "default", "a:default/b:c");
        check("a:b/c/d", None, "default", "a:b/c/d");
        check("a:b/c:d", None, "default", "a:b/c:d");
        check(" web", Some("Group"), "default", "group:default/ web");
        check("component:ÄÖ", None, "default", "component:default/äö");
        check("component:日本", None, "default", "component:default/日本");
        check("web", Some("Group"), "", "group:default/web");
        for bad in [":", "/", "a:", ":a", "a/", "/a", "a:/b", "a:b/", ":a/b", "a:/"] {
            check(bad, Some("Group"), "default", &form(bad));
        }
        check("", Some("Group"), "default", &RefError::Empty.to_string());
        check("web", None, "default", &RefError::NoKind("\"web\"".into()).to_string());
        check("ns/web", Some(""), "default", &RefError::NoKind("\"ns/web\"".into()).to_string());
    }

    #[test]
    fn names_of_errors_are_those_of_backstage() {
        assert_eq!(RefError::Form(String::new()).name(), "TypeError");
        assert_eq!(RefError::Empty.name(), "Error");
        assert_eq!(RefError::NoKind(String::new()).name(), "Error");
    }

    proptest! {
        #[test]
        fn a_parsed_ref_reads_back_the_same(text in "[a-zA-Zß/:.É -]{1,20}") {
            if let Ok(parsed) = EntityRef::parse_with(&text, Some("Group"), "ns") {
                prop_assert_eq!(EntityRef::parse(&parsed.to_string()), Ok(parsed));
            }
        }

        #[test]
        fn any_text_is_a_ref_or_an_error(text in any::<String>()) {
            let _ = EntityRef::parse(&text);
        }
    }
}
