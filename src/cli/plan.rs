//! `ringftpd ports --plan`: how many passive ports a server needs, with the arithmetic.

mod text;

use std::time::Duration;

use super::{Failure, survey};
use crate::config::section::Wrong;
use crate::config::units::{duration_text, parse_duration};
use crate::config::{CPUS_MAX, Data, Problem, nearest};
use crate::data::sizing::{Peers, Plan};

use text::{Question, percent, seconds};

/// Answers the words after `--plan`, such as `rate=200`.
pub(super) fn run(words: &[String]) -> Result<String, Failure> {
    match parse(words, survey::allowed_cpus().len()) {
        Ok(question) => Ok(question.answer()),
        Err(problems) => Err(Failure::problems("ringftpd ports --plan", &problems)),
    }
}

/// Reads the words, in any order; `cpus` are the cores if nothing is said. All problems are told.
fn parse(words: &[String], cpus: usize) -> Result<Question, Vec<Problem>> {
    let mut draft = Draft::new(cpus);
    let mut assumed = WORDS.to_vec();
    let mut problems = Vec::new();
    for word in words {
        let Some((name, value)) = word.split_once('=') else {
            problems.push(Problem::new(word, "has no value").hint("write it so: rate=200"));
            continue;
        };
        let read = match assumed.iter().position(|unsaid| *unsaid == name) {
            Some(at) => draft.read(assumed.remove(at), value),
            None if WORDS.contains(&name) => Err(Wrong::new("is said twice")),
            None => Err(unknown(name)),
        };
        if let Err(wrong) = read {
            problems.push(Problem {
                key: name.to_owned(),
                message: wrong.message,
                hint: wrong.hint,
            });
        }
    }
    if assumed.contains(&"rate") {
        let problem = Problem::new("rate", "is missing: PASV and EPSV commands per second");
        problems
            .push(problem.hint("such as rate=200: those of the busiest minute, not of the day"));
    }
    if problems.is_empty() {
        problems = draft.contradictions();
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    // Each of these two follows from the other.
    if draft.clients.is_some() {
        assumed.retain(|unsaid| *unsaid != "busiest");
    }
    assumed.retain(|unsaid| *unsaid != "clients");
    Ok(Question {
        plan: draft.plan(),
        assumed,
    })
}

/// What has been said so far, with assumptions for the rest.
struct Draft {
    plan: Plan,
    clients: Option<usize>,
    busiest: Option<f64>,
}

impl Draft {
    fn new(cpus: usize) -> Self {
        let defaults = Data::default();
        let plan = Plan {
            rate: 0.0,
            rtt: RTT_DEFAULT,
            think: Duration::ZERO,
            abandoned: ABANDONED_DEFAULT,
            timeout: defaults.accept_timeout,
            cores: cpus.clamp(1, CPUS_MAX),
            busiest: 1.0,
            peers: Peers::Strict,
            per_client_max: defaults.ports_per_client,
            loss: LOSS_DEFAULT,
        };
        Self {
            plan,
            clients: None,
            busiest: None,
        }
    }

    /// Reads the value of one of [`WORDS`].
    fn read(&mut self, name: &str, value: &str) -> Result<(), Wrong> {
        let plan = &mut self.plan;
        match name {
            "rate" => plan.rate = rate(value)?,
            "rtt" => plan.rtt = parse_duration(value)?,
            "think" => plan.think = parse_duration(value)?,
            "abandoned" => plan.abandoned = share(value, "5% or 0.05")?,
            "timeout" => plan.timeout = timeout(value)?,
            "cores" => plan.cores = whole(value, CPUS_MAX)?,
            "clients" => self.clients = Some(whole(value, CLIENTS_MAX)?),
            "busiest" => self.busiest = Some(share(value, "10% or 0.1")?),
            "peer" => plan.peers = peers(value)?,
            "cap" => plan.per_client_max = whole(value, usize::from(u16::MAX))?,
            "loss" => plan.loss = loss(value)?,
            other => unreachable!("WORDS has a word that nothing reads: {other}"),
        }
        Ok(())
    }

    fn plan(&self) -> Plan {
        let even = self.clients.map_or(1.0, |clients| 1.0 / clients as f64);
        Plan {
            busiest: self.busiest.unwrap_or(even),
            ..self.plan.clone()
        }
    }

    /// What is right word by word, but not together.
    fn contradictions(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if let (Some(clients), Some(busiest)) = (self.clients, self.busiest)
            && busiest * (clients as f64) < 1.0 - ROUNDING
        {
            let message = format!("the busiest of {clients} addresses has more of the requests");
            let least = percent(1.0 / clients as f64);
            problems.push(Problem::new("busiest", message).hint(format!("at least {least}")));
        }
        let used = self.plan.used_seconds();
        if used >= self.plan.timeout.as_secs_f64() {
            let used = seconds(used);
            let message = format!("no client comes in time: it takes 2 × rtt + think = {used}");
            problems.push(Problem::new("timeout", message).hint("say a longer one"));
        }
        problems
    }
}

fn unknown(name: &str) -> Wrong {
    let wrong = Wrong::new("no such word");
    match nearest(name, &WORDS) {
        Some(near) => wrong.hint(format!("did you mean {near}=?")),
        None => wrong.hint(format!("the words are {}", WORDS.join(", "))),
    }
}

fn rate(value: &str) -> Result<f64, Wrong> {
    match value.parse::<f64>() {
        Ok(rate) if rate > 0.0 && rate <= RATE_MAX => Ok(rate),
        _ => Err(
            Wrong::new(format!("{value:?} is not a number of requests per second"))
                .hint(format!("above 0 and at most {RATE_MAX}, such as rate=200")),
        ),
    }
}

/// `5%` or `0.05`.
fn share(value: &str, example: &str) -> Result<f64, Wrong> {
    let number = match value.strip_suffix('%') {
        Some(percent) => percent.trim_end().parse::<f64>().map(|share| share / 100.0),
        None => value.parse(),
    };
    match number {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err(
            Wrong::new(format!("{value:?} is not a share between 0 and 1"))
                .hint(format!("such as {example}")),
        ),
    }
}

fn loss(value: &str) -> Result<f64, Wrong> {
    match share(value, "1e-6 or 0.1%")? {
        share if share > 0.0 && share < 1.0 => Ok(share),
        _ => Err(Wrong::new(format!("{value} cannot be planned for"))
            .hint("no number of ports refuses nothing; 1e-6 is one request in a million")),
    }
}

/// As `data.accept_timeout` takes it.
fn timeout(value: &str) -> Result<Duration, Wrong> {
    match parse_duration(value)? {
        timeout if timeout >= TIMEOUT_MIN => Ok(timeout),
        _ => Err(Wrong::new(format!("{value} is too short"))
            .hint(format!("at least {}", duration_text(TIMEOUT_MIN)))),
    }
}

fn whole(value: &str, max: usize) -> Result<usize, Wrong> {
    match value.parse::<usize>() {
        Ok(number) if (1..=max).contains(&number) => Ok(number),
        _ => Err(Wrong::new(format!(
            "{value:?} is not a whole number from 1 to {max}"
        ))),
    }
}

fn peers(value: &str) -> Result<Peers, Wrong> {
    match value {
        "strict" => Ok(Peers::Strict),
        // The two kinds of exclusive ports, as data.peer_check calls them.
        "exclusive" | "subnet" | "off" => Ok(Peers::Exclusive),
        _ => {
            let wrong = Wrong::new(format!("{value:?} is neither strict nor exclusive"));
            Err(match nearest(value, &["strict", "exclusive"]) {
                Some(near) => wrong.hint(format!("did you mean peer={near}?")),
                None => wrong.hint("exclusive stands for data.peer_check \"subnet\" and \"off\""),
            })
        }
    }
}

const WORDS: [&str; 11] = [
    "rate",
    "rtt",
    "think",
    "abandoned",
    "timeout",
    "cores",
    "clients",
    "busiest",
    "peer",
    "cap",
    "loss",
];

/// Across an ocean; most clients are nearer.
const RTT_DEFAULT: Duration = Duration::from_millis(100);

/// Clients behind firewalls, and those that ask for a port before they ask for a file that is not
/// there. `ringftpd ports` tells how many it is.
const ABANDONED_DEFAULT: f64 = 0.05;

/// One request in a million.
const LOSS_DEFAULT: f64 = 1e-6;

/// More than all cores of a host can answer.
const RATE_MAX: f64 = 1e6;

const CLIENTS_MAX: usize = u32::MAX as usize;

/// The least that `data.accept_timeout` may be.
const TIMEOUT_MIN: Duration = Duration::from_secs(1);

/// A third is 33% too.
const ROUNDING: f64 = 0.02;

#[cfg(test)]
mod tests;
