//! On which line of a YAML file a key is.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

/// Lines of keys in dots; what lies in lists has the list's key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lines(BTreeMap<String, u64>);

impl Lines {
    /// Of a file; empty where it cannot be read.
    pub fn of(text: &str) -> Self {
        let node = serde_saphyr::from_str_with_options(text, serde_saphyr::options! { strict_booleans: true });
        let mut lines = Self::default();
        lines.add("", &node.unwrap_or(Node::Other));
        lines
    }

    fn add(&mut self, prefix: &str, node: &Node) {
        match node {
            Node::Map(entries) => {
                for (key, line, value) in entries {
                    let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                    self.0.entry(path.clone()).or_insert(*line);
                    self.add(&path, value);
                }
            }
            Node::List(items) => items.iter().for_each(|item| self.add(prefix, item)),
            Node::Other => {}
        }
    }

    /// The line of a key, or of the nearest section above it.
    pub fn of_key(&self, key: &str) -> Option<u64> {
        let mut key = key;
        loop {
            if let Some(line) = self.0.get(key) {
                return Some(*line);
            }
            key = key.rsplit_once('.')?.0;
        }
    }
}

enum Node {
    Map(Vec<(String, u64, Node)>),
    List(Vec<Node>),
    Other,
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Nodes)
    }
}

struct Nodes;

impl<'de> Visitor<'de> for Nodes {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("YAML")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            entries.push((key.value, key.referenced.line(), map.next_value()?));
        }
        Ok(Node::Map(entries))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Node::List(items))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_str<E>(self, _: &str) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| Node::Other)
    }
}

#[cfg(test)]
mod tests {
    use super::Lines;

    #[test]
    fn keys_are_found_in_blocks_flows_and_lists() {
        let lines = Lines::of(
            "# head\nscope: a\npostgresql:\n  listen: '*:1'\n\n  parameters:\n    work_mem: 1MB\nbootstrap:\n  initdb:\n  - x\n  - encoding: UTF8\ntags: {a: 1,\n  b: 2}\n",
        );
        for (key, line) in [
            ("scope", 2),
            ("postgresql", 3),
            ("postgresql.listen", 4),
            ("postgresql.parameters.work_mem", 7),
            ("postgresql.parameters.absent", 6),
            ("bootstrap.initdb.encoding", 11),
            ("tags.b", 13),
        ] {
            assert_eq!(lines.of_key(key), Some(line), "{key}");
        }
        assert_eq!(lines.of_key("absent"), None);
        assert_eq!(Lines::of("a: ["), Lines::default());
    }
}
