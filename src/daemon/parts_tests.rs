//! A daemon in this process with sinks in parts: each tenant's spans go to their own place, and to no other.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;

use serde_json::Value;

use super::reload_tests::{Backend, Connection, World};
use crate::sinks::elasticsearch::tests::fake::{Fake, Manner};

/// Three tenants; clients without a key are refused.
const TOKENS: &str = "[receivers]\nhttp = '127.0.0.1:0'\ngrpc = '127.0.0.1:0'\ntokens = [{ token = 'k-red', tenant = 'red' }, \
    { token = 'k-blue', tenant = 'blue' }, { token = 'k-green', tenant = 'green' }]\n";

/// Sends spans for each of these tenants, as many as its name has letters.
async fn send(world: &World, beginning: &str, tenants: &[&str]) {
    let mut connection = Connection::to(world.http()).await;
    for tenant in tenants {
        let ids: Vec<_> =
            (0..tenant.len()).map(|number| format!("{beginning}{tenant}{number}")).collect();
        let ids: Vec<_> = ids.iter().map(String::as_str).collect();
        let header = format!("authorization: Bearer k-{tenant}\r\n");
        assert_eq!(connection.send(&ids, &header).await, 204);
    }
}

fn figures(world: &World) -> String {
    let mut text = String::new();
    for sink in world.status()["sinks"].as_array().unwrap() {
        let count = |name: &str| sink[name].as_u64().unwrap();
        let gone = ["delivered", "pending", "dead_lettered", "filtered", "dropped"];
        assert_eq!(count("accepted"), gone.iter().map(|name| count(name)).sum::<u64>(), "{sink}");
        let name = sink["name"].as_str().unwrap();
        write!(text, "{name} {} {} ", count("delivered"), count("filtered")).unwrap();
    }
    text.trim_end().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_tenant_has_indexes_of_its_own_and_a_reload_adds_one_without_touching_the_others() {
    let fake = Fake::start(Manner::default()).await;
    let two = format!(
        "{TOKENS}[sinks.search]\ntype = 'elasticsearch'\nendpoints = [{:?}]\nindex_prefix = 'agents-{{tenant}}'\nroot_span = 'never'\n\
         refresh_wait = '5ms'\ncontext_wait = '0s'\nbatch = {{ age_max = '5ms' }}\nby = 'tenant'\n\
         [sinks.search.parts.red]\n[sinks.search.parts.blue]\n",
        fake.address
    );
    let world = World::new(&two).await;
    send(&world, "", &["red", "blue", "green"]).await;
    world.settled().await;
    let spans = |prefix: &str| fake.docs(&format!("{prefix}-spans")).len();
    assert_eq!((spans("agents-red"), spans("agents-blue"), spans("agents-green")), (3, 4, 0));
    assert_eq!(figures(&world), "search-red 3 9 search-blue 4 8");

    let said = world.reloaded(&format!("{two}[sinks.search.parts.green]\n")).await;
    assert_eq!(said, "added: search-green; kept: search-red, search-blue");
    send(&world, "again", &["green"]).await;
    world.settled().await;
    assert_eq!((spans("agents-red"), spans("agents-blue"), spans("agents-green")), (3, 4, 5));
    assert_eq!(figures(&world), "search-red 3 14 search-blue 4 13 search-green 5 0");

    let other = two.replace(
        "[sinks.search.parts.red]\n",
        "[sinks.search.parts.red]\nvalues = ['red', 'green']\n",
    );
    let said = world.reloaded(&other).await;
    assert_eq!(said, "removed: search-green; rebuilt: search-red (only); kept: search-blue");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_whose_backend_hangs_holds_up_no_other_and_what_is_of_none_goes_to_the_rest() {
    let (red, red_url) = Backend::start("sk-1").await;
    let (others, others_url) = Backend::start("sk-2").await;
    red.is_stuck.store(true, Ordering::SeqCst);
    let part = |name: &str, url: &str, key: &str| {
        format!("[sinks.far.parts.{name}]\nendpoint = '{url}'\nheaders = {{ x-key = '{key}' }}\n")
    };
    // A `keep` rule does not deliver another tenant's spans.
    let world = World::new(&format!(
        "{TOKENS}[[rules]]\nkeep = true\n[sinks.far]\ntype = 'otlp'\nprotocol = 'http/json'\ncompression = 'none'\n\
         root_span = 'never'\nbatch = {{ age_max = '5ms' }}\nby = 'tenant'\n{}{}rest = true\n",
        part("red", &red_url, "sk-1"),
        part("others", &others_url, "sk-2"),
    ))
    .await;
    send(&world, "", &["red", "blue", "green"]).await;
    let taken = || others.spans.lock().unwrap().len();
    world.until("the rest waits", || taken() == 9).await;
    let of = |name: &str| -> Value {
        let status = world.status();
        let sinks = status["sinks"].as_array().unwrap();
        sinks.iter().find(|sink| sink["name"] == name).unwrap().clone()
    };
    world.until("it settles", || of("far-others")["pending"] == 0).await;
    assert_eq!(of("far-red")["delivered"], 0);
    assert_eq!(red.spans.lock().unwrap().len(), 0);
    red.is_stuck.store(false, Ordering::SeqCst);
    world.settled().await;
    assert_eq!((red.spans.lock().unwrap().len(), taken()), (3, 9));
    assert_eq!(figures(&world), "far-red 3 9 far-others 9 3");
    world.stop().await;
}
