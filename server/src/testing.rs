//! What several unit tests need.

use std::path::{Path, PathBuf};
use std::{env, fs};

use crate::id;

/// A directory of its own for one test, removed with it.
#[derive(Debug)]
pub(crate) struct TempDir(PathBuf);

impl TempDir {
    pub(crate) fn new() -> Self {
        let path = env::temp_dir().join(format!("syncwatch-test-{}", id::row_id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
