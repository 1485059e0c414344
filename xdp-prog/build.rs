//! Puts the eBPF object where `src/object.rs` embeds it from.
//!
//! ```text
//! committed object as old as its sources ──────────────────► used
//! sources changed since ── toolchain there ── rebuilt ─────► used
//!                      └── no toolchain ───────────────────► refused, with the remedy
//! ```
//!
//! So an ordinary build needs nothing but Rust, and a stale object is never embedded. CI rebuilds it always
//! (`xdp-prog/build-object --check`).

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, exit};
use std::{env, fs, io};

use sha2::{Digest, Sha256};

/// Directories whose Rust files the object is made from, beside the files that the hash list names. A file
/// added to one of these makes the object stale although the list does not know it yet.
const SOURCE_DIRS: [&str; 2] = ["xdp-prog/ebpf/src", "xdp-prog/steer/src"];

const OBJECT: &str = "xdp-prog/object/volley.bpf.o";
const HASHES: &str = "xdp-prog/object/volley.bpf.o.sha256";

fn main() {
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR"));
    let root = here.parent().expect("xdp-prog lies in the workspace").to_path_buf();
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("volley.bpf.o");

    println!("cargo::rerun-if-changed={}", root.join(HASHES).display());
    for dir in SOURCE_DIRS {
        println!("cargo::rerun-if-changed={}", root.join(dir).display());
    }

    let stale = match stale_files(&root) {
        Ok(stale) => stale,
        Err(error) => refuse(&format!("cannot read the eBPF object's hash list {HASHES}: {error}")),
    };
    if stale.is_empty() {
        if let Err(error) = fs::copy(root.join(OBJECT), &out) {
            refuse(&format!("cannot copy {OBJECT} to {}: {error}", out.display()));
        }
        return;
    }
    let built = Command::new("bash").arg(here.join("build-object")).arg(&out).output();
    let why = match built {
        Ok(output) if output.status.success() => {
            println!(
                "cargo::warning=the committed eBPF object is older than {}: built afresh for this build; \
                 xdp-prog/build-object renews the committed one",
                stale.join(", ")
            );
            return;
        }
        Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
        Err(error) => format!("bash: {error}"),
    };
    refuse(&format!(
        "the committed eBPF object is older than {}, and building it failed.\n{}\n\
         Remedy: `xdp-prog/toolchain install` once, then `xdp-prog/build-object`; or undo the change.",
        stale.join(", "),
        why.trim_end()
    ));
}

/// The files that differ from what the committed object was made from; all of them are watched.
fn stale_files(root: &Path) -> io::Result<Vec<String>> {
    let list = fs::read_to_string(root.join(HASHES))?;
    let mut known = Vec::new();
    let mut stale = Vec::new();
    // Lines as sha256sum prints them; others (the toolchain's version) are comments.
    for (hash, name) in
        list.lines().filter_map(|line| line.split_once("  ")).filter(|(hash, _)| hash.len() == 64)
    {
        println!("cargo::rerun-if-changed={}", root.join(name).display());
        known.push(name.to_owned());
        if fs::read(root.join(name)).map(|bytes| hex(&Sha256::digest(bytes))).ok().as_deref() != Some(hash)
        {
            stale.push(name.to_owned());
        }
    }
    for dir in SOURCE_DIRS {
        for entry in fs::read_dir(root.join(dir))? {
            let name = format!("{dir}/{}", entry?.file_name().to_string_lossy());
            if name.ends_with(".rs") && !known.contains(&name) {
                stale.push(name);
            }
        }
    }
    Ok(stale)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn refuse(message: &str) -> ! {
    eprintln!("error: {message}");
    exit(1);
}
