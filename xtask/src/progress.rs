//! What slow steps print on standard error: their beginning, their end with its duration, and a
//! line of what is still under way whenever nothing has been printed for a while.

use std::sync::{Mutex, Once, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// After so long without a line, what is under way is named.
const SILENCE: Duration = Duration::from_secs(2);

/// How often it is named again.
const AGAIN: Duration = Duration::from_secs(4);

/// How often the silence is measured.
const LOOK: Duration = Duration::from_millis(250);

static SCREEN: Mutex<Screen> =
    Mutex::new(Screen { last: None, repeats: false, foreign: 0, active: Vec::new() });

/// What has been printed, and what is under way.
struct Screen {
    last: Option<Instant>,
    /// Whether the last line was one of what is under way.
    repeats: bool,
    /// Commands that draw on the terminal themselves.
    foreign: usize,
    active: Vec<(String, Instant)>,
}

/// While it lasts, another command shows its own progress, and nothing is printed into that.
#[derive(Debug)]
pub struct Foreign(());

impl Foreign {
    /// Begins now.
    #[must_use]
    pub fn begin() -> Self {
        screen().foreign += 1;
        Self(())
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        screen().foreign -= 1;
        printed();
    }
}

/// Something that is under way until it is dropped, and is named only when nothing else is printed.
#[derive(Debug)]
pub struct Active {
    what: String,
    since: Instant,
}

impl Active {
    /// Begins now.
    #[must_use]
    pub fn begin(what: impl Into<String>) -> Self {
        let (what, since) = (what.into(), Instant::now());
        screen().active.push((what.clone(), since));
        watch();
        Self { what, since }
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        screen().active.retain(|(what, since)| (what, since) != (&self.what, &self.since));
    }
}

/// A step that has begun; it prints how long it took when it is done.
#[derive(Debug)]
pub struct Step {
    active: Active,
    done: bool,
}

impl Step {
    /// Prints what begins.
    #[must_use]
    pub fn begin(what: impl Into<String>) -> Self {
        let what = what.into();
        line(&format!("{what} …"));
        Self { active: Active::begin(what), done: false }
    }

    /// Prints that the step is done, and returns the time it took.
    pub fn done(mut self) -> Duration {
        self.done = true;
        let took = self.active.since.elapsed();
        line(&format!("{}: done in {}", self.active.what, seconds(took)));
        took
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if !self.done {
            let took = seconds(self.active.since.elapsed());
            line(&format!("{}: gave up after {took}", self.active.what));
        }
    }
}

/// Prints a line on standard error.
pub fn line(text: &str) {
    eprintln!("{text}");
    printed();
}

/// Notes that something else has printed a line.
fn printed() {
    let mut screen = screen();
    (screen.last, screen.repeats) = (Some(Instant::now()), false);
}

fn screen() -> std::sync::MutexGuard<'static, Screen> {
    SCREEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts the thread that breaks the silence, once a process.
fn watch() {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        thread::spawn(|| {
            loop {
                thread::park_timeout(LOOK);
                screen().break_silence();
            }
        });
    });
}

impl Screen {
    fn break_silence(&mut self) {
        let silence = self.last.map_or(Duration::MAX, |last| last.elapsed());
        let patience = if self.repeats { AGAIN } else { SILENCE };
        if self.active.is_empty() || self.foreign > 0 || silence < patience {
            return;
        }
        eprintln!("  … {}", self.under_way());
        (self.last, self.repeats) = (Some(Instant::now()), true);
    }

    fn under_way(&self) -> String {
        let show =
            |(what, since): &(String, Instant)| format!("{what} ({} s)", since.elapsed().as_secs());
        self.active.iter().map(show).collect::<Vec<_>>().join(", ")
    }
}

/// A duration as people read it: `4.2 s`, or `3 min 20 s`.
#[must_use]
pub fn seconds(duration: Duration) -> String {
    let whole = duration.as_secs();
    if whole < 120 {
        format!("{:.1} s", duration.as_secs_f64())
    } else {
        format!("{} min {} s", whole / 60, whole % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_well() {
        assert_eq!(seconds(Duration::from_millis(4_230)), "4.2 s");
        assert_eq!(seconds(Duration::from_secs(200)), "3 min 20 s");
    }

    #[test]
    fn what_is_under_way_is_named_with_its_time() {
        let now = Instant::now();
        let active = vec![("building".to_owned(), now), ("fetching".to_owned(), now)];
        let screen = Screen { last: None, repeats: false, foreign: 0, active };
        assert_eq!(screen.under_way(), "building (0 s), fetching (0 s)");
    }

    #[test]
    fn a_step_is_under_way_until_it_is_dropped() {
        let is_active = || screen().active.iter().any(|(what, _)| what == "a step of a test");
        let step = Step::begin("a step of a test");
        assert!(is_active());
        step.done();
        assert!(!is_active());
    }
}
