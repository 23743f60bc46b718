//! A model server for programs under test: it speaks enough of the Responses and the Chat Completions API, streamed or not, and answers by
//! a script that the model's name selects.
//!
//! `answers` answers with a text; `calls-NAME` calls the tool NAME first and answers once it has the result; `fails` gets a 400.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// The text of every answer. It is not ASCII, to test the encoding of text.
const TEXT: &str = "It is 21 \u{b0}C and sunny in Bern. \u{1f31e}";

/// Starts the server; it runs as long as the runtime.
pub(crate) async fn serve() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(
                http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer)),
            );
        }
    });
    address
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    let body = request
        .into_body()
        .collect()
        .await
        .map(http_body_util::Collected::to_bytes)
        .unwrap_or_default();
    let Ok(question) = serde_json::from_slice::<Value>(&body) else {
        return Ok(reply(400, "application/json", error("not JSON")));
    };
    let model = question["model"].as_str().unwrap_or_default();
    if model == "fails" {
        return Ok(reply(400, "application/json", error("this model always fails")));
    }
    let tool = model.strip_prefix("calls-").filter(|tool| !was_called(&question, tool));
    let streamed = question["stream"] == true;
    Ok(match (path.as_str(), streamed) {
        ("/v1/responses", false) => {
            reply(200, "application/json", response(model, tool, "completed").to_string())
        }
        ("/v1/responses", true) => reply(200, "text/event-stream", response_events(model, tool)),
        ("/v1/chat/completions", false) => {
            reply(200, "application/json", completion(model, tool).to_string())
        }
        ("/v1/chat/completions", true) => {
            reply(200, "text/event-stream", completion_chunks(model, tool))
        }
        _ => reply(404, "application/json", error("no such path")),
    })
}

fn reply(status: u16, content_type: &str, body: String) -> Response<Full<Bytes>> {
    let response = Response::builder().status(status).header("content-type", content_type);
    response.body(Full::new(body.into())).unwrap()
}

fn error(message: &str) -> String {
    json!({"error": {"message": message, "type": "invalid_request_error", "param": null, "code": null}}).to_string()
}

/// Returns whether the conversation contains this tool's result.
fn was_called(question: &Value, tool: &str) -> bool {
    let call_id = call_id(tool);
    let is_result =
        |item: &Value| item["call_id"] == call_id && item["type"] == "function_call_output";
    let is_message = |item: &Value| item["tool_call_id"] == call_id && item["role"] == "tool";
    let any = |list: &Value, found: &dyn Fn(&Value) -> bool| {
        list.as_array().is_some_and(|items| items.iter().any(found))
    };
    any(&question["input"], &is_result) || any(&question["messages"], &is_message)
}

fn call_id(tool: &str) -> String {
    format!("call_{tool}")
}

fn arguments(tool: &str) -> &'static str {
    if tool.starts_with("transfer_to_") { "{}" } else { r#"{"city":"Bern"}"# }
}

// === Responses ===

fn response(model: &str, tool: Option<&str>, status: &str) -> Value {
    let output = match tool {
        Some(tool) => json!({
            "type": "function_call", "id": format!("fc_{tool}"), "call_id": call_id(tool), "name": tool, "arguments": arguments(tool),
            "status": "completed",
        }),
        None => json!({
            "type": "message", "id": "msg_scripted", "role": "assistant", "status": "completed",
            "content": [{"type": "output_text", "text": TEXT, "annotations": [], "logprobs": []}],
        }),
    };
    let usage = json!({
        "input_tokens": 120, "input_tokens_details": {"cached_tokens": 64, "cache_write_tokens": 0},
        "output_tokens": 30, "output_tokens_details": {"reasoning_tokens": 12}, "total_tokens": 150,
    });
    json!({
        "id": format!("resp_{}", tool.unwrap_or("text")), "object": "response", "created_at": 1_795_219_200, "status": status,
        "model": model, "output": [output], "usage": usage, "error": null, "incomplete_details": null, "instructions": null,
        "metadata": {}, "parallel_tool_calls": true, "temperature": 1.0, "top_p": 1.0, "tool_choice": "auto", "tools": [],
        "max_output_tokens": null, "previous_response_id": null, "reasoning": {"effort": null, "summary": null},
        "text": {"format": {"type": "text"}}, "truncation": "disabled", "user": null,
    })
}

