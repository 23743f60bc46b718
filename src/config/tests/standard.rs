//! Sinks from standard environment variables, and cases that must never create one.

use super::*;

/// Returns every configured value of the sinks, as `config show` prints it.
fn sink_lines(texts: &[&str], variables: &[(&str, &str)]) -> Vec<String> {
    let all = values(texts, variables, Vec::new());
    let is_said = |line: &String| line.starts_with("sinks.") && !line.ends_with("# default");
    all.into_iter().filter(is_said).collect()
}

fn loaded(texts: &[&str], variables: &[(&str, &str)]) -> Loaded {
    match read_texts(texts, variables, Vec::new()) {
        Ok(loaded) => loaded,
        Err(report) => panic!("{}", report.render("error", Paint::Plain)),
    }
}

fn mistakes(variables: &[(&str, &str)]) -> String {
    read_texts(&[], variables, Vec::new()).unwrap_err().render("error", Paint::Plain)
}

#[test]
fn the_otlp_variables_of_the_specification_make_a_sink() {
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://otel.example.com:4318/base"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "X-Team = hunter2, authorization=Basic%20aHVudGVyMg=="),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "none"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "2500"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/etc/ca.pem"),
        ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "/etc/me.pem"),
        ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/etc/me.key"),
    ];
    let lines = sink_lines(&[], &variables).join("\n");
    for expected in [
        r#"sinks.otlp.type = "otlp" # OTEL_EXPORTER_OTLP_ENDPOINT"#,
        r#"sinks.otlp.endpoint = "https://otel.example.com:4318/base" # OTEL_EXPORTER_OTLP_ENDPOINT"#,
        r#"sinks.otlp.protocol = "http/json" # OTEL_EXPORTER_OTLP_PROTOCOL"#,
        r#"sinks.otlp.compression = "none" # OTEL_EXPORTER_OTLP_COMPRESSION"#,
        r#"sinks.otlp.timeout = "2500ms" # OTEL_EXPORTER_OTLP_TIMEOUT"#,
        r#"sinks.otlp.headers = { x-team = "[redacted]", authorization = "[redacted]" } # OTEL_EXPORTER_OTLP_HEADERS"#,
        r#"sinks.otlp.tls.ca_file = "/etc/ca.pem" # OTEL_EXPORTER_OTLP_CERTIFICATE"#,
        r#"sinks.otlp.tls.cert_file = "/etc/me.pem" # OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE"#,
    ] {
        assert!(lines.contains(expected), "{expected} is not in\n{lines}");
    }
    assert!(!lines.contains("hunter2") && !lines.contains("aHVudGVyMg"), "{lines}");
    let config = loaded(&[], &variables).config;
    assert_eq!(config.list_sinks(), "otlp (otlp, OTEL_EXPORTER_OTLP_ENDPOINT)");
    assert!(summary(&config).contains("https://otel.example.com:4318/base/v1/traces"));
}

#[test]
fn what_is_said_of_traces_goes_before_what_is_said_of_all_signals() {
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://all.example.com:4318"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://traces.example.com:4318/here"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "1000"),
        ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "3000"),
    ];
    let said = summary(&loaded(&[], &variables).config);
    assert!(said.contains("uri: http://traces.example.com:4318/here,"), "{said}");
    assert!(said.contains("timeout: 3s"), "{said}");
}

#[test]
fn over_grpc_an_address_may_lack_its_scheme() {
    for (insecure, endpoint, expected) in [
        ("", "otel.example.com:4317", "https://otel.example.com:4317/"),
        ("TRUE", "otel.example.com:4317", "http://otel.example.com:4317/"),
        ("true", "https://otel.example.com:4317", "https://otel.example.com:4317/"),
    ] {
        for name in ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"] {
            let variables = [
                ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
                ("OTEL_EXPORTER_OTLP_INSECURE", insecure),
                (name, endpoint),
            ];
            let said = summary(&loaded(&[], &variables).config);
            assert!(said.contains(expected), "{name} {said}");
        }
    }
    let said = mistakes(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "otel.example.com:4318")]);
    assert!(said.contains("--> OTEL_EXPORTER_OTLP_ENDPOINT\n"), "{said}");
}

#[test]
fn a_configuration_that_names_a_sink_is_the_whole_truth() {
    let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://otel.example.com:4318");
    let named = "[sinks.a]\ntype = 'stdout'\n";
    let config = loaded(&[named], &[endpoint]);
    let file = config.list_files("");
    assert_eq!(config.config.list_sinks(), format!("a (stdout, {file}:1)"));
    assert_eq!(config.unused, ["OTEL_EXPORTER_OTLP_ENDPOINT"]);
    let referred = "[sinks.a]\ntype = 'otlp'\nendpoint = '${OTEL_EXPORTER_OTLP_ENDPOINT}'\n";
    assert_eq!(loaded(&[referred], &[endpoint]).unused, [""; 0]);
    let variable = ("SPANFERRY__SINKS__B__TYPE", "stdout");
    let config = loaded(&[], &[endpoint, variable]);
    assert_eq!(config.config.list_sinks(), "b (stdout, SPANFERRY__SINKS__B__TYPE)");
    assert_eq!(config.unused, ["OTEL_EXPORTER_OTLP_ENDPOINT"]);
    assert_eq!(loaded(&[named], &[]).unused, [""; 0]);
}

#[test]
fn a_file_without_sinks_leaves_them_to_the_variables_and_options_can_be_set_beside_them() {
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://otel.example.com:4318"),
        ("SPANFERRY__SINKS__OTLP__BATCH__ITEMS_MAX", "7"),
        ("SPANFERRY__SINKS__OTLP__DIALECT", "genai"),
    ];
    let config = loaded(&["[journal]\nretain = '1h'\n"], &variables).config;
    let [sink] = config.sinks.as_slice() else { panic!("one sink") };
    assert_eq!((sink.kind.name, sink.lane.batch.items_max), ("otlp", 7));
    assert!(summary(&config).contains("dialect: GenAi"));
}

#[test]
fn an_address_of_our_own_in_a_variable_is_for_apps_and_makes_no_sink() {
    for (name, address) in [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4317"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://[::ffff:127.0.0.1]:4318/v1/traces"),
    ] {
        let loaded = loaded(&[], &[(name, address)]);
        assert_eq!(loaded.config.list_sinks(), "traces (file, default)");
        let said = loaded.warnings.unwrap().render("warning", Paint::Plain);
        assert!(said.contains(&format!("--> {name}\n")), "{said}");
        assert!(said.contains("so it creates no sink"), "{said}");
    }
    let elsewhere = ("SPANFERRY__RECEIVERS__HTTP", "127.0.0.1:9");
    let loaded = loaded(&[], &[elsewhere, ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://[::1]:4318")]);
    assert_eq!(loaded.config.list_sinks(), "otlp (otlp, OTEL_EXPORTER_OTLP_ENDPOINT)");
}

#[test]
fn a_mistake_in_a_standard_variable_names_it_and_not_its_value() {
    let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://otel.example.com:4318");
    for (name, value) in [
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "hunter2"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "0"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "hunter2"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "hunter 2=hunter2"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "hunter2"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "hunter2"),
    ] {
        let said = mistakes(&[endpoint, (name, value)]);
        assert!(said.contains(&format!("--> {name}\n")), "{said}");
        assert!(!said.contains("hunter2"), "{said}");
        assert_eq!(said.matches("error: ").count(), 1, "{said}");
    }
}
