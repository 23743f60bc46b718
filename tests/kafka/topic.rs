//! Topics of the broker, created, inspected and written to through the library that the daemon also uses.

use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{Offset, TopicPartitionList};

use super::PATIENCE;
use super::servers::POLL_EVERY;
use super::servers::kafka::Kafka;

const ANSWER_MAX: Duration = Duration::from_secs(30);

fn config(kafka: &Kafka) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", kafka.broker());
    config
}

/// Creates a topic with three partitions and an optional message size limit.
pub(crate) async fn create(kafka: &Kafka, name: &str, message_bytes_max: Option<usize>) {
    let limit = message_bytes_max.map(|max| max.to_string());
    let limit: Vec<_> = limit.iter().map(|max| ("max.message.bytes", max.as_str())).collect();
    create_with(kafka, name, 1, &limit).await;
}

/// Creates a topic with three partitions, this number of replicas, and this configuration.
pub(crate) async fn create_with(kafka: &Kafka, name: &str, replicas: i32, more: &[(&str, &str)]) {
    let mut topic = NewTopic::new(name, 3, TopicReplication::Fixed(replicas));
    topic.config.extend(more);
    let admin: AdminClient<DefaultClientContext> = config(kafka).create().unwrap();
    let options = AdminOptions::new().operation_timeout(Some(ANSWER_MAX));
    let begun = Instant::now();
    // A topic of the same name may still be going away, and a second broker still be joining.
    while admin.create_topics([&topic], &options).await.unwrap()[0].is_err() {
        assert!(begun.elapsed() < PATIENCE, "{name} cannot be made");
        tokio::time::sleep(POLL_EVERY).await;
    }
}

/// Changes a setting of the topic.
pub(crate) async fn set(kafka: &Kafka, name: &str, key: &str, value: &str) {
    let admin: AdminClient<DefaultClientContext> = config(kafka).create().unwrap();
    let change = AlterConfig::new(ResourceSpecifier::Topic(name)).set(key, value);
    let options = AdminOptions::new().operation_timeout(Some(ANSWER_MAX));
    admin.alter_configs([&change], &options).await.unwrap()[0].as_ref().unwrap();
}

/// Deletes a topic.
pub(crate) async fn delete(kafka: &Kafka, name: &str) {
    let admin: AdminClient<DefaultClientContext> = config(kafka).create().unwrap();
    let options = AdminOptions::new().operation_timeout(Some(ANSWER_MAX));
    admin.delete_topics(&[name], &options).await.unwrap()[0].as_ref().unwrap();
}

/// Writes a message to the topic's first partition, with a content type.
pub(crate) async fn write(kafka: &Kafka, name: &str, media: &str, value: &[u8]) {
    let producer: FutureProducer = config(kafka).create().unwrap();
    let header = rdkafka::message::Header { key: "content-type", value: Some(media) };
    let headers = rdkafka::message::OwnedHeaders::new().insert(header);
    let record = FutureRecord::<str, [u8]>::to(name).payload(value).partition(0).headers(headers);
    producer.send(record, ANSWER_MAX).await.unwrap();
}

/// Returns the keys of all messages, by partition.
pub(crate) fn keys(kafka: &Kafka, name: &str) -> [Vec<String>; 3] {
    let consumer: BaseConsumer = config(kafka).set("group.id", "looks").create().unwrap();
    let mut all: [Vec<String>; 3] = Default::default();
    for (partition, keys) in (0..3).zip(&mut all) {
        let (_, end) = consumer.fetch_watermarks(name, partition, ANSWER_MAX).unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(name, partition, Offset::Beginning).unwrap();
        consumer.assign(&list).unwrap();
        while keys.len() < usize::try_from(end).unwrap() {
            // A poll without a message is not an answer.
            let Some(message) = consumer.poll(ANSWER_MAX) else { continue };
            let message = message.unwrap();
            let key = rdkafka::Message::key(&message).unwrap_or_default();
            keys.push(String::from_utf8(key.to_vec()).unwrap());
        }
    }
    all
}
