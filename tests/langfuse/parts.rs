//! Tenants whose traces go to separate projects.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::fake::{PUBLIC_KEY, SECRET_KEY};
use crate::world::World;

/// `pk-lf-1234:sk-lf-5678` and `pk-lf-blue:sk-lf-blue` in base64.
const RED: &str = "Basic cGstbGYtMTIzNDpzay1sZi01Njc4";
const BLUE: &str = "Basic cGstbGYtYmx1ZTpzay1sZi1ibHVl";

/// Builds a trace object and a span of it.
fn body(tenant: &str, number: usize) -> String {
    let trace = format!("trace_{number:032x}");
    json!({ "data": [
        { "object": "trace", "id": trace, "workflow_name": format!("of {tenant}") },
        { "object": "trace.span", "id": format!("span_{number:024x}"), "trace_id": trace, "parent_id": null,
          "started_at": "2026-11-28T10:00:00+00:00", "ended_at": "2026-11-28T10:00:01+00:00",
          "span_data": { "type": "agent", "name": format!("agent of {tenant}") } },
    ] })
    .to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_tenant_has_a_project_of_its_own_and_what_no_part_is_for_goes_to_none() {
    let part = |tenant: &str, (public, secret): (&str, &str)| {
        format!(
            "[[receivers.tokens]]\ntoken = \"k-{tenant}\"\ntenant = \"{tenant}\"\n\
             [sinks.langfuse.parts.{tenant}]\npublic_key = \"{public}\"\nsecret_key = \"{secret}\"\n"
        )
    };
    let red = part("red", (PUBLIC_KEY, SECRET_KEY));
    let blue = part("blue", ("pk-lf-blue", "sk-lf-blue"));
    let third = "[[receivers.tokens]]\ntoken = \"k-green\"\ntenant = \"green\"\n";
    let world =
        World::start(&format!("by = \"tenant\"\nroot_span = \"never\"\n{red}{blue}{third}")).await;
    world.fake.add_project(BLUE);
    for (number, tenant) in (1..).zip(["red", "green", "blue", "red"]) {
        world.sdk_with(&format!("k-{tenant}"), body(tenant, number)).await;
    }
    let sink = world.until("both are delivered", |_, fake| fake.rows().len() >= 3).await;
    assert_eq!(sink["name"], "langfuse-red");
    let mut names: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let posts = world.fake.posts();
    for post in &posts {
        let text = String::from_utf8_lossy(&post.message).into_owned();
        let key = post.headers["authorization"].as_str();
        names.entry(key).or_default().push(text);
    }
    let holds = |key: &str, tenant: &str| {
        names[key].iter().any(|text| text.contains(&format!("of {tenant}")))
    };
    assert_eq!(names.len(), 2);
    assert!(holds(RED, "red") && !holds(RED, "blue") && !holds(RED, "green"));
    assert!(holds(BLUE, "blue") && !holds(BLUE, "red") && !holds(BLUE, "green"));
    let status = loop {
        let status = world.status().await;
        let sinks = status["sinks"].as_array().unwrap();
        if sinks.iter().all(|sink| sink["pending"] == 0) {
            break status;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    };
    let of = |number: usize, name: &str| -> Value { status["sinks"][number][name].clone() };
    assert_eq!((of(0, "delivered"), of(0, "filtered")), (json!(4), json!(4)));
    assert_eq!((of(1, "delivered"), of(1, "filtered")), (json!(2), json!(6)));
    world.stop().await;
}