fn response_events(model: &str, tool: Option<&str>) -> String {
    let mut begun = response(model, tool, "in_progress");
    begun["output"] = json!([]);
    begun["usage"] = Value::Null;
    let done = response(model, tool, "completed");
    let item = &done["output"][0];
    let mut events = vec![
        json!({"type": "response.created", "response": begun}),
        json!({"type": "response.output_item.added", "output_index": 0, "item": item}),
    ];
    if tool.is_none() {
        let place = json!({"output_index": 0, "content_index": 0, "item_id": "msg_scripted"});
        events.push(with(
            &place,
            json!({"type": "response.output_text.delta", "delta": TEXT, "logprobs": []}),
        ));
        events.push(with(
            &place,
            json!({"type": "response.output_text.done", "text": TEXT, "logprobs": []}),
        ));
    }
    events.push(json!({"type": "response.output_item.done", "output_index": 0, "item": item}));
    events.push(json!({"type": "response.completed", "response": done}));
    let mut text = String::new();
    for (number, mut event) in events.into_iter().enumerate() {
        event["sequence_number"] = number.into();
        let name = event["type"].as_str().unwrap_or_default();
        write!(
            text,
            "event: {name}
data: {event}

"
        )
        .unwrap();
    }
    text
}

fn with(place: &Value, mut event: Value) -> Value {
    for (key, value) in place.as_object().into_iter().flatten() {
        event[key] = value.clone();
    }
    event
}

// === Chat Completions ===

fn completion(model: &str, tool: Option<&str>) -> Value {
    let (message, reason) = match tool {
        Some(tool) => (
            json!({"role": "assistant", "content": null, "refusal": null, "tool_calls": [tool_call(tool)]}),
            "tool_calls",
        ),
        None => (json!({"role": "assistant", "content": TEXT, "refusal": null}), "stop"),
    };
    json!({
        "id": "chatcmpl_scripted", "object": "chat.completion", "created": 1_795_219_200, "model": model, "usage": chat_usage(),
        "choices": [{"index": 0, "message": message, "finish_reason": reason, "logprobs": null}],
    })
}

fn completion_chunks(model: &str, tool: Option<&str>) -> String {
    let chunk = |choices: Value, usage: Value| {
        json!({
            "id": "chatcmpl_scripted", "object": "chat.completion.chunk", "created": 1_795_219_200, "model": model,
            "choices": choices, "usage": usage,
        })
    };
    let choice = |delta: Value, reason: Value| json!([{"index": 0, "delta": delta, "finish_reason": reason, "logprobs": null}]);
    let (delta, reason) = match tool {
        Some(tool) => {
            let mut call = tool_call(tool);
            call["index"] = 0.into();
            (json!({"role": "assistant", "content": null, "tool_calls": [call]}), "tool_calls")
        }
        None => (json!({"role": "assistant", "content": TEXT}), "stop"),
    };
    let chunks = [
        chunk(choice(delta, Value::Null), Value::Null),
        chunk(choice(json!({}), reason.into()), Value::Null),
        chunk(json!([]), chat_usage()),
    ];
    let mut text = String::new();
    for chunk in chunks {
        write!(text, "data: {chunk}\n\n").unwrap();
    }
    text + "data: [DONE]\n\n"
}

fn tool_call(tool: &str) -> Value {
    json!({"id": call_id(tool), "type": "function", "function": {"name": tool, "arguments": arguments(tool)}})
}

fn chat_usage() -> Value {
    json!({
        "prompt_tokens": 120, "completion_tokens": 30, "total_tokens": 150,
        "prompt_tokens_details": {"cached_tokens": 64}, "completion_tokens_details": {"reasoning_tokens": 12},
    })
}
