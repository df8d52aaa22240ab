//! What the kernel says of a process and its children: CPU time and resident memory.

use std::fs;
use std::io;
use std::time::Duration;

/// A running process, with the children it has.
#[derive(Debug, Clone, Copy)]
pub struct Process {
    pid: u32,
}

impl Process {
    /// The process of this id.
    pub fn new(pid: u32) -> Self {
        Self { pid }
    }

    /// The process that asks.
    pub fn current() -> Self {
        Self::new(std::process::id())
    }

    /// The CPU time that the threads now running have had, in user space and in the kernel.
    ///
    /// # Errors
    /// The process is gone.
    pub fn cpu(&self) -> io::Result<Duration> {
        self.sum(cpu_nanos).map(Duration::from_nanos)
    }

    /// The resident memory in KiB.
    ///
    /// # Errors
    /// The process is gone.
    pub fn rss_kib(&self) -> io::Result<u64> {
        self.sum(|pid| status_kib(pid, "VmRSS:"))
    }

    /// The most resident memory in KiB that the process has had at a time. Each child adds its own peak, whenever that was.
    ///
    /// # Errors
    /// The process is gone.
    pub fn peak_rss_kib(&self) -> io::Result<u64> {
        self.sum(|pid| status_kib(pid, "VmHWM:"))
    }

    /// How many files the process may have open; none where there is no limit.
    ///
    /// # Errors
    /// The process is gone.
    pub fn open_files(&self) -> io::Result<Option<u64>> {
        let limits = fs::read_to_string(format!("/proc/{}/limits", self.pid))?;
        let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap_or_default();
        Ok(line.split_whitespace().next().and_then(|soft| soft.parse().ok()))
    }

    /// What `measure` says of the process and of all that descend from it, those left out that have just ended.
    fn sum(&self, measure: fn(u32) -> io::Result<u64>) -> io::Result<u64> {
        let children = self.descendants()?.into_iter().filter_map(|pid| measure(pid).ok()).sum::<u64>();
        Ok(measure(self.pid)? + children)
    }

    fn descendants(&self) -> io::Result<Vec<u32>> {
        let processes = fs::read_dir("/proc")?
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
            .filter_map(|pid| Some((pid, parent(pid)?)))
            .collect::<Vec<_>>();
        let children = |of| processes.iter().filter(move |(_, parent)| *parent == of).map(|(pid, _)| *pid);
        let mut descendants = children(self.pid).collect::<Vec<_>>();
        let mut looked_at = 0;
        while let Some(&parent) = descendants.get(looked_at) {
            descendants.extend(children(parent));
            looked_at += 1;
        }
        Ok(descendants)
    }
}

fn cpu_nanos(pid: u32) -> io::Result<u64> {
    let mut nanos = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end between the listing and the reading.
        let Ok(line) = fs::read_to_string(thread?.path().join("schedstat")) else { continue };
        nanos += line.split_whitespace().next().and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(nanos)
}

/// A field of the process's status that is a number of KiB.
fn status_kib(pid: u32, field: &str) -> io::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap_or_default();
    Ok(line.split_whitespace().next().and_then(|field| field.parse().ok()).unwrap_or(0))
}

/// The parent of a process: the second field behind the name, which stands in parentheses and may hold anything.
fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};
    use std::time::Instant;

    use super::*;

    #[test]
    fn cpu_time_grows_with_work() {
        let before = Process::current().cpu().unwrap();
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(50) {}
        assert!(Process::current().cpu().unwrap() > before);
    }

    #[test]
    fn children_count_with_their_parent() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        assert!(Process::current().descendants().unwrap().contains(&child.id()));
        assert!(Process::current().rss_kib().unwrap() > Process::new(child.id()).rss_kib().unwrap());
        drop(child.stdin.take());
        child.wait().unwrap();
    }

    #[test]
    fn the_peak_of_memory_stays() {
        let process = Process::current();
        let before = process.rss_kib().unwrap();
        let block = vec![1_u8; 64 << 20];
        assert!(block.iter().all(|byte| *byte == 1));
        drop(block);
        assert!(process.peak_rss_kib().unwrap() >= before + (60 << 10));
    }

    #[test]
    fn a_process_that_is_gone_is_an_error() {
        let gone = Process::new(u32::MAX);
        assert!(gone.cpu().is_err() && gone.rss_kib().is_err());
    }
}
