//! The program `loadtest`.

fn main() -> std::process::ExitCode {
    loadtest::main()
}
