//! Starting, hearing and ending processes.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};

/// Lines kept from a process that nobody reads at the moment.
const LINES_KEPT: usize = 65_536;

/// The binary under test.
#[derive(Debug, Clone)]
pub struct Binary(PathBuf);

impl Binary {
    /// A binary by its path.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Runs it to its end.
    pub fn run(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<Output> {
        let output = Command::new(&self.0).args(args).stdin(Stdio::null()).output();
        output.with_context(|| format!("running {}", self.0.display()))
    }

    /// Starts it; its stdout is heard line by line, its stderr goes to this process's.
    pub fn start(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<Running> {
        let mut command = Command::new(&self.0);
        command.args(args);
        Running::start(&mut command)
    }
}

/// A process that runs; killed when dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    lines: Receiver<String>,
    /// The last text that [`Self::wait_once_for_line`] has seen.
    seen: Option<String>,
    /// Held open: a supervised process ends when it closes.
    _stdin: Option<ChildStdin>,
}

impl Running {
    /// Starts a command with pipes for stdin and stdout.
    pub fn start(command: &mut Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting")?;
        let stdout = child.stdout.take().ok_or_else(|| anyhow!("no stdout"))?;
        let (sender, lines) = sync_channel(LINES_KEPT);
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(|line| line.ok()) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self {
            _stdin: child.stdin.take(),
            child,
            lines,
            seen: None,
        })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line of its stdout that starts with a text.
    pub fn wait_for_line(&mut self, start: &str, patience: Duration) -> Result<String> {
        let deadline = Instant::now() + patience;
        loop {
            match self
                .lines
                .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            {
                Ok(line) if line.starts_with(start) => return Ok(line),
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => bail!("no line `{start}…` within {patience:?}"),
                Err(RecvTimeoutError::Disconnected) => {
                    bail!("ended before a line `{start}…`: {:?}", self.child.wait()?)
                }
            }
        }
    }

    /// Waits for a line of its stdout that starts with a text; at once if that was waited for before.
    pub fn wait_once_for_line(&mut self, start: &str, patience: Duration) -> Result<()> {
        if self.seen.as_deref() != Some(start) {
            self.wait_for_line(start, patience)?;
            self.seen = Some(start.to_owned());
        }
        Ok(())
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(self.pid() as i32).ok_or_else(|| anyhow!("no pid"))?;
        kill_process(pid, signal).context("signalling")
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill().context("killing")?;
        self.child.wait().context("waiting").map(drop)
    }

    /// Waits for its end.
    pub fn wait(&mut self, patience: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + patience;
        // Its stdout closes when it ends: that is the event waited for.
        loop {
            match self
                .lines
                .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            {
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => return self.child.wait().context("waiting"),
                Err(RecvTimeoutError::Timeout) => bail!("still running after {patience:?}"),
            }
        }
    }

    /// The rest of its stdout, to its end.
    pub fn rest(&mut self, patience: Duration) -> Result<(ExitStatus, String)> {
        let deadline = Instant::now() + patience;
        let mut text = String::new();
        loop {
            match self
                .lines
                .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            {
                Ok(line) => text = text + &line + "\n",
                Err(RecvTimeoutError::Disconnected) => return Ok((self.child.wait()?, text)),
                Err(RecvTimeoutError::Timeout) => bail!("still running after {patience:?}; it said:\n{text}"),
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
