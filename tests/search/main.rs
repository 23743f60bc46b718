//! Search servers, real ones: the dashboards' queries and the Elasticsearch sink against Elasticsearch 7.17, 8 and 9 and OpenSearch 2
//! and 3. `tests/README.md` says how they are had, and how they are skipped.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests may panic, print, and read files and the environment"
)]

mod servers;

#[tokio::test]
async fn smoke() {
    for installed in servers::available() {
        let started = std::time::Instant::now();
        let mut node = servers::Node::start(&installed, &[]).await;
        println!("{} {:?} {}", node.server().name, started.elapsed(), node.url());
        node.fill([("a", "1", serde_json::json!({"a": 1}))]).await;
        node.kill();
        node.restart().await;
        println!("{} {:?} {}", node.server().name, started.elapsed(), node.search("a", serde_json::json!({"size":0})).await);
        drop(node);
        println!("{:?}", started.elapsed());
    }
}
