//! Finds DPDK through pkg-config, compiles the shim against its headers and makes bindings of both.

use std::env;
use std::path::PathBuf;

/// The oldest release with every call the shim makes: 22.11 LTS.
const OLDEST: &str = "22.11";

/// What the bindings hold: the shim's own names, and the few functions of DPDK's that are exported and have no struct in
/// their signature that changed between releases.
const FUNCTIONS: &[&str] = &[
    "volley_.*",
    "rte_eal_cleanup",
    "rte_strerror",
    "rte_version",
    "rte_thread_register",
    "rte_thread_unregister",
    "rte_dev_probe",
    "rte_eth_dev_get_port_by_name",
    "rte_eth_dev_start",
    "rte_eth_dev_stop",
    "rte_eth_dev_close",
    "rte_eth_dev_set_mtu",
    "rte_eth_promiscuous_enable",
    "rte_eth_allmulticast_enable",
    "rte_eth_tx_done_cleanup",
    "rte_mempool_free",
    "rte_mempool_avail_count",
    "rte_log_cur_msg_loglevel",
];

fn main() {
    println!("cargo:rerun-if-changed=shim");
    let dpdk = match pkg_config::Config::new().atleast_version(OLDEST).probe("libdpdk") {
        Ok(dpdk) => dpdk,
        Err(error) => {
            eprintln!(
                "DPDK {OLDEST} or later is needed to build with it: `hw-setup/deps test`, or on Debian `apt-get install \
                 libdpdk-dev libclang-dev pkg-config`. pkg-config says: {error}"
            );
            std::process::exit(1);
        }
    };
    // `-include rte_config.h` and `-march=…` are flags that the crate pkg-config leaves out.
    let includes = dpdk.include_paths.iter().map(|path| format!("-I{}", path.display()));
    let mut flags: Vec<String> = includes.collect();
    flags.extend(["-include".into(), "rte_config.h".into()]);
    if env::var("CARGO_CFG_TARGET_ARCH").as_deref() == Ok("x86_64") {
        // What DPDK's inline functions need at least, and what its own pkg-config file says.
        flags.push("-march=corei7".into());
    }

    let mut shim = cc::Build::new();
    for flag in &flags {
        shim.flag(flag);
    }
    // A function that a release does not have would be taken for one that returns an int.
    shim.flag("-Werror=implicit-function-declaration");
    shim.opt_level(3).flag("-Wno-deprecated-declarations").define("ALLOW_EXPERIMENTAL_API", None);
    for file in ["burst", "device", "flow", "log", "rss"] {
        shim.file(format!("shim/{file}.c"));
    }
    shim.compile("volley_dpdk_shim");

    let mut bindings = bindgen::Builder::default()
        .header("shim/shim.h")
        .clang_args(&flags)
        .clang_arg("-DALLOW_EXPERIMENTAL_API")
        .allowlist_type("volley_.*")
        .allowlist_var("VOLLEY_.*")
        .opaque_type("rte_mbuf")
        .opaque_type("rte_mempool")
        .opaque_type("rte_flow")
        .derive_default(true)
        .generate_comments(false)
        .layout_tests(false)
        .use_core();
    for function in FUNCTIONS {
        bindings = bindings.allowlist_function(function);
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("bindings.rs");
    let made = bindings.generate().expect("bindgen reads DPDK's headers");
    made.write_to_file(out).expect("OUT_DIR can be written to");
}
