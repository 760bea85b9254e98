//! A program of the operator's: asked on its standard input, answers on its standard output.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{Found, Login, Source, hook};
use crate::auth::{Identity, UserList};
use crate::config::SourceKind;

/// Runs once for each login that is not remembered.
#[derive(Debug)]
pub(in crate::auth) struct Program {
    path: PathBuf,
    timeout: Duration,
}

impl Program {
    pub(in crate::auth) fn new(path: PathBuf, timeout: Duration) -> Self {
        Self { path, timeout }
    }

    fn ask(&self, question: &[u8]) -> io::Result<Vec<u8>> {
        let deadline = Instant::now() + self.timeout;
        // What it writes on its standard error comes to the server's log.
        let child = Command::new(&self.path)
            .env_clear()
            .env("PATH", PATH)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut child = Ended(child);
        if let Some(mut input) = child.0.stdin.take() {
            // Fits into the pipe. A program that reads nothing may close it.
            match input.write_all(question) {
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
                _ => {}
            }
        }
        let answer = match child.0.stdout.take() {
            Some(output) => read_until(output, deadline)?,
            None => Vec::new(),
        };
        while child.0.try_wait()?.is_none() {
            if Instant::now() >= deadline {
                return Err(io::ErrorKind::TimedOut.into());
            }
            thread::sleep(EXIT_PAUSE);
        }
        match child.0.try_wait()? {
            Some(status) if !status.success() => {
                Err(io::Error::other(format!("it ended with {status}")))
            }
            _ => Ok(answer),
        }
    }
}

impl Source for Program {
    fn kind(&self) -> SourceKind {
        SourceKind::Program
    }

    fn find(&self, login: &Login<'_>) -> Result<Found, String> {
        let answer = self
            .ask(&hook::question(login))
            .map_err(|error| format!("{}: {error}", self.path.display()))?;
        hook::found(&answer, login, self.kind())
    }

    fn list(&self, _users: &UserList) -> Result<Vec<Identity>, String> {
        match self.path.metadata() {
            Ok(_) => Ok(Vec::new()),
            Err(error) => Err(format!("{}: {error}", self.path.display())),
        }
    }
}

/// A child that does not outlive the question.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // Neither fails for a child that has ended but in that nothing is left to do.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn read_until(mut output: impl Read + AsFd, deadline: Instant) -> io::Result<Vec<u8>> {
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        // In whole milliseconds, upwards: zero would be a look, and a busy loop at the end.
        let left = PollTimeout::try_from(left + Duration::from_millis(1))
            .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        let mut waits = [PollFd::new(output.as_fd(), PollFlags::POLLIN)];
        match poll(&mut waits, left) {
            Err(nix::errno::Errno::EINTR) => continue,
            Err(errno) => return Err(errno.into()),
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) => {}
        }
        match output.read(&mut chunk)? {
            0 => return Ok(answer),
            length => answer.extend_from_slice(&chunk[..length]),
        }
        if answer.len() > hook::ANSWER_LENGTH_MAX || Instant::now() >= deadline {
            return Err(io::Error::other("its answer is too long"));
        }
    }
}

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A program that has closed its output is about to end.
const EXIT_PAUSE: Duration = Duration::from_millis(2);

#[cfg(test)]
mod tests {
    use std::fs;
    use std::net::{IpAddr, Ipv4Addr};
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::auth::UserName;

    /// What a shell script makes of a login.
    fn ask(script: &str, timeout: Duration) -> Result<Found, String> {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let name = UserName::parse(b"alice").expect("valid");
        let users = UserList::parse("[default]\nroot = \"/srv\"\n", "users.toml").expect("valid");
        let login = Login {
            name: &name,
            password: b"secret",
            client: IpAddr::V4(Ipv4Addr::LOCALHOST),
            host: "",
            users: &users,
        };
        let path = folder.path().join("program");
        // Run by the shell, which only reads it: a fork in another test may still have it open.
        fs::write(&path, script).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).expect("changed");
        loop {
            let found = Program::new(path.clone(), timeout).find(&login);
            match found {
                Err(error) if error.contains("Text file busy") => thread::yield_now(),
                found => return found,
            }
        }
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn it_reads_the_question_and_its_answer_counts() {
        let script = "#!/bin/sh\nread line\ncase \"$line\" in\n\
            *'\"password\":\"secret\"'*) echo '{\"result\": \"accepted\"}';;\n\
            *) echo '{\"result\": \"refused\"}';;\nesac\n";
        assert!(matches!(ask(script, LONG), Ok(Found::Verified(_))));
        let deaf = "#!/bin/sh\nexec <&-\necho '{\"result\": \"unknown\"}'\n";
        assert_eq!(ask(deaf, LONG), Ok(Found::Unknown));
    }

    #[test]
    fn a_program_that_fails_hangs_or_talks_without_end_lets_nobody_in() {
        let short = Duration::from_millis(100);
        for (script, timeout, part) in [
            ("#!/bin/sh\nexit 3\n", LONG, "exit status: 3"),
            ("#!/bin/sh\nexec sleep 600\n", short, "timed out"),
            ("#!/bin/sh\nexec >&-\nexec sleep 600\n", short, "timed out"),
            ("#!/bin/sh\nexec yes\n", LONG, "too long"),
            ("#!/bin/sh\n", LONG, "not as it should be"),
        ] {
            let error = ask(script, timeout).expect_err(script);
            assert!(error.contains(part), "{script}: {error}");
        }
        let login = Program::new("/nonexistent/program".into(), LONG);
        assert!(login.list(&UserList::default()).is_err());
    }
}
