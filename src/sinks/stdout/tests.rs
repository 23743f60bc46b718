//! The output for people, and the behaviour without a reader.

use std::sync::mpsc::{SyncSender, sync_channel};

use super::*;
use crate::sinks::{Pace, samples};
use crate::span::{Detail, Facts, Item, Payload, Text};
use crate::support::golden;

fn style(options: Options) -> encode::Style {
    encode::Style { options, paint: Paint::Plain, prices: Arc::default() }
}

fn printed(options: Options, has_colours: bool) -> String {
    let paint = if has_colours { Paint::Colours } else { Paint::Plain };
    let delivery = samples::delivery(samples::START_NS, samples::every_item());
    let lines =
        encode::encode(&encode::Style { options, paint, prices: Arc::default() }, &delivery);
    String::from_utf8(lines).unwrap()
}

#[test]
fn the_lines_are_those_of_the_golden() {
    golden::check("sinks/pretty.txt", &printed(Options::default(), false));
}

#[test]
fn json_is_the_lines_of_the_schema() {
    let expected = String::from_utf8(golden::read("sinks/jsonl.jsonl")).unwrap();
    assert_eq!(printed(Options { format: Format::Json, ..Options::default() }, true), expected);
}

#[test]
fn payloads_are_shown_only_when_asked_for() {
    let shown = printed(Options { payloads: true, ..Options::default() }, false);
    assert!(
        shown.contains("\n    in  [{\"role\":\"user\",\"content\":\"hello\"}]\n    out hi there\n")
    );
    assert!(!printed(Options::default(), false).contains("hello"));
}

#[test]
fn colors_do_not_change_the_text() {
    let colored = printed(Options::default(), true);
    assert!(colored.contains("\u{1b}[31mERROR too many requests\u{1b}[0m"));
    let mut plain = colored;
    for rendition in ["1", "2", "31", "36", "0"] {
        plain = plain.replace(&format!("\u{1b}[{rendition}m"), "");
    }
    assert_eq!(plain, printed(Options::default(), false));
}

#[test]
fn text_of_a_span_cannot_take_over_the_terminal() {
    let text = || Text::from_static("\u{1b}]0;title\u{7}\r\u{202e}\u{9b}1A");
    let facts = Facts {
        name: text(),
        input: Some(Payload::Text(text())),
        agent: Some(text()),
        ..Facts::default()
    };
    let span = samples::otlp_span(1, &Arc::default(), Detail::default(), facts);
    let options = Options { payloads: true, ..Options::default() };
    let delivery = samples::delivery(0, vec![Item::Span(span)]);
    let lines = encode::encode(&style(options), &delivery);
    let lines = String::from_utf8(lines).unwrap();
    assert!(
        lines.chars().all(|character| !character.is_control() || character == '\n'),
        "{lines:?}"
    );
    assert!(!lines.contains('\u{202e}'));
}

/// A reader, or a closed pipe.
struct Pipe(Option<SyncSender<Vec<u8>>>);

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let reader = self.0.as_ref().ok_or(io::ErrorKind::BrokenPipe)?;
        reader.send(bytes.to_vec()).map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn lines_arrive_while_somebody_reads_and_the_lane_holds_when_nobody_does() {
    let delivery = samples::delivery(0, vec![Item::Span(samples::numbered_span(7))]);
    let (reader, received) = sync_channel(8);
    let sink = Stdout::new(style(Options::default()), Box::new(Pipe(Some(reader))));
    assert_eq!(sink.deliver(&delivery).await, Report::delivered());
    assert!(String::from_utf8(received.recv().unwrap()).unwrap().contains("custom"));
    drop(received);
    assert!(matches!(sink.deliver(&delivery).await.pace, Pace::Hold { .. }));
}
