//! /proc and /sys, or a recorded copy of them.

use std::fs;
use std::path::{Path, PathBuf};

/// A file tree that is read as the root.
#[derive(Clone, Debug)]
pub struct Tree {
    root: PathBuf,
}

impl Tree {
    /// This machine's.
    pub fn root() -> Tree {
        Tree::at("/")
    }

    /// A recorded one.
    pub fn at(root: impl Into<PathBuf>) -> Tree {
        Tree { root: root.into() }
    }

    /// Where `path` ("proc/cpuinfo") is.
    pub fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// The text of a file, trimmed; `None` when it cannot be read.
    pub fn text(&self, path: &str) -> Option<String> {
        fs::read(self.path(path)).ok().map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned())
    }

    /// The bytes of a file.
    pub fn bytes(&self, path: &str) -> Option<Vec<u8>> {
        fs::read(self.path(path)).ok()
    }

    /// The number in a file.
    pub fn number(&self, path: &str) -> Option<u64> {
        self.text(path)?.parse().ok()
    }

    /// The names in a directory, sorted; none when it cannot be read.
    pub fn names(&self, path: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(path)).into_iter().flatten().flatten();
        let mut names: Vec<_> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort_by_key(|name| (name.len(), name.clone()));
        names
    }

    /// True when there is such a file or directory.
    pub fn has(&self, path: &str) -> bool {
        self.path(path).exists()
    }

    /// Where a symbolic link points.
    pub fn link(&self, path: &Path) -> Option<PathBuf> {
        fs::read_link(path).ok()
    }
}

/// The numbers of a list as the kernel prints it ("0-3,8").
pub fn numbers(list: &str) -> Vec<u32> {
    let ranges = list.trim().split(',').filter_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(first.parse().ok()?..=last.parse().ok()?)
    });
    ranges.flatten().collect()
}

/// A recorded tree of these files, for tests.
#[cfg(test)]
pub(crate) fn recorded(files: &[(&str, &str)]) -> (tempfile::TempDir, Tree) {
    let dir = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let tree = Tree::at(dir.path());
    (dir, tree)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_the_kernel_are_read() {
        assert_eq!(numbers("0-3,8\n"), [0, 1, 2, 3, 8]);
        assert_eq!(numbers("5"), [5]);
        assert!(numbers("").is_empty());
        assert_eq!(numbers("x-1,2"), [2]);
    }

    #[test]
    fn what_is_not_there_is_none() {
        let (_dir, tree) = recorded(&[("a/b10", "7\n"), ("a/b2", "x")]);
        assert_eq!((tree.number("a/b10"), tree.number("a/b2"), tree.number("a/b3")), (Some(7), None, None));
        assert_eq!(tree.names("a"), ["b2", "b10"]);
        assert!(tree.names("none").is_empty());
    }
}
