//! Never a wrong byte, whatever strikes and whenever the process ends. `just soak` is the same for longer.

use storage_initializer_integration::soak::Soak;

#[test]
fn fifty_runs_with_faults_and_kills_end_complete_or_with_the_right_code() {
    let seen = Soak { seed: 1, runs: 50, at_a_time: 4 }.run();
    // A soak in which nothing happens shows nothing.
    assert!(seen.killed > 5 && seen.completed > 10 && seen.faults > 20 && seen.failed > 0, "{seen:?}");
}
