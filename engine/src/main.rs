//! The `volley` command: a thin shell around [`volley::cli`].

fn main() -> std::process::ExitCode {
    volley::cli::main()
}
