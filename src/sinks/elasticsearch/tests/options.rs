//! The resolution of options.

use super::*;
use crate::sinks::http::Compression;

fn problems(text: &str) -> Vec<String> {
    parse(text).unwrap_err().into_iter().map(|problem| problem.what).collect()
}

const ENDPOINTS: &str = "endpoints = [\"https://es:9200\"]\n";

#[test]
fn every_mistake_is_said_and_no_value_is_quoted() {
    for none in ["", "endpoints = []"] {
        assert_eq!(problems(none), ["`endpoints` is missing or empty"]);
    }
    let address = "an endpoint is not an address that begins with http:// or https://";
    assert_eq!(problems("endpoints = [\"es:9200\", \"ftp://x\"]"), [address, address]);
    assert_eq!(
        problems("endpoints = [\"https://me:hunter2@es\"]"),
        ["an endpoint contains credentials"]
    );
    assert_eq!(
        problems(&format!(
            "{ENDPOINTS}api_key = \"k\"\nbearer = \"b\"\nuser = \"u\"\nindex_prefix = \"Traces\"\n\
             doc_bytes_max = \"4KiB\"\nrequest_bytes_max = \"2KiB\"\nconcurrency = 0\n\
             compression = \"zstd\"\ntimeout = \"0s\""
        )),
        [
            "`api_key`, `user` and `bearer` are mutually exclusive",
            "`user` and `password` go together",
            "`index_prefix` cannot begin an index name",
            "less than 16KiB does not hold a document",
            "`request_bytes_max` is less than `doc_bytes_max`",
            "not a valid number of requests",
            "bulk requests are sent plain or with gzip",
            "`timeout` must be more than zero",
        ]
    );
    let map = |words: &str| parse(&format!("{ENDPOINTS}span_type_map = {{ {words} }}"));
    let misspelt = &map("functon = \"tool_call\"").unwrap_err()[0];
    assert_eq!(misspelt.what, "no span has the type `functon`");
    assert_eq!(misspelt.hint.as_deref(), Some("did you mean `function`?"));
    assert!(misspelt.at.is_some(), "{misspelt:?}");
    assert!(map("function = \"a\", mcp_tools = \"b\", of_their_own = \"c\"").is_ok());
    for unset in ["api_key", "bearer"] {
        assert_eq!(problems(&format!("{ENDPOINTS}{unset} = \"\"")), ["a key is empty"]);
    }
    for prefix in ["logs-agents", "traces-x", "metrics-", "synthetics-a"] {
        let found = problems(&format!("{ENDPOINTS}index_prefix = {prefix:?}"));
        assert!(found[0].contains("data streams"), "{found:?}");
    }
}

#[test]
fn credentials_become_a_header_that_is_never_printed() {
    for (text, header) in [
        ("api_key = \"ZW5jb2RlZA==\"", "ApiKey ZW5jb2RlZA=="),
        ("api_key = \"id:secret\"", "ApiKey aWQ6c2VjcmV0"),
        ("api_key = \"secret\"\napi_key_id = \"id\"", "ApiKey aWQ6c2VjcmV0"),
        ("user = \"u\"\npassword = \"p\"", "Basic dTpw"),
        ("bearer = \"token\"", "Bearer token"),
    ] {
        let settings = parse(&format!("{ENDPOINTS}{text}")).unwrap();
        assert_eq!(settings.headers["authorization"], header);
        assert!(settings.headers["authorization"].is_sensitive());
        let shown = format!("{:?} {:?}", settings, Plan::expanded(&settings));
        assert!(!shown.contains(header.split(' ').next_back().unwrap()), "{shown}");
    }
}

#[test]
fn a_cloud_id_is_an_address() {
    let id = |text: &str| {
        let mut encoded = Vec::new();
        crate::support::base64::write(&mut encoded, text.as_bytes());
        format!("cloud_id = \"name:{}\"", String::from_utf8(encoded).unwrap())
    };
    let address = |text: &str| parse(&id(text)).unwrap().endpoints[0].to_string();
    assert_eq!(address("eu.aws.example.com$es1$kb1"), "https://es1.eu.aws.example.com:443/");
    assert_eq!(address("eu.example.com:9243$es1$kb1"), "https://es1.eu.example.com:9243/");
    for wrong in ["", "host", "$es$kb"] {
        assert_eq!(problems(&id(wrong)), ["`cloud_id` is not a deployment's id"]);
    }
}

#[test]
fn a_neighbour_on_this_machine_gets_plain_bodies() {
    for (endpoint, compression) in [
        ("http://localhost:9200", Compression::None),
        ("http://[::1]:9200", Compression::None),
        ("http://127.0.0.1", Compression::None),
        ("http://es:9200", Compression::Gzip),
    ] {
        let settings = parse(&format!("endpoints = [{endpoint:?}]")).unwrap();
        assert_eq!(settings.compression, compression, "{endpoint}");
    }
}

#[test]
fn the_commands_for_an_operator_name_every_template() {
    let commands = settings("rotation = \"daily\"").commands().unwrap();
    for path in [
        "PUT _ilm/policy/agent-traces",
        "PUT _component_template/agent-traces-spans@mappings",
        "PUT _component_template/agent-traces-spans@settings",
        "PUT _component_template/agent-traces-spans@custom?create=true",
        "PUT _index_template/agent-traces-spans",
        "PUT _index_template/agent-traces-traces",
    ] {
        assert!(commands.contains(&format!("{path}\n{{")), "{path}");
    }
}
