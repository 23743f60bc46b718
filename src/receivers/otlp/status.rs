//! The few protobuf messages that answers are made of: those of `proto/google/rpc/status.proto`, OTLP's export responses, and
//! gRPC's health check (<https://github.com/grpc/grpc/blob/master/doc/health-checking.md>).

use prost::Message;

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Message)]
pub(in crate::receivers) struct Status {
    /// A code of gRPC's.
    #[prost(int32, tag = "1")]
    pub(in crate::receivers) code: i32,
    /// What is wrong, in English.
    #[prost(string, tag = "2")]
    pub(in crate::receivers) message: String,
    /// More of it, for programs.
    #[prost(message, repeated, tag = "3")]
    pub(in crate::receivers) details: Vec<Any>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
pub(in crate::receivers) struct Any {
    /// What kind of message it is.
    #[prost(string, tag = "1")]
    pub(in crate::receivers) type_url: String,
    /// The message.
    #[prost(bytes = "vec", tag = "2")]
    pub(in crate::receivers) value: Vec<u8>,
}

/// `google.rpc.BadRequest`.
#[derive(Clone, PartialEq, Message)]
pub(in crate::receivers) struct BadRequest {
    /// What is wrong with which field.
    #[prost(message, repeated, tag = "1")]
    pub(in crate::receivers) field_violations: Vec<FieldViolation>,
}

/// `google.rpc.BadRequest.FieldViolation`.
#[derive(Clone, PartialEq, Message)]
pub(in crate::receivers) struct FieldViolation {
    /// The field.
    #[prost(string, tag = "1")]
    pub(in crate::receivers) field: String,
    /// What is wrong with it.
    #[prost(string, tag = "2")]
    pub(in crate::receivers) description: String,
}

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, Message)]
pub(in crate::receivers) struct RetryInfo {
    /// The wait.
    #[prost(message, optional, tag = "1")]
    pub(in crate::receivers) retry_delay: Option<Duration>,
}

/// `google.protobuf.Duration`.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(in crate::receivers) struct Duration {
    /// Whole seconds.
    #[prost(int64, tag = "1")]
    pub(in crate::receivers) seconds: i64,
    /// Nanoseconds beyond them.
    #[prost(int32, tag = "2")]
    pub(in crate::receivers) nanos: i32,
}

/// `ExportTraceServiceResponse` and its siblings of the other signals, which have the same fields on the wire.
#[derive(Clone, PartialEq, Message)]
pub(in crate::receivers) struct ExportResponse {
    /// Unset when everything was taken and nothing is to be said.
    #[prost(message, optional, tag = "1")]
    pub(in crate::receivers) partial_success: Option<PartialSuccess>,
}

/// `ExportTracePartialSuccess` and its siblings.
#[derive(Clone, PartialEq, Message)]
pub(in crate::receivers) struct PartialSuccess {
    /// `rejected_spans`, `rejected_data_points` and so on.
    #[prost(int64, tag = "1")]
    pub(in crate::receivers) rejected: i64,
    /// Why, or a warning.
    #[prost(string, tag = "2")]
    pub(in crate::receivers) error_message: String,
}

/// `grpc.health.v1.HealthCheckRequest`.
#[derive(Clone, PartialEq, Message)]
pub(in crate::receivers) struct HealthRequest {
    /// The service that is asked for; empty for the whole server.
    #[prost(string, tag = "1")]
    pub(in crate::receivers) service: String,
}

/// `grpc.health.v1.HealthCheckResponse`.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(in crate::receivers) struct HealthResponse {
    /// `SERVING` is 1, `NOT_SERVING` 2.
    #[prost(int32, tag = "1")]
    pub(in crate::receivers) status: i32,
}

impl Any {
    /// A message with its kind, which is its full name.
    pub(in crate::receivers) fn new(name: &str, message: &impl Message) -> Self {
        Self { type_url: format!("type.googleapis.com/{name}"), value: message.encode_to_vec() }
    }
}
