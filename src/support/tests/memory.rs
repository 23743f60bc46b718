//! What the system counts as memory of a process, for tests of what is bounded.

/// Set where a test runs in a process of its own.
const ALONE: &str = "SPANFERRY_TEST_ALONE";

/// Memory of this process, by the system's own count.
pub(crate) fn resident_bytes() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// Runs each case of this test in a process of its own, so that the memory of others is not counted.
#[expect(clippy::disallowed_methods, reason = "tells the process that runs a case which one")]
pub(crate) fn alone(cases: &[&str], run: impl Fn(&str)) {
    if let Some(case) = std::env::var_os(ALONE) {
        return run(case.to_str().unwrap());
    }
    let name = std::thread::current().name().unwrap().to_owned();
    for case in cases {
        let alone = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &name, "--nocapture"])
            .env(ALONE, case)
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&alone.stderr).into_owned();
        assert!(alone.status.success(), "{case}: {told}");
        eprintln!("{told}");
    }
}
