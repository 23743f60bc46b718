//! Secrets planted in every place of both formats, through every receiver: none of them is sent to Langfuse.

use crate::planted::{self, SECRETS, found_in};
use crate::world::World;

#[tokio::test]
async fn no_planted_secret_leaves_for_langfuse() {
    for (more, table) in [("before_journal = true", "rules"), ("", "sinks.langfuse.rules")] {
        let rule = planted::rule(more).replace("[[rules]]", &format!("[[{table}]]"));
        let world = World::start(&rule).await;
        let (http, grpc) = world.doors();
        planted::send_all(http, grpc).await;
        world.settled().await;
        let posts = world.fake.posts();
        let spans: usize = posts.iter().map(|post| post.message.len()).sum();
        assert!(spans > 1000 * SECRETS, "{spans} bytes");
        for post in &posts {
            assert_eq!(found_in(&post.message), [""; 0], "{table} {more}");
            assert_eq!(found_in(format!("{:?}", post.headers).as_bytes()), [""; 0]);
        }
        assert_eq!(world.fake.lost(), Vec::<String>::new());
        world.stop().await;
    }
}
