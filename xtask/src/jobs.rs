//! Jobs that run at the same time, until all are done or one has failed.

use std::sync::mpsc;
use std::thread;

use anyhow::ensure;

/// Work for a thread of its own.
pub type Job = Box<dyn FnOnce() -> anyhow::Result<()> + Send>;

/// Runs jobs side by side. Returns at the first failure; the others then end with this process.
///
/// # Errors
/// When one of them fails or panics.
pub fn side_by_side(jobs: Vec<Job>) -> anyhow::Result<()> {
    let count = jobs.len();
    let (sender, results) = mpsc::channel();
    for job in jobs {
        let sender = sender.clone();
        // Nobody listens any more once another has failed.
        thread::spawn(move || drop(sender.send(job())));
    }
    drop(sender);
    let mut done = 0;
    for result in results {
        result?;
        done += 1;
    }
    ensure!(done == count, "{} of {count} jobs panicked", count - done);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_job_that_fails_ends_the_wait() {
        let (sender, receiver) = mpsc::channel::<()>();
        let waits = move || Ok(receiver.recv()?);
        let fails = || anyhow::bail!("no compiler");
        let error = side_by_side(vec![Box::new(waits), Box::new(fails)]).unwrap_err();
        assert_eq!(error.to_string(), "no compiler");
        drop(sender);
        assert!(side_by_side(vec![Box::new(|| Ok(()))]).is_ok());
        assert!(side_by_side(vec![Box::new(|| panic!("a job"))]).is_err());
    }
}
