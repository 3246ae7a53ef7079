//! The program `loadtest`.

/// What drives and what is driven share the machine: the C library's allocator took a third of the generator's time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    loadtest::main()
}
