//! Amazon's own client of MSK, from Maven Central, and the compiler of Java.

use std::fs;
use std::path::{Path, PathBuf};

use super::copy_dependencies;
use super::install::install;
use crate::prerequisites::{Prerequisite, java_path, require};

/// The aws-msk-iam-auth that signatures are compared with.
const VERSION: &str = "2.3.5";

/// The folder with the jars of aws-msk-iam-auth and of what it needs beside Kafka.
///
/// # Errors
/// When Maven or Java is missing, or the download fails.
pub fn msk_libs() -> anyhow::Result<PathBuf> {
    let name = format!("aws-msk-iam-auth-{VERSION}");
    let what = format!("fetching aws-msk-iam-auth {VERSION} from Maven Central");
    Ok(install(&name, &what, fetch)?.join("libs"))
}

/// `javac` of the Java that runs Kafka.
///
/// # Errors
/// When there is none.
pub fn javac() -> anyhow::Result<PathBuf> {
    require(Prerequisite::Jdk)?;
    Ok(java_path("javac"))
}

fn fetch(dir: &Path) -> anyhow::Result<()> {
    require(Prerequisite::Java)?;
    require(Prerequisite::Maven)?;
    let pom = dir.join("pom.xml");
    let text = format!(
        "<project xmlns=\"http://maven.apache.org/POM/4.0.0\">\n\
         <modelVersion>4.0.0</modelVersion><groupId>local</groupId>\n\
         <artifactId>msk</artifactId><version>1</version><packaging>pom</packaging>\n\
         <dependencies><dependency><groupId>software.amazon.msk</groupId>\
         <artifactId>aws-msk-iam-auth</artifactId><version>{VERSION}</version></dependency>\n\
         </dependencies></project>\n"
    );
    fs::write(&pom, text)?;
    copy_dependencies(&pom, &dir.join("libs"))
}
