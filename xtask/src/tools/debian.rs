//! Programs and libraries from Debian's packages, unpacked but not installed.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use super::install::{install, run};

/// Unpacks packages, and what of their dependencies is not installed. The package lists of the
/// machine may be missing, as in a container's image, or too old; then they are fetched into the
/// folder, too.
pub(super) fn unpack(packages: &[&str], dir: &Path) -> anyhow::Result<()> {
    let (debs, lists) = (dir.join("debs"), dir.join("lists"));
    fs::create_dir_all(debs.join("partial"))?;
    fs::create_dir_all(lists.join("partial"))?;
    if run(download(packages, &debs, None)).is_err() {
        run(apt_get(&debs, Some(&lists), &["update"]))?;
        run(download(packages, &debs, Some(&lists)))?;
    }
    for entry in fs::read_dir(&debs)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            let mut unpack = Command::new("dpkg");
            unpack.arg("--extract").arg(path).arg(dir);
            run(unpack)?;
        }
    }
    fs::remove_dir_all(&debs)?;
    Ok(fs::remove_dir_all(&lists)?)
}

fn download(packages: &[&str], debs: &Path, lists: Option<&Path>) -> Command {
    let install = ["install", "--yes", "--download-only", "--no-install-recommends"];
    apt_get(debs, lists, &[&install, packages].concat())
}

/// Writes only into the folders given, so that it needs neither root nor the system's lock.
fn apt_get(debs: &Path, lists: Option<&Path>, arguments: &[&str]) -> Command {
    let option = |name: &str, path: &Path| {
        let mut option = OsString::from(name);
        option.push(path);
        [OsString::from("-o"), option]
    };
    let mut command = Command::new("apt-get");
    command.args(["-o", "Debug::NoLocking=1", "-o", "APT::Sandbox::User="]);
    command.args(option("Dir::Cache=", debs)).args(option("Dir::Cache::archives=", debs));
    if let Some(lists) = lists {
        command.args(option("Dir::State::lists=", lists));
    }
    command.args(arguments);
    command
}

/// A command that runs the program of the package `name`: the one in the path, which knows the option
/// `version`, else the one of Debian's package, where it is at `path`.
///
/// # Errors
/// When there is neither; the line that installs it is named, and `purpose` says what for.
pub(super) fn program(
    name: &str,
    version: &str,
    path: &str,
    purpose: &str,
) -> anyhow::Result<Command> {
    if Command::new(name).arg(version).output().is_ok_and(|output| output.status.success()) {
        return Ok(Command::new(name));
    }
    let fetch = |dir: &_| unpack(&[name], dir);
    let fetching = format!("fetching {name} from Debian");
    let root = install(name, &fetching, fetch).with_context(|| {
        format!(
            "{name}, {purpose}, is not installed\n  \
             Debian, Ubuntu: sudo apt-get install --yes {name}\n  \
             macOS:          brew install {name}"
        )
    })?;
    let mut command = Command::new(root.join(path));
    command.env("LD_LIBRARY_PATH", libraries(&root)?);
    Ok(command)
}

/// `usr/lib` and all folders in it, in front of those that are searched anyway.
pub(super) fn libraries(root: &Path) -> anyhow::Result<OsString> {
    let parents = ["usr/lib", "lib"].map(|folder| root.join(folder));
    let mut rest: Vec<_> = parents.into_iter().filter(|folder| folder.is_dir()).collect();
    let mut folders = Vec::new();
    while let Some(folder) = rest.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                rest.push(entry.path());
            }
        }
        folders.push(folder);
    }
    if let Some(more) = env::var_os("LD_LIBRARY_PATH") {
        folders.extend(env::split_paths(&more).collect::<Vec<PathBuf>>());
    }
    Ok(env::join_paths(folders)?)
}
