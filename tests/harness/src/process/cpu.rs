//! What a process has used of the processor and of memory, from Linux's `/proc`.

use std::fs;
use std::time::Duration;

use anyhow::Context;

/// User and system time of the process and all its threads, in steps of a clock tick (10 ms).
pub(super) fn time(pid: u32) -> anyhow::Result<Duration> {
    let stat = read(pid, "stat")?;
    let ticks = ticks(&stat).with_context(|| format!("cannot read {stat:?}"))?;
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    Ok(Duration::from_micros(ticks.saturating_mul(1_000_000) / per_second))
}

/// Memory in RAM.
pub(super) fn rss_bytes(pid: u32) -> anyhow::Result<u64> {
    let statm = read(pid, "statm")?;
    let pages: u64 = statm
        .split_whitespace()
        .nth(1)
        .and_then(|word| word.parse().ok())
        .with_context(|| format!("cannot read {statm:?}"))?;
    Ok(pages.saturating_mul(u64::try_from(rustix::param::page_size())?))
}

/// The most memory in RAM at any time.
pub(super) fn peak_bytes(pid: u32) -> anyhow::Result<u64> {
    let status = read(pid, "status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    Ok(kib.with_context(|| format!("no VmHWM in {status:?}"))?.saturating_mul(1024))
}

/// Open files and sockets.
pub(super) fn descriptors(pid: u32) -> anyhow::Result<usize> {
    let path = format!("/proc/{pid}/fd");
    Ok(fs::read_dir(&path).with_context(|| format!("cannot read {path}"))?.count())
}

fn read(pid: u32, file: &str) -> anyhow::Result<String> {
    let path = format!("/proc/{pid}/{file}");
    fs::read_to_string(&path)
        .with_context(|| format!("cannot read {path}; it needs Linux and a running process"))
}

/// `utime` + `stime`: fields 14 and 15 of `stat` (proc(5)), counted after the command's name,
/// which is in parentheses and may itself have spaces and parentheses.
fn ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_command_may_have_spaces_and_parentheses() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194560 900 0 3 0 120 35 9 9 20 0 4 0 100 1000 50";
        assert_eq!(ticks(stat), Some(155));
    }

    #[test]
    fn a_cut_line_is_not_a_number() {
        assert_eq!(ticks("7 (a) S 1 7"), None);
        assert_eq!(ticks(""), None);
    }
}
