//! The processes in which PAM is asked.
//!
//! The server has given up root, and many modules need it; modules may wait without end, change the
//! credentials of all threads, or end their process. So before it gives up root, the server starts a
//! process that keeps it, the *keeper*. For each login the keeper starts a process of its own that asks
//! PAM once and ends; one that takes too long is killed. The server hands over one end of a new channel,
//! and speaks through the other end with that process alone: the keeper never sees a byte of a client's.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, TryLockError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::config::{Config, HASH_THREADS_MAX};
use crate::sys::handing;
use crate::sys::pam::{self, Verdict};

/// The way to the keeper, who lives as long as this does.
#[derive(Debug)]
pub struct PamDoor {
    keeper: OwnedFd,
    /// The last question that ended had no answer in time.
    is_stuck: AtomicBool,
    /// Whoever tries meanwhile whether there are answers again.
    trial: Mutex<()>,
}

impl PamDoor {
    /// Starts the keeper, if PAM is asked for users at all. To be called before root is given up.
    ///
    /// # Errors
    /// What the system says to a new process.
    pub fn open(config: &Config) -> io::Result<Option<Arc<Self>>> {
        if !config.asks_pam() {
            return Ok(None);
        }
        let (keeper, its) = handing::pair()?;
        // Its end is seen by the channel; that it is reaped only with this process does no harm.
        this_program(&[KEEPER, &config.users.pam_service], its)
            .stdout(Stdio::null())
            .spawn()?;
        Ok(Some(Arc::new(Self {
            keeper,
            is_stuck: AtomicBool::new(false),
            trial: Mutex::new(()),
        })))
    }

    /// Asks PAM; for at most `timeout`, and not at all while another one tries whether PAM, which did not
    /// answer, does so again: it must not take the threads that others' logins need, too.
    ///
    /// # Errors
    /// Why there is no verdict.
    pub(super) fn ask(
        &self,
        question: &Question<'_>,
        timeout: Duration,
    ) -> Result<Verdict, String> {
        let _trial = match self.is_stuck.load(Ordering::Relaxed) {
            false => None,
            true => match self.trial.try_lock() {
                Ok(trial) => Some(trial),
                Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) => return Err("it does not answer".to_owned()),
            },
        };
        let answered = self.exchange(question, timeout);
        let is_stuck = matches!(&answered, Err(error) if error.kind() == io::ErrorKind::TimedOut);
        self.is_stuck.store(is_stuck, Ordering::Relaxed);
        match answered {
            Ok(answer) => verdict(&answer),
            Err(error) => Err(match error.kind() {
                io::ErrorKind::TimedOut => "no answer within users.source_timeout".to_owned(),
                io::ErrorKind::UnexpectedEof => {
                    "its process has ended without an answer".to_owned()
                }
                io::ErrorKind::BrokenPipe => "its keeper has ended: restart the server".to_owned(),
                _ => error.to_string(),
            }),
        }
    }

    fn exchange(&self, question: &Question<'_>, timeout: Duration) -> io::Result<Vec<u8>> {
        let deadline = Instant::now() + timeout;
        let (ours, its) = handing::pair()?;
        let milliseconds = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
        handing::hand_over(&self.keeper, &milliseconds.to_le_bytes(), &its)?;
        drop(its);
        let mut answer = vec![0; ANSWER_LENGTH_MAX];
        let length = handing::ask(&ours, &question.to_bytes(), &mut answer, deadline)?;
        answer.truncate(length);
        Ok(answer)
    }
}

/// What PAM is asked.
#[derive(Clone, Copy)]
pub(super) struct Question<'q> {
    pub(super) user: &'q str,
    pub(super) client: &'q str,
    pub(super) password: &'q [u8],
}

impl<'q> Question<'q> {
    /// NUL cannot be part of a name or an address.
    fn to_bytes(self) -> Vec<u8> {
        [self.user.as_bytes(), self.client.as_bytes(), self.password].join(&0)
    }

    fn of(bytes: &'q [u8]) -> Option<Self> {
        let mut parts = bytes.splitn(3, |byte| *byte == 0);
        Some(Self {
            user: std::str::from_utf8(parts.next()?).ok()?,
            client: std::str::from_utf8(parts.next()?).ok()?,
            password: parts.next()?,
        })
    }
}

/// The words of answers.
const VERDICTS: [(&str, Verdict); 5] = [
    ("accepted", Verdict::Accepted),
    ("refused", Verdict::Refused),
    ("closed", Verdict::Closed),
    ("expired", Verdict::Expired),
    ("password-expired", Verdict::PasswordExpired),
];

