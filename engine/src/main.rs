//! The `volley` command: a thin shell around [`volley::cli`].

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    volley::cli::main()
}

#[cfg(not(target_os = "linux"))]
fn main() -> std::process::ExitCode {
    eprintln!(
        "volley: the command needs Linux; elsewhere the library's memory and mio ports can be built upon"
    );
    std::process::ExitCode::FAILURE
}
