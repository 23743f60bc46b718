//! A language model reads traces through the official client of the Model Context Protocol, in both of the protocol's lifecycles.

use rmcp::model::{CallToolRequestParams, ClientConfig, JsonObject, ProtocolVersion};
use rmcp::service::RunningService;
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::{ClientLifecycleMode, ClientServiceExt as _, RoleClient};
use serde_json::{Value, json};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpStream, UnixListener};

use super::World;
use super::traffic::Client;

const HANDOFFS: &str = "trace_61740b306e17493389aee8e0f4480a92";
const FAILED: &str = "trace_f9662e472828449ab467468cbe1ab009";
/// Maximum number of polls for an expected answer.
const POLLS_MAX: usize = 2_000;
/// Some hundred tokens of four letters.
const LETTERS_MAX: usize = 4_000;

type Model = RunningService<RoleClient, ClientConfig>;

/// Starts a daemon that has a run with handoffs and a failed run.
async fn world() -> World {
    let world = World::new("[sinks.none]\ntype = \"blackhole\"\n").await;
    let url = format!("http://{}/v1/traces/ingest", world.place().http);
    for run in ["p02_handoff_chain", "p05_tool_error_hard"] {
        let file = format!("tests/golden/agents-sdk/python/{run}/001.body.json");
        let body = std::fs::read(file).unwrap();
        assert_eq!(Client::new().post(&url, "application/json", "", body).await, 204);
    }
    world.settled().await;
    world
}

/// Connects a client. This build of the client speaks over Unix sockets only, so one is forwarded to the port.
async fn connected(world: &World, name: &str, lifecycle: ClientLifecycleMode) -> Model {
    let (socket, port) = (world.dir.path().join(name), world.place().admin);
    let listener = UnixListener::bind(&socket).unwrap();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut far = TcpStream::connect(port).await.unwrap();
                copy_bidirectional(&mut near, &mut far).await.ok();
            });
        }
    });
    let address = format!("http://{port}/mcp");
    let transport =
        StreamableHttpClientTransport::from_unix_socket(socket.to_str().unwrap(), address);
    ClientConfig::default().serve_with_lifecycle(transport, lifecycle).await.unwrap()
}

/// Returns a tool's answer, and whether it is an error.
async fn call(model: &Model, tool: &'static str, arguments: Value) -> (String, bool) {
    let arguments: JsonObject = serde_json::from_value(arguments).unwrap();
    let asked = CallToolRequestParams::new(tool).with_arguments(arguments);
    let answer = model.call_tool(asked).await.unwrap();
    let text = answer.content[0].as_text().unwrap().text.clone();
    assert!(text.len() <= LETTERS_MAX, "{tool}: {text}");
    (text, answer.is_error == Some(true))
}

async fn told(model: &Model, tool: &'static str, arguments: Value, expected: &[&str]) -> String {
    let mut said = String::new();
    // Acknowledged items reach the index a moment later.
    for _ in 0..POLLS_MAX {
        let (text, is_mistake) = call(model, tool, arguments.clone()).await;
        assert!(!is_mistake, "{text}");
        // Columns of tables are as wide as their cells.
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        if expected.iter().all(|part| words.contains(part)) {
            return text;
        }
        said = text;
        tokio::time::sleep(super::process::POLL_EVERY).await;
    }
    assert_eq!(said, expected.join(" "), "{tool}");
    said
}

async fn every_tool_answers(world: &World, model: &Model) {
    let tools = model.list_all_tools().await.unwrap();
    let names: Vec<_> = tools.iter().map(|tool| &*tool.name).collect();
    let expected =
        ["list_traces", "find_errors", "describe_trace", "show_span", "usage_by", "verify_trace"];
    assert_eq!(names, expected);
    for tool in &tools {
        assert_eq!(tool.annotations.as_ref().unwrap().read_only_hint, Some(true));
        assert_eq!(tool.input_schema["type"], "object", "{tool:?}");
    }
    assert_eq!(tools[0].input_schema["properties"]["filter"]["type"], "string");
    assert_eq!(tools[5].input_schema["required"], json!(["id"]));

    let base = format!("http://{}/ui/", world.place().admin);
    let link = format!("{base}traces/");
    told(model, "list_traces", json!({}), &["2 of 2 traces", "Customer support", "ok", &link])
        .await;
    told(
        model,
        "list_traces",
        json!({ "filter": "status:error", "limit": 1 }),
        &["1 of 1 traces", "error"],
    )
    .await;
    let error = "\"hard_boom\": Error running tool";
    told(model, "find_errors", json!({}), &["1 traces failed", error]).await;
    let parts = ["agents: Triage, Billing, Refunds", "tools: lookup_order", &link];
    told(model, "describe_trace", json!({ "id": HANDOFFS }), &parts).await;
    let failed = told(model, "describe_trace", json!({ "id": FAILED }), &["FAILED", error]).await;
    let span =
        failed.lines().find_map(|line| Some(line.trim().split_once(" tool \"hard_boom\"")?.0));
    let asked = json!({ "id": FAILED, "span": span.unwrap() });
    told(
        model,
        "show_span",
        asked,
        &["input: ", "error: Error running tool", "hard boom on 2", "?span="],
    )
    .await;
    told(model, "usage_by", json!({ "by": "tool" }), &["lookup_order 1 0"]).await;
    told(
        model,
        "verify_trace",
        json!({ "id": HANDOFFS }),
        &["received 15 spans (15 distinct", "none 16 0 0 0 0 0"],
    )
    .await;
}

