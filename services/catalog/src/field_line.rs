//! Where a field stands in the text of a document, so that an error can point at the line.

use crate::documents::{Document, part_at, reading_options};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;
use std::fmt;

/// The line (from 1, in the whole text) of a field of a document, named as errors name it: a JSON pointer (`/spec/owner`) or a path with dots
/// (`metadata.name`, `labels.example.com/tier`, `links.0.url`; labels, annotations, tags and links are those of `metadata`).
///
/// A field that is not there stands where the nearest one round it does; at worst that is the line of the document. This reads the document once more.
pub fn field_line(text: &str, document: &Document, field: &str) -> usize {
    let Some((part, first_line)) = part_at(text, document.line) else {
        return document.line;
    };
    let Ok(root) = serde_saphyr::from_str_with_options::<Node>(part, reading_options()) else {
        return document.line;
    };
    let found = match field.strip_prefix('/') {
        Some(pointer) => root.find_by_segments(pointer),
        None if METADATA.iter().any(|name| field.starts_with(name)) => root.find_by_path(&format!("metadata.{field}")),
        None => root.find_by_path(field),
    };
    found.map_or(document.line, |line| first_line - 1 + line)
}

/// What the formats of fields name without saying that it stands below `metadata`.
const METADATA: [&str; 4] = ["labels.", "annotations.", "tags.", "links."];

/// A document's structure, with the lines of its keys and items.
enum Node {
    Map(Vec<(String, usize, Node)>),
    List(Vec<(usize, Node)>),
    Leaf,
}

impl Node {
    fn find_by_segments(&self, pointer: &str) -> Option<usize> {
        let mut node = self;
        let mut line = None;
        for segment in pointer.split('/') {
            let segment = segment.replace("~1", "/").replace("~0", "~");
            let Some((found, child)) = node.child(&segment) else {
                break;
            };
            (line, node) = (Some(found), child);
        }
        line
    }

    /// Keys may hold dots themselves: at each step the longest key that fits is taken.
    fn find_by_path(&self, path: &str) -> Option<usize> {
        let ends = path.match_indices('.').map(|(at, _)| at).chain([path.len()]);
        let ends: Vec<usize> = ends.collect();
        ends.into_iter().rev().find_map(|end| {
            let (line, child) = self.child(&path[..end])?;
            let deeper = path.get(end + 1..).and_then(|rest| child.find_by_path(rest));
            Some(deeper.unwrap_or(line))
        })
    }

    fn child(&self, name: &str) -> Option<(usize, &Node)> {
        match self {
            Self::Map(entries) => entries.iter().find(|(key, _, _)| key == name).map(|(_, line, child)| (*line, child)),
            Self::List(items) => items.get(name.parse::<usize>().ok()?).map(|(line, child)| (*line, child)),
            Self::Leaf => None,
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            let line = line_of(&key);
            entries.push((key.value, line, map.next_value()?));
        }
        Ok(Node::Map(entries))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element::<Spanned<Node>>()? {
            items.push((line_of(&item), item.value));
        }
        Ok(Node::List(items))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        Node::deserialize(deserializer)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| Node::Leaf)
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Leaf)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Leaf)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Node, E> {
        Ok(Node::Leaf)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Node, E> {
        Ok(Node::Leaf)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Node, E> {
        Ok(Node::Leaf)
    }

    fn visit_i128<E>(self, _: i128) -> Result<Node, E> {
        Ok(Node::Leaf)
    }

    fn visit_u128<E>(self, _: u128) -> Result<Node, E> {
        Ok(Node::Leaf)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Node, E> {
        Ok(Node::Leaf)
    }

    fn visit_str<E>(self, _: &str) -> Result<Node, E> {
        Ok(Node::Leaf)
    }

    fn visit_bytes<E>(self, _: &[u8]) -> Result<Node, E> {
        Ok(Node::Leaf)
    }
}

fn line_of<T>(spanned: &Spanned<T>) -> usize {
    usize::try_from(spanned.referenced.line()).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::documents::parse_documents;
    use proptest::prelude::*;

    const TEXT: &str = "# a comment
---
kind: Component
metadata:
  name: web
  labels:
    example.com/tier: '1'
    a.b: x
  tags:
    - java
    - go
  links:
    - url: https://example.com
      title: T
spec:
  owner: payments
  text: |
    kind: no
  flow: {a: 1,
    b: [1,
      2]}
---
# second
{\"kind\": \"API\",
 \"metadata\": {\"name\": \"api\"}}
";

    fn check(document: usize, field: &str, expected: usize) {
        let documents = parse_documents(TEXT);
        assert_eq!(field_line(TEXT, &documents[document], field), expected, "{field}");
    }

    #[test]
    fn lines() {
        check(0, "/kind", 3);
        check(0, "kind", 3);
        check(0, "metadata.name", 5);
        check(0, "/metadata/name", 5);
        check(0, "labels.example.com/tier", 7);
        check(0, "/metadata/labels/example.com~1tier", 7);
        check(0, "labels.a.b", 8);
        check(0, "tags.1", 11);
        check(0, "/metadata/tags/1", 11);
        check(0, "links.0.url", 13);
        check(0, "links.0.title", 14);
        check(0, "/spec", 15);
        check(0, "/spec/owner", 16);
        check(0, "/spec/lifecycle", 15);
        check(0, "/spec/flow/b/1", 21);
        check(0, "", 3);
        check(0, "/nothing", 3);
        check(0, "nothing", 3);
        check(1, "/kind", 24);
        check(1, "metadata.name", 25);
        check(1, "/spec", 24);
    }

    #[test]
    fn a_broken_document_has_its_own_line() {
        let text = "a: 1\n---\nb: [\n";
        let documents = parse_documents(text);
        assert!(documents[1].content.is_err());
        assert_eq!(field_line(text, &documents[1], "/b"), 3);
        assert_eq!(field_line("", &documents[0], "/a"), 1);
    }

    proptest! {
        #[test]
        fn any_text_has_lines(text in "([a-c]: |- |\n|---\n|  |[{}\\[\\],:&*!|>'\"#x%]){0,20}", field in "[/a-c.0]{0,6}") {
            for document in parse_documents(&text) {
                let line = field_line(&text, &document, &field);
                prop_assert!(line >= 1 && line <= text.lines().count() + 1);
            }
        }
    }
}
