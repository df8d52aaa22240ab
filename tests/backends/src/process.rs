//! A program that ends with the test that started it.

use std::io;
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc::{Sender, channel};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};

/// A running program.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    /// Ends the thread that started the program when it is dropped.
    _starter: Sender<()>,
}

impl Process {
    /// Starts a command which `setpriv --pdeathsig` is in front of.
    pub(crate) fn start(mut command: Command) -> io::Result<Self> {
        let (started, start) = channel();
        let (starter, until_dropped) = channel();
        // The system ends the program with the thread that started it, and the thread of a test may be gone before.
        thread::spawn(move || {
            let _gone = started.send(command.spawn());
            let _ended = until_dropped.recv();
        });
        Ok(Self { child: start.recv().map_err(io::Error::other)??, _starter: starter })
    }

    pub(crate) fn pid(&self) -> io::Result<Pid> {
        let pid = self.child.id().try_into().ok().and_then(Pid::from_raw);
        pid.ok_or_else(|| io::Error::other("a process without an id"))
    }

    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(kill_process(self.pid()?, signal)?)
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Waits until it has ended.
    pub(crate) fn reap(mut self) -> io::Result<()> {
        self.child.wait().map(drop)
    }
}