#[tokio::test]
async fn every_tool_answers_in_some_hundred_tokens_and_with_a_link() {
    let world = world().await;
    let newest = ProtocolVersion::V_2026_07_28;
    let discover = ClientLifecycleMode::Discover { preferred_versions: vec![newest] };
    for (name, lifecycle) in [("old.sock", ClientLifecycleMode::Initialize), ("new.sock", discover)]
    {
        let model = connected(&world, name, lifecycle).await;
        every_tool_answers(&world, &model).await;
        model.cancel().await.unwrap();
    }
}

#[tokio::test]
async fn a_mistake_is_told_to_the_model_that_made_it() {
    let world = world().await;
    let model = connected(&world, "mcp.sock", ClientLifecycleMode::Initialize).await;
    for (tool, arguments, expected) in [
        ("list_traces", json!({ "filter": "dur:>soon" }), "^"),
        ("list_traces", json!({ "fliter": "x" }), "fliter"),
        ("describe_trace", json!({}), "id"),
        ("describe_trace", json!({ "id": "4711" }), "trace 4711 is not in the journal"),
        ("show_span", json!({ "id": FAILED }), "span"),
        ("usage_by", json!({ "by": "moon" }), "moon"),
        ("delete_everything", json!({}), "no tool"),
    ] {
        let (text, is_mistake) = call(&model, tool, arguments).await;
        assert!(is_mistake && text.contains(expected), "{tool}: {text}");
    }
}

/// Sends a request without the official client, which makes no such mistakes.
async fn ask(world: &World, body: &str, headers: &[(&str, &str)]) -> (u16, Value) {
    let address = format!("http://{}/mcp", world.place().admin);
    let mut request = hyper::Request::post(address).header("content-type", "application/json");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let body = http_body_util::Full::from(bytes::Bytes::from(body.to_owned()));
    let (status, answer) = Client::new().ask(request.body(body).unwrap()).await;
    (status, serde_json::from_slice(&answer).unwrap_or_default())
}

#[tokio::test]
async fn what_is_asked_wrongly_is_answered_with_the_protocols_own_codes() {
    let world = World::new("[sinks.none]\ntype = \"blackhole\"\n").await;
    let new = ("mcp-protocol-version", "2026-07-28");
    let meta = r#""params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}"#;
    let asked = |method: &str, params: &str| {
        format!(r#"{{"jsonrpc":"2.0","id":7,"method":"{method}",{params}}}"#)
    };
    let plain = r#""params":{}"#;
    for (body, headers, status, code) in [
        ("{bad".to_owned(), vec![], 400, json!(-32700)),
        (
            r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#.to_owned(),
            vec![],
            202,
            Value::Null,
        ),
        (asked("ping", plain), vec![], 200, Value::Null),
        (asked("prompts/list", plain), vec![], 200, json!(-32601)),
        (asked("server/discover", plain), vec![], 200, json!(-32601)),
        (
            asked("tools/list", plain),
            vec![("mcp-protocol-version", "1999-01-01")],
            400,
            json!(-32022),
        ),
        (asked("tools/list", plain), vec![new], 400, json!(-32602)),
        (asked("tools/list", meta), vec![], 400, json!(-32020)),
        (asked("tools/list", meta), vec![new], 400, json!(-32020)),
        (asked("tools/list", meta), vec![new, ("mcp-method", "tools/call")], 400, json!(-32020)),
        (asked("tools/list", meta), vec![new, ("mcp-method", "tools/list")], 200, Value::Null),
        (asked("ping", meta), vec![new, ("mcp-method", "ping")], 404, json!(-32601)),
    ] {
        let (said, answer) = ask(&world, &body, &headers).await;
        assert_eq!((said, &answer["error"]["code"]), (status, &code), "{body} {headers:?}");
        if code == json!(-32022) {
            assert_eq!(answer["error"]["data"]["supported"][4], "2026-07-28");
        }
    }
    for (revision, expected) in [("2025-06-18", "2025-06-18"), ("2031-01-01", "2025-11-25")] {
        let params = format!(r#""params":{{"protocolVersion":"{revision}"}}"#);
        let (_, answer) = ask(&world, &asked("initialize", &params), &[]).await;
        assert_eq!(answer["result"]["protocolVersion"], expected);
    }
}

#[tokio::test]
async fn a_page_of_another_origin_learns_nothing() {
    let world = World::new("[sinks.none]\ntype = \"blackhole\"\n").await;
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list" }).to_string();
    assert_eq!(ask(&world, &body, &[("origin", "https://page.example")]).await.0, 403);
}
