//! The program as a shell sees it: arguments and environment in, output and exit status out.

use std::path::PathBuf;
use std::process::{Command, Output};
use std::{env, fs, process};

/// Runs the program in an empty directory with nothing but these variables set.
fn run(name: &str, arguments: &[&str], environment: &[(&str, &str)]) -> (Output, PathBuf) {
    let dir = env::temp_dir().join(format!("syncwatch-cli-{}-{name}", process::id()));
    fs::create_dir_all(&dir).expect("the directory for temporary files can be written");
    let output = Command::new(env!("CARGO_BIN_EXE_syncwatch"))
        .args(arguments)
        .env_clear()
        .envs(environment.iter().copied())
        .current_dir(&dir)
        .output()
        .expect("the program is built and starts");
    (output, dir)
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("the program writes UTF-8")
}

#[test]
fn help_goes_to_standard_output_and_is_no_error() {
    let (output, dir) = run("help", &["--help"], &[("PORT", "wrong")]);
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stdout).contains("[env: PORT] [default: 4000]"), "{}", text(&output.stdout));
    assert!(output.stderr.is_empty());
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn wrong_settings_are_all_named_and_the_status_is_2() {
    let (output, dir) = run("wrong", &["--guest-rooms", "x"], &[("PORT", "http"), ("REDIS_URL", "hunter2")]);
    assert_eq!(output.status.code(), Some(2));
    let names: Vec<_> = text(&output.stderr).lines().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(names, ["PORT", "GUEST_ROOMS", "REDIS_URL", "JWT_SECRET"]);
    assert!(!text(&output.stderr).contains("hunter2"));
    assert!(output.stdout.is_empty());
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn an_unknown_flag_is_status_2() {
    let (output, dir) = run("unknown", &["--prot", "1"], &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("--prot"));
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_token_is_alone_on_standard_output() {
    let (output, dir) = run("token", &["token", "--user-id", "u1"], &[("JWT_SECRET", "short")]);
    assert_eq!(output.status.code(), Some(0));
    let lines: Vec<_> = text(&output.stdout).lines().collect();
    assert!(matches!(lines[..], [token] if token.split('.').count() == 3), "{lines:?}");
    assert!(text(&output.stderr).starts_with("warning: JWT_SECRET has 5 bytes"));
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_token_of_the_first_start_makes_the_secret_in_the_data_directory() {
    let (output, dir) = run("first", &["token", "--user-id", "u1", "--ttl", "30s"], &[]);
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stderr.is_empty());
    assert!(dir.join("data/jwt_secret").exists());
    fs::remove_dir_all(dir).unwrap();
}
