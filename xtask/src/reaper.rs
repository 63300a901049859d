//! A shell that outlives this process by a moment, to kill the children it left behind, and to
//! remove their folders.
//!
//! A Ctrl-C, a SIGKILL or an abort ends a test process without running any `drop`. The shell
//! reads the process groups and folders from a pipe; the pipe ends with this process, however that
//! ends.

use std::fmt::Display;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use rustix::process::Pid;

const SCRIPT: &str = r#"
trap '' INT TERM HUP
groups=''
while read -r verb what; do
  case "$verb" in
    watch | forget)
      kept=''
      for one in $groups; do [ "$one" = "$what" ] || kept="$kept $one"; done
      groups="$kept"
      [ "$verb" = watch ] && groups="$groups $what" ;;
    sweep | keep)
      for one; do shift; [ "$one" = "$what" ] || set -- "$@" "$one"; done
      [ "$verb" = sweep ] && set -- "$@" "$what" ;;
  esac
done
for one in $groups; do kill -9 "-$one" 2>/dev/null; done
[ "$#" = 0 ] || rm -rf -- "$@"
"#;

static REAPER: Mutex<Option<Child>> = Mutex::new(None);

/// Has the process group killed if this process ends without [`forget`].
pub fn watch(group: Pid) {
    tell("watch", &group.as_raw_nonzero());
}

/// A child that leads a process group of its own, and is killed with its group when this process
/// ends before the guard is dropped.
#[derive(Debug)]
#[must_use = "dropping it ends the watch"]
pub struct Watched(Option<Pid>);

/// Watches a child that was started in a process group of its own.
pub fn watch_child(child: &Child) -> Watched {
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    group.into_iter().for_each(watch);
    Watched(group)
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.0.into_iter().for_each(forget);
    }
}

/// The process group is gone; its number may belong to others from now on.
pub fn forget(group: Pid) {
    tell("forget", &group.as_raw_nonzero());
}

/// Has the folder removed when this process ends without [`keep`], after its groups are killed.
pub fn sweep(folder: &Path) {
    tell("sweep", &folder.display());
}

/// The folder stays, or is its owner's to remove.
pub fn keep(folder: &Path) {
    tell("keep", &folder.display());
}

/// Without a shell the children are still ended by their owners' `drop`: not worth a failure.
fn tell(verb: &str, what: &dyn Display) {
    let mut reaper = REAPER.lock().unwrap_or_else(PoisonError::into_inner);
    if reaper.is_none() {
        *reaper = start().ok();
    }
    if let Some(pipe) = reaper.as_mut().and_then(|shell| shell.stdin.as_mut()) {
        let line = format!("{verb} {what}\n");
        let _no_shell = pipe.write_all(line.as_bytes());
    }
}

fn start() -> std::io::Result<Child> {
    Command::new("sh")
        .args(["-c", SCRIPT])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_the_end_groups_are_killed_and_folders_removed_that_were_not_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        let folders = ["swept", "with a space", "kept"].map(|name| dir.path().join(name));
        for folder in &folders {
            std::fs::create_dir_all(folder.join("inner")).unwrap();
        }
        let sleeper = || Command::new("sleep").arg("60").process_group(0).spawn().unwrap();
        let [mut watched, mut forgotten] = [sleeper(), sleeper()];
        let mut shell = start().unwrap();
        let mut pipe = shell.stdin.take().unwrap();
        for (verb, child) in [("watch", &watched), ("watch", &forgotten), ("forget", &forgotten)] {
            writeln!(pipe, "{verb} {}", child.id()).unwrap();
        }
        for folder in &folders {
            writeln!(pipe, "sweep {}", folder.display()).unwrap();
        }
        writeln!(pipe, "keep {}", folders[2].display()).unwrap();
        drop(pipe);
        shell.wait().unwrap();
        assert!(!watched.wait().unwrap().success());
        assert!(forgotten.try_wait().unwrap().is_none(), "it runs on");
        forgotten.kill().unwrap();
        forgotten.wait().unwrap();
        assert_eq!(folders.map(|folder| folder.exists()), [false, false, true]);
    }
}
