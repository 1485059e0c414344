//! Sockets of killed processes. A driver that listens (vhost, virtio-user with `server=1`) binds its socket, and cannot where one lies
//! already, also when nobody listens there any more. memif's sockets are the broker's.

use std::io::ErrorKind;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

/// Removes the socket on which `device` would listen, if it is one to which nobody listens.
pub(crate) fn sweep(device: &str) {
    let Some(path) = listens_on(device) else { return };
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    let refused =
        || UnixStream::connect(path).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused);
    if is_socket && refused() && std::fs::remove_file(path).is_ok() {
        log::debug!("{}: nobody listened there any more, and it is removed", path.display());
    }
}

/// The path of a device's socket, where its driver is the one that listens.
fn listens_on(device: &str) -> Option<&Path> {
    let mut words = device.split(',').map(str::trim);
    let name = words.next()?;
    let argument =
        |key: &str| words.clone().filter_map(|word| word.split_once('=')).find(|word| word.0 == key);
    let is_set = |key: &str| argument(key).is_some_and(|(_, value)| value == "1");
    let key = match name {
        _ if name.starts_with("net_vhost") && !is_set("client") => "iface",
        _ if name.starts_with("net_virtio_user") && is_set("server") => "path",
        _ => return None,
    };
    argument(key).map(|(_, path)| Path::new(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn only_who_listens_has_a_socket_to_sweep() {
        for (device, path) in [
            ("net_vhost0,iface=/a/b", Some("/a/b")),
            ("net_vhost0,queues=2,iface=/a/b,client=0", Some("/a/b")),
            ("net_vhost0,iface=/a/b,client=1", None),
            ("net_virtio_user0,path=/a/b,server=1", Some("/a/b")),
            ("net_virtio_user0,path=/a/b", None),
            ("net_memif0,role=server,socket=/a/b", None),
            ("net_null0", None),
        ] {
            assert_eq!(listens_on(device), path.map(Path::new), "{device}");
        }
    }

    #[test]
    fn a_socket_is_removed_when_nobody_listens_and_nothing_else_is() {
        let path = std::env::temp_dir().join(format!("volley-stale-{}", std::process::id()));
        let device = format!("net_vhost0,iface={}", path.display());
        let listener = UnixListener::bind(&path).unwrap();
        sweep(&device);
        assert!(path.exists(), "somebody listens");
        drop(listener);
        sweep(&device);
        assert!(!path.exists());
        std::fs::write(&path, "a file").unwrap();
        sweep(&device);
        assert!(path.exists(), "no socket");
        std::fs::remove_file(&path).unwrap();
        sweep(&device);
    }
}
