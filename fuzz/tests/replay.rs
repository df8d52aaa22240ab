//! Replays every corpus on stable, and checks that each target has all of its parts.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use syncwatch_fuzz::TARGETS;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    entries.map(|entry| entry.expect("it is readable").file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn every_corpus_file_passes_its_target() {
    for (target, run) in TARGETS {
        let corpus = folder("corpus").join(target);
        let files = names(&corpus);
        assert!(!files.is_empty(), "{} is empty", corpus.display());
        for file in files {
            println!("{target}/{file}"); // shown when the target panics
            run(&fs::read(corpus.join(&file)).expect("it is readable"));
        }
    }
}

#[test]
fn every_prefix_of_a_corpus_file_passes_too() {
    for (target, run) in TARGETS {
        let corpus = folder("corpus").join(target);
        for file in names(&corpus) {
            let bytes = fs::read(corpus.join(&file)).expect("it is readable");
            for end in 0..bytes.len().min(2000) {
                println!("{target}/{file}, {end} bytes");
                run(&bytes[..end]);
            }
        }
    }
}

#[test]
fn every_target_has_a_corpus_and_a_binary() {
    let targets: BTreeSet<String> = TARGETS.iter().map(|(target, _)| (*target).to_owned()).collect();
    assert_eq!(names(&folder("corpus")), targets);
    let binaries: BTreeSet<String> = targets.iter().map(|target| format!("{target}.rs")).collect();
    assert_eq!(names(&folder("fuzz_targets")), binaries);
    let manifest = fs::read_to_string(folder("libfuzzer/Cargo.toml")).expect("it is readable");
    for target in targets {
        assert!(manifest.contains(&format!("name = \"{target}\"")), "libfuzzer/Cargo.toml does not name {target}");
    }
}
