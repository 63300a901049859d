//! Where the workspace and its target directory are.

use std::env;
use std::path::{Path, PathBuf};

/// The workspace's root folder.
///
/// Cargo sets `CARGO_MANIFEST_DIR` for what it runs, to a member's folder; a binary started by
/// hand falls back to where it was built.
#[must_use]
pub fn workspace() -> PathBuf {
    env::var_os("CARGO_MANIFEST_DIR")
        .map(PathBuf::from)
        .as_deref()
        .and_then(root_above)
        .or_else(|| root_above(Path::new(env!("CARGO_MANIFEST_DIR"))))
        .unwrap_or_else(|| PathBuf::from("."))
}

/// The folder that cargo builds into: `CARGO_TARGET_DIR`, else `target` in the workspace.
#[must_use]
pub fn target() -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => workspace().join(dir),
        None => workspace().join("target"),
    }
}

/// The nearest folder at or above `folder` that has a `Cargo.lock`.
fn root_above(folder: &Path) -> Option<PathBuf> {
    folder.ancestors().find(|dir| dir.join("Cargo.lock").is_file()).map(Path::to_path_buf)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workspace_has_this_package() {
        assert!(workspace().join("xtask/Cargo.toml").is_file());
    }
}
