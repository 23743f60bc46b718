//! The same captured requests through every kind of sink at once, compared with what each backend then shows.

use std::fmt::Write as _;

use super::expected::Expected;
use super::process::Config;
use super::{World, backends, captured, directory, seen, whole};

#[tokio::test]
async fn every_place_shows_what_the_agents_sdks_sent() {
    let dir = directory();
    let backends = backends::all(dir.path()).await;
    let mut tables = String::new();
    for backend in &backends {
        writeln!(tables, "[sinks.{}]\n{}\n", backend.name(), backend.table()).unwrap();
    }
    let world = World::start(dir, &Config { tables, ..Config::default() }).await;
    let requests = captured::requests();
    let expected = Expected::of(&requests);
    for request in &requests {
        request.send(&world).await;
    }
    let names: Vec<_> = backends.iter().map(|backend| backend.name()).collect();
    world.settled(&names).await;

    println!("{}", seen::HEAD);
    let mut own = String::new();
    for backend in &backends {
        let sink = world.sink(backend.name());
        assert_eq!(sink["accepted"], expected.items.len(), "{sink}");
        assert_eq!(sink["delivered"], sink["accepted"], "{sink}");
        let seen = whole(&**backend, &expected).await;
        println!("{}", seen::check(backend.name(), &seen, &expected, &backend.words()));
        if let Some(figures) = backend.own_figures(&expected).await {
            writeln!(own, "{}: {figures}", backend.name()).unwrap();
        }
    }
    println!("\n{own}");
}