/// What begins an answer that is no verdict.
const FAILED: &str = "failed ";

fn answer(verdict: Result<Verdict, String>) -> String {
    match verdict {
        Ok(verdict) => {
            let word = VERDICTS.iter().find(|(_, known)| *known == verdict);
            word.map_or_else(String::new, |(word, _)| (*word).to_owned())
        }
        Err(reason) => format!("{FAILED}{reason}"),
    }
}

fn verdict(answer: &[u8]) -> Result<Verdict, String> {
    let answer = String::from_utf8_lossy(answer);
    let known = VERDICTS.iter().find(|(word, _)| *word == answer);
    match known {
        Some((_, verdict)) => Ok(*verdict),
        None => Err(match answer.strip_prefix(FAILED) {
            Some(reason) => reason.to_owned(),
            None => "its process answers what nobody understands".to_owned(),
        }),
    }
}

/// The keeper: starts a process for each channel that comes on standard input, until that ends.
///
/// # Errors
/// As recvmsg(2).
pub fn keep(service: &str) -> io::Result<()> {
    let running = Arc::new(AtomicUsize::new(0));
    let input = io::stdin();
    let mut timeout = [0; 4];
    while let Some((_, channel)) = handing::take(input.as_fd(), &mut timeout)? {
        // What is dropped here reads as an end at the other one.
        if running.load(Ordering::Relaxed) >= PROCESSES_MAX {
            continue;
        }
        let Ok(child) = start_once(service, channel) else {
            continue;
        };
        running.fetch_add(1, Ordering::Relaxed);
        let running = Arc::clone(&running);
        let timeout = Duration::from_millis(u32::from_le_bytes(timeout).into());
        thread::spawn(move || {
            end_in_time(child, timeout);
            running.fetch_sub(1, Ordering::Relaxed);
        });
    }
    Ok(())
}

fn start_once(service: &str, channel: OwnedFd) -> io::Result<Child> {
    let output = channel.try_clone()?;
    this_program(&[ONCE, service], channel)
        .stdout(Stdio::from(output))
        .process_group(0)
        .spawn()
}

fn end_in_time(mut child: Child, timeout: Duration) {
    let deadline = Instant::now() + timeout;
    let mut pause = Duration::from_millis(1);
    while matches!(child.try_wait(), Ok(None)) && Instant::now() < deadline {
        thread::sleep(pause);
        pause = (pause * 2).min(PAUSE_MAX);
    }
    // With what its modules have started. None of it fails but in that nothing is left to do.
    if let (Ok(None), Ok(group)) = (child.try_wait(), i32::try_from(child.id())) {
        let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
    }
    let _ = child.wait();
}

/// Asks PAM for one login: the question comes on standard input, the answer goes to standard output.
///
/// # Errors
/// As read(2) and write(2).
pub fn ask_once(service: &str) -> io::Result<()> {
    let mut question = [0; QUESTION_LENGTH_MAX];
    let length = io::stdin().read(&mut question)?;
    let judged = match Question::of(&question[..length]) {
        Some(asked) => pam::verify(service, asked.user, asked.password, asked.client),
        None => Err("the question is not understood".to_owned()),
    };
    let answer = answer(judged).into_bytes();
    // One write is one message.
    let mut output = io::stdout();
    output.write_all(&answer[..answer.len().min(ANSWER_LENGTH_MAX)])?;
    output.flush()
}

/// This program again, as a helper of itself.
fn this_program(arguments: &[&str], input: OwnedFd) -> Command {
    // What is running, even if another version has been installed since.
    let mut command = Command::new("/proc/self/exe");
    command
        .args(arguments)
        .env_clear()
        .env("PATH", PATH)
        .current_dir("/")
        .stdin(Stdio::from(input));
    command
}

/// The hidden commands of this program, each with the service as its argument.
pub const KEEPER: &str = "pam-keeper";
/// See [`KEEPER`].
pub const ONCE: &str = "pam-once";

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A name, an address and a password are shorter.
const QUESTION_LENGTH_MAX: usize = 1 << 10;
const ANSWER_LENGTH_MAX: usize = 512;

/// One for each thread that verifies, and as many that are about to be killed.
const PROCESSES_MAX: usize = 2 * HASH_THREADS_MAX;

/// How late the end of a process may be noticed.
const PAUSE_MAX: Duration = Duration::from_millis(50);
