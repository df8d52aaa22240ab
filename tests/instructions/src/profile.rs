//! What a callgrind profile says, per operation.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

/// What one operation costs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Cost {
    /// Instructions, those of the C library included and those of the kernel not.
    pub instructions: f64,
    /// Calls of the allocator that may return new memory.
    pub allocations: f64,
}

impl Cost {
    /// Reads a profile of so many operations.
    ///
    /// Source: the manual of valgrind, "Callgrind Format Specification".
    pub(crate) fn from_profile(profile: &str, operations: u32) -> Option<Self> {
        let mut names = HashMap::new();
        let mut called = "";
        let mut allocations = 0;
        let mut instructions = None;
        for line in profile.lines() {
            if let Some(name) = line.strip_prefix("fn=") {
                resolve(&mut names, name);
            } else if let Some(name) = line.strip_prefix("cfn=") {
                called = resolve(&mut names, name);
            } else if let Some(calls) = line.strip_prefix("calls=") {
                if ALLOCATORS.contains(&called) {
                    allocations += calls.split(' ').next()?.parse::<u32>().ok()?;
                }
            } else if let Some(total) = line.strip_prefix("totals: ") {
                instructions = total.parse::<f64>().ok();
            }
        }
        let each = |count: f64| (count / f64::from(operations) * 100.0).round() / 100.0;
        Some(Self { instructions: each(instructions?), allocations: each(f64::from(allocations)) })
    }
}

/// Expands a compressed name: `(7) malloc` the first time, `(7)` from then on.
fn resolve<'a>(names: &mut HashMap<&'a str, &'a str>, name: &'a str) -> &'a str {
    match name.split_once(' ') {
        Some((number, name)) => {
            names.insert(number, name);
            name
        }
        None => names.get(name).copied().unwrap_or_default(),
    }
}

const ALLOCATORS: [&str; 5] = ["malloc", "calloc", "realloc", "posix_memalign", "aligned_alloc"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_and_calls_of_the_allocator_are_divided_by_the_operations() {
        let profile = "fn=(1) main\n5 90\ncfn=(2) malloc\ncalls=30 0\n5 300\ncfn=(3) free\ncalls=30 0\n5 100\n\
                       fn=(4) other\ncfn=(2)\ncalls=1 0\n5 10\n\ntotals: 500\n";
        assert_eq!(Cost::from_profile(profile, 10), Some(Cost { instructions: 50.0, allocations: 3.1 }));
        assert_eq!(Cost::from_profile("", 10), None);
    }
}
