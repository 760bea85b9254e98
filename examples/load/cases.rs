//! The kinds of work, each prepared so that a step is nothing but the work.

use std::time::Duration;

use crate::client::fleet::{self, Counts, Download, Fleet};
use crate::client::slow::Slow;
use crate::client::{Result, Target, Via, pattern};

/// Work that can go on.
#[derive(Debug)]
pub(crate) struct Work {
    job: Job,
    /// Whether the time that a step takes is what one client waits.
    pub(crate) is_timed: bool,
    /// To wait after each step.
    pub(crate) interval: Option<Duration>,
}

#[derive(Debug)]
enum Job {
    Login {
        target: Target,
        count: usize,
        counts: Counts,
    },
    Command {
        fleet: Fleet,
        line: Vec<u8>,
        code: u16,
    },
    Download {
        fleet: Fleet,
        line: Vec<u8>,
        download: Download,
    },
    Upload {
        fleet: Fleet,
        lines: Vec<Vec<u8>>,
        content: Vec<u8>,
        size: u64,
    },
    Idle(Fleet),
    Slow(Slow),
}

/// What has been done.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Done {
    pub(crate) units: u64,
    pub(crate) bytes: u64,
}

impl Work {
    pub(crate) fn login(target: &Target, count: usize) -> Self {
        let job = Job::Login {
            target: target.clone(),
            count,
            counts: Counts::default(),
        };
        Self::new(job, count == 1)
    }

    pub(crate) fn command(target: &Target, count: usize, line: &str, code: u16) -> Result<Self> {
        let job = Job::Command {
            fleet: Fleet::log_in(target, count, Via::Epsv)?,
            line: format!("{line}\r\n").into_bytes(),
            code,
        };
        Ok(Self::new(job, count == 1))
    }

    /// `size`: of the file, and what of it has to be there for the client to be woken.
    pub(crate) fn retr(
        target: &Target,
        count: usize,
        via: Via,
        file: &str,
        (size, lowat): (u64, u64),
    ) -> Result<Self> {
        let job = Job::Download {
            fleet: Fleet::log_in(target, count, via)?,
            line: format!("RETR {file}\r\n").into_bytes(),
            download: Download {
                size: Some(size),
                lowat,
            },
        };
        Ok(Self::new(job, count == 1 && size < BIG))
    }

    pub(crate) fn stor(
        target: &Target,
        count: usize,
        via: Via,
        prefix: &str,
        size: u64,
    ) -> Result<Self> {
        let mut content = vec![0; pattern::PERIOD];
        pattern::fill(&mut content, 0);
        let lines = (0..count).map(|index| format!("STOR {prefix}{index}\r\n").into_bytes());
        let job = Job::Upload {
            fleet: Fleet::log_in(target, count, via)?,
            lines: lines.collect(),
            content,
            size,
        };
        Ok(Self::new(job, count == 1 && size < BIG))
    }

    pub(crate) fn list(
        target: &Target,
        via: Via,
        verb: &str,
        directory: &str,
        bytes: Option<u64>,
    ) -> Result<Self> {
        let mut fleet = Fleet::log_in(target, 1, via)?;
        // Not as an argument: then NLST would give it before each name.
        fleet.command(format!("CWD {directory}\r\n").as_bytes(), &[250, 200])?;
        let job = Job::Download {
            fleet,
            line: format!("{verb}\r\n").into_bytes(),
            download: Download {
                size: bytes,
                lowat: 1,
            },
        };
        Ok(Self::new(job, false))
    }

    pub(crate) fn idle(target: &Target, count: usize) -> Result<Self> {
        let fleet = Fleet::log_in(target, count, Via::Epsv)?;
        Ok(Self::new(Job::Idle(fleet), false))
    }

    pub(crate) fn slow(
        target: &Target,
        count: usize,
        file: &str,
        size: u64,
        rate: u64,
    ) -> Result<Self> {
        let line = format!("RETR {file}\r\n").into_bytes();
        let slow = Slow::start(target, count, line, size, rate)?;
        Ok(Self::new(Job::Slow(slow), false))
    }

    fn new(job: Job, is_timed: bool) -> Self {
        Self {
            job,
            is_timed,
            interval: None,
        }
    }

    /// The same with the time of every step, and a pause after each.
    pub(crate) fn into_probe(self, interval: Duration) -> Self {
        Self {
            is_timed: true,
            interval: Some(interval).filter(|interval| !interval.is_zero()),
            ..self
        }
    }

    /// Whether there are no steps: it goes on by itself, or stands still.
    pub(crate) fn has_no_steps(&self) -> bool {
        matches!(self.job, Job::Idle(_) | Job::Slow(_))
    }

    /// How often [`Work::go_on`] has to be called, even if there is no order.
    pub(crate) fn tick(&self) -> Option<Duration> {
        matches!(self.job, Job::Slow(_)).then_some(TICK)
    }

    /// Goes on with what has no steps.
    pub(crate) fn go_on(&mut self) -> Result<()> {
        match &mut self.job {
            Job::Slow(slow) => slow.go_on(),
            _ => Ok(()),
        }
    }

    /// What has no steps has done so far.
    pub(crate) fn so_far(&self) -> Done {
        match &self.job {
            Job::Slow(slow) => Done {
                units: slow.ended,
                bytes: slow.bytes,
            },
            _ => Done::default(),
        }
    }

    /// One of each session.
    pub(crate) fn step(&mut self) -> Result<Done> {
        let (units, bytes) = match &mut self.job {
            Job::Login {
                target,
                count,
                counts,
            } => {
                fleet::login_and_quit(target, *count, counts)?;
                (*count, 0)
            }
            Job::Command { fleet, line, code } => {
                fleet.command(line, &[*code])?;
                (fleet.len(), 0)
            }
            Job::Download {
                fleet,
                line,
                download,
            } => {
                let bytes = fleet.download(line, *download)?;
                // A listing has to be as long as the first one.
                download.size.get_or_insert(bytes);
                (fleet.len(), bytes)
            }
            Job::Upload {
                fleet,
                lines,
                content,
                size,
            } => (fleet.len(), fleet.upload(lines, content, *size)?),
            Job::Idle(_) | Job::Slow(_) => (0, 0),
        };
        Ok(Done {
            units: units as u64,
            bytes,
        })
    }

    pub(crate) fn counts(&self) -> Counts {
        match &self.job {
            Job::Login { counts, .. } => *counts,
            Job::Command { fleet, .. }
            | Job::Download { fleet, .. }
            | Job::Upload { fleet, .. }
            | Job::Idle(fleet) => fleet.counts,
            Job::Slow(slow) => slow.fleet().counts,
        }
    }

    /// QUIT.
    pub(crate) fn end(self) -> Result<()> {
        match self.job {
            Job::Login { .. } => Ok(()),
            Job::Command { fleet, .. }
            | Job::Download { fleet, .. }
            | Job::Upload { fleet, .. }
            | Job::Idle(fleet) => fleet.quit(),
            Job::Slow(slow) => slow.quit(),
        }
    }
}

/// How long such a transfer takes says nothing about waiting.
const BIG: u64 = 64 << 20;

/// Small against the second in which a slow reader takes its rate.
const TICK: Duration = Duration::from_millis(50);
