//! What the developer commands and the test harness share: builds, tools of package registries,
//! and the processes that they run.

pub mod build;
pub mod documents;
pub mod jobs;
pub mod modules;
pub mod paths;
pub mod prerequisites;
pub mod progress;
pub mod reaper;
pub mod tools;
