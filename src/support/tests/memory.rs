//! The system's count of a process's memory, for tests of memory limits.

/// Set if a test runs in a separate process.
const ALONE: &str = "SPANFERRY_TEST_ALONE";

/// Returns the memory of this process as the system counts it.
pub(crate) fn resident_bytes() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// Fails if the system's count of memory is far beyond `bytes_max`. The system counts in pages, of 2 MiB on some machines, and an allocator
/// retains parts of pages. Half the limit and 4 MiB allow for both; a wrong estimate for thousands of objects exceeds the limit by far
/// more.
#[track_caller]
pub(crate) fn assert_within(case: &str, taken: usize, bytes_max: usize) {
    eprintln!("{case}: {taken} of {bytes_max}");
    assert!(taken < bytes_max / 2 * 3 + (4 << 20), "{case}: {taken} of {bytes_max}");
}

/// Runs each case of this test in a separate process, so that the memory of other tests is not counted.
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
            // Otherwise the allocator retains freed memory for a second.
            .env("MIMALLOC_PURGE_DELAY", "0")
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&alone.stderr).into_owned();
        assert!(alone.status.success(), "{case}: {told}");
        eprintln!("{told}");
    }
}
