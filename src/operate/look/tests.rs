//! Tests of looking at traces.
