//! Identifies the backend by its own description. Pure.

use serde_json::Value;

pub(super) use super::options::Flavor;

/// What is known of a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Server {
    /// Never [`Flavor::Auto`].
    pub(super) flavor: Flavor,
    /// Major and minor version; `None` if unknown.
    pub(super) version: Option<(u32, u32)>,
}

/// The first versions of Elasticsearch and OpenSearch with a feature.
type Since = ((u32, u32), (u32, u32));

pub(super) const COMPONENTS: Since = ((7, 8), (1, 0));
pub(super) const DATA_STREAMS: Since = ((7, 9), (1, 0));
/// Text can be indexed without data for ranking.
pub(super) const MATCH_ONLY_TEXT: Since = ((7, 14), (2, 12));

impl Server {
    /// Returns the assumption about a backend that does not answer: the smallest common set of features.
    pub fn assumed(option: Flavor) -> Self {
        let flavor = if option == Flavor::Auto { Flavor::Elasticsearch } else { option };
        Self { flavor, version: None }
    }

    /// Reads the answer to `GET /`. The options take precedence over the server's description.
    pub(super) fn read(option: Flavor, body: &[u8]) -> Self {
        let answer: Value = serde_json::from_slice(body).unwrap_or_default();
        let said = |at| answer.pointer(at).and_then(Value::as_str).unwrap_or_default();
        let mut parts = said("/version/number").split('.').map_while(|part| part.parse().ok());
        let version = parts.next().map(|major| (major, parts.next().unwrap_or_default()));
        let flavor = match said("/version/distribution") {
            _ if option != Flavor::Auto => option,
            "quickwit" => Flavor::Quickwit,
            "opensearch" => Flavor::OpenSearch,
            _ if said("/tagline").contains("OpenSearch") => Flavor::OpenSearch,
            _ => Flavor::Elasticsearch,
        };
        Self { flavor, version }
    }

    /// Returns whether it has a feature. An unknown version counts as current.
    pub(super) fn has(self, (elasticsearch, opensearch): Since) -> bool {
        let is_reached = |since| self.version.is_none_or(|version| since <= version);
        match self.flavor {
            Flavor::Elasticsearch => is_reached(elasticsearch),
            // In compatibility mode, OpenSearch claims to be Elasticsearch 7.10.2, which exceeds all of its own versions.
            Flavor::OpenSearch => is_reached(opensearch),
            Flavor::Quickwit | Flavor::BulkOnly | Flavor::Auto => false,
        }
    }

    /// Returns whether documents have ids, versions and updates, and indices have mappings.
    pub(super) fn has_indices(self) -> bool {
        matches!(self.flavor, Flavor::Elasticsearch | Flavor::OpenSearch)
    }

    pub(super) fn describe(self) -> String {
        let name = match self.flavor {
            Flavor::Auto | Flavor::Elasticsearch => "Elasticsearch",
            Flavor::OpenSearch => "OpenSearch",
            Flavor::Quickwit => "Quickwit",
            Flavor::BulkOnly => "a bulk endpoint",
        };
        match self.version {
            Some((major, minor)) => format!("{name} {major}.{minor}"),
            None => name.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Server {
        Server::read(Flavor::Auto, body.as_bytes())
    }

    #[test]
    fn a_server_is_known_by_its_distribution_then_by_its_tagline() {
        for (body, flavor, version) in [
            (
                r#"{"version":{"number":"8.15.3","build_flavor":"default"},"tagline":"You Know, for Search"}"#,
                Flavor::Elasticsearch,
                Some((8, 15)),
            ),
            (
                r#"{"version":{"distribution":"opensearch","number":"2.19.1"}}"#,
                Flavor::OpenSearch,
                Some((2, 19)),
            ),
            (
                r#"{"version":{"number":"7.10.2"},"tagline":"The OpenSearch Project: https://opensearch.org/"}"#,
                Flavor::OpenSearch,
                Some((7, 10)),
            ),
            (
                r#"{"version":{"distribution":"quickwit","number":"7.17.0"}}"#,
                Flavor::Quickwit,
                Some((7, 17)),
            ),
            ("<html>", Flavor::Elasticsearch, None),
        ] {
            assert_eq!(read(body), Server { flavor, version }, "{body}");
        }
    }

    #[test]
    fn what_is_said_in_the_options_goes_before_what_the_server_says() {
        let body = br#"{"version":{"number":"8.1.0"}}"#;
        let server = Server::read(Flavor::BulkOnly, body);
        assert_eq!(server, Server { flavor: Flavor::BulkOnly, version: Some((8, 1)) });
    }

    #[test]
    fn features_begin_with_their_versions() {
        let of = |flavor, version| Server { flavor, version: Some(version) };
        assert!(!of(Flavor::Elasticsearch, (7, 7)).has(COMPONENTS));
        assert!(of(Flavor::Elasticsearch, (7, 8)).has(COMPONENTS));
        assert!(of(Flavor::OpenSearch, (7, 10)).has(MATCH_ONLY_TEXT));
        assert!(!of(Flavor::OpenSearch, (2, 11)).has(MATCH_ONLY_TEXT));
        assert!(!of(Flavor::Quickwit, (7, 17)).has(COMPONENTS));
        assert!(of(Flavor::Elasticsearch, (9, 0)).has(DATA_STREAMS));
    }
}
