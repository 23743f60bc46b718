//! TLS and SASL with a real broker, and what is reported when the broker refuses access.

use std::time::Instant;

use super::faults::{has, problem, request, send};
use super::servers::POLL_EVERY;
use super::servers::kafka::{Kafka, PASSWORD, USER};
use super::{Authority, Config, Member, PATIENCE, topic};

/// Returns each way into the cluster: its security protocol, and the options in addition to `brokers`.
fn ways(authority: &Authority) -> Vec<(&'static str, String)> {
    let file = |name: &str| authority.path(name).display().to_string();
    let tls = format!("tls = {{ ca_file = '{}' }}\n", file("ca.pem"));
    let sasl = |mechanism| {
        format!(
            "sasl = {{ mechanism = '{mechanism}', username = '{USER}', password = '{PASSWORD}' }}\n"
        )
    };
    let (ca, cert, key) = (file("ca.pem"), file("server.crt"), file("server.key"));
    let mutual =
        format!("tls = {{ ca_file = '{ca}', cert_file = '{cert}', key_file = '{key}' }}\n");
    vec![
        ("SSL", mutual),
        ("SASL_PLAINTEXT", sasl("SCRAM-SHA-256")),
        ("SASL_SSL", tls.clone() + &sasl("SCRAM-SHA-512")),
        ("SASL_SSL", tls + &sasl("PLAIN")),
    ]
}

async fn cluster() -> Option<(Kafka, Authority)> {
    let authority = Authority::new();
    authority.renew("127.0.0.1");
    let text = |name: &str| std::fs::read_to_string(authority.path(name)).unwrap();
    let (chain, key, ca) = (text("server.crt"), text("server.key"), text("ca.pem"));
    Some((Kafka::start_secure(&chain, &key, &ca).await?, authority))
}

/// Starts a daemon with a sink for each of these: the brokers, the topic, and more options.
async fn receiving(sinks: &[(String, String, String)]) -> Member {
    let sink = |(brokers, topic, more): &(String, String, String)| {
        format!(
            "[sinks.{topic}]\ntype = \"kafka\"\nbrokers = [\"{brokers}\"]\ntopic = \"{topic}\"\n{more}"
        )
    };
    let tables = sinks.iter().map(sink).collect();
    Member::start(&Config { tables, ..Config::default() }).await
}

async fn delivering(brokers: &str, topic: &str, more: &str) -> Member {
    // A separate group: in an earlier one it would wait until partitions are released.
    let receivers = format!(
        "[receivers.kafka]\nbrokers = [\"{brokers}\"]\ntopics = [\"{topic}\"]\ngroup = \"{topic}\"\n{more}"
    );
    let tables = "[sinks.file]\ntype = \"file\"\npath = \"out.jsonl\"\n".to_owned();
    Member::start(&Config { receivers, tables, ..Config::default() }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_go_through_topics_over_tls_with_certificates_and_with_each_kind_of_password() {
    let Some((kafka, authority)) = cluster().await else { return };
    let mut sinks = Vec::new();
    for (number, (protocol, more)) in ways(&authority).into_iter().enumerate() {
        let topic = format!("way-{number}");
        topic::create(&kafka, &topic, None).await;
        sinks.push((kafka.broker_with(protocol), topic, more));
    }
    let mut sender = receiving(&sinks).await;
    send(&sender, request(1, &[10])).await;
    sender.delivered().await;
    for (brokers, topic, more) in &sinks {
        let taker = delivering(brokers, topic, more).await;
        has(&taker, "fault-1-0").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_and_an_authority_that_is_not_known_hold_and_say_what_to_do() {
    let Some((kafka, authority)) = cluster().await else { return };
    topic::create(&kafka, "otlp_spans", None).await;
    let (protocol, good) = ways(&authority).remove(2);
    let other = Authority::new();
    let path = |authority: &Authority| authority.path("ca.pem").display().to_string();
    for (bad, said_by_brokers) in [
        (good.replace(PASSWORD, "guess"), "uthentication failed"),
        (good.replace(&path(&authority), &path(&other)), "certificate verify failed"),
    ] {
        let brokers = kafka.broker_with(protocol);
        let sink = (brokers.clone(), "otlp_spans".to_owned(), bad.clone());
        let mut sender = receiving(&[sink]).await;
        send(&sender, request(1, &[10])).await;
        let told = |said: &str| said.contains(said_by_brokers) && said.contains("`sasl`, `tls`");
        sender.until("the sink holds", |status| told(problem(status))).await;
        assert_eq!(sender.status()["sinks"][0]["state"], "holding", "{}", sender.status());
        let taker = delivering(&brokers, "otlp_spans", &bad).await;
        let begun = Instant::now();
        while !told(&taker.place.ask("/healthz").unwrap_or_default()) {
            assert!(begun.elapsed() < PATIENCE, "{}", taker.place.said());
            tokio::time::sleep(POLL_EVERY).await;
        }
        for member in [&sender, &taker] {
            let said = member.place.said() + &member.status().to_string();
            assert!(!said.contains("guess") && !said.contains(PASSWORD), "{said}");
        }
    }
}
