//! What a full-text search asks for: Backstage's `LIKE '%term%'` on lower-cased values, in which `%` and `_` of the term are wildcards.

/// A search for a text in the values of some fields, or of all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextQuery {
    /// Lower-cased, without the spaces around it, not empty.
    pattern: String,
    /// Lower-cased, sorted, each once; none: all values.
    fields: Vec<String>,
}

impl TextQuery {
    /// A search for a term; none, if it is nothing but spaces.
    pub fn new(term: &str, fields: &[String]) -> Option<TextQuery> {
        let pattern = term.trim().to_lowercase();
        let mut fields: Vec<String> = fields.iter().map(|field| field.to_lowercase()).collect();
        fields.sort_unstable();
        fields.dedup();
        (!pattern.is_empty()).then_some(TextQuery { pattern, fields })
    }

    /// What is searched for, lower-cased.
    pub fn pattern(&self) -> &str {
        &self.pattern
    }

    /// Where; none: in all values.
    pub fn fields(&self) -> &[String] {
        &self.fields
    }

    /// Whether `%` or `_` stands in it.
    pub fn has_wildcards(&self) -> bool {
        self.pattern.contains(['%', '_'])
    }

    /// Whether it can match only inside one word: letters and digits alone.
    pub fn is_word(&self) -> bool {
        self.pattern.chars().all(char::is_alphanumeric)
    }

    /// Whether a lower-cased value holds it.
    pub fn matches(&self, value: &str) -> bool {
        match self.has_wildcards() {
            true => holds_like(value, &self.pattern),
            false => value.contains(&self.pattern),
        }
    }
}

/// `LIKE '%' || pattern || '%'`: `%` stands for any text, `_` for any one character.
fn holds_like(value: &str, pattern: &str) -> bool {
    let value: Vec<char> = value.chars().collect();
    let pattern: Vec<char> = std::iter::once('%').chain(pattern.chars()).chain(['%']).collect();
    let (mut at, mut of) = (0, 0);
    // Where to go on when the pattern fails: its last `%`, and the value's place that it has not taken yet.
    let mut again = None;
    while at < value.len() {
        match pattern.get(of) {
            Some('%') => {
                again = Some((of, at));
                of += 1;
            }
            Some(letter) if *letter == '_' || *letter == value[at] => {
                (at, of) = (at + 1, of + 1);
            }
            _ => {
                let Some((star, taken)) = again else { return false };
                again = Some((star, taken + 1));
                (at, of) = (taken + 1, star + 1);
            }
        }
    }
    pattern[of..].iter().all(|letter| *letter == '%')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matching() {
        for (term, value, expected) in [
            ("web", "a web-shop", true),
            (" WEB ", "web", true),
            ("webs", "web", false),
            ("a%p", "a web-shop", true),
            ("b_s", "a web-shop", true),
            ("b_h", "a web-shop", false),
            ("%", "", true),
            ("_", "", false),
            ("100%", "at 100 percent", true),
            ("p%b", "a web-shop", false),
            ("日_本", "日x本", true),
            ("%%a%", "xxa", true),
        ] {
            let query = TextQuery::new(term, &[]).expect("a search");
            assert_eq!(query.matches(value), expected, "{term} in {value}");
        }
        assert_eq!(TextQuery::new("  ", &[]), None);
    }
}
