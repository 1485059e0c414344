//! Prints what steering a packet costs in the kernel: `cargo run -p volley-xdp --example steer-cost` as root.
//! With `--json`, as one line of JSON.

fn main() -> std::process::ExitCode {
    #[cfg(target_os = "linux")]
    match volley_xdp::cost::measure(ROUNDS) {
        Ok(costs) if std::env::args().any(|argument| argument == "--json") => {
            println!("{}", serde_json::to_string(&costs).expect("plain numbers become JSON"));
            return std::process::ExitCode::SUCCESS;
        }
        Ok(costs) => {
            println!("{:<26}{:>10}{:>8}{:>8}  instructions verified", "case", "least ns", "mean", "");
            for cost in &costs.cases {
                let instructions =
                    cost.verified_instructions.map_or("?".to_owned(), |count| count.to_string());
                println!(
                    "{:<26}{:>10}{:>8.2}{:>8}  {instructions} ({})",
                    cost.case, cost.least_ns, cost.mean_ns, "", cost.program
                );
            }
            println!("redirect / bare filter: {:.2} (bar: 1.50)", costs.redirect_ratio);
            return std::process::ExitCode::SUCCESS;
        }
        Err(error) => eprintln!("steer-cost: {error}"),
    }
    #[cfg(not(target_os = "linux"))]
    eprintln!("steer-cost: XDP is Linux's");
    std::process::ExitCode::FAILURE
}

/// Runs of each case: enough for the mean to settle within a tenth of a ns on a quiet machine, in about 2 s.
#[cfg(target_os = "linux")]
const ROUNDS: u32 = 30;
