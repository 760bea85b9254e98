//! The answer to a plan: every figure with the arithmetic it comes from.

use std::fmt::{Display, Write};
use std::time::Duration;

use crate::config::{Data, duration_text};
use crate::data::sizing::{
    EPHEMERAL_FIRST, PER_CORE_MIN, PORTS_MAX, Peers, Plan, Reason, SERVICES_END, STRAY_SYN, Sizing,
};

/// The plan that an operator asks for.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) plan: Plan,
    /// The words that were not said.
    pub(super) assumed: Vec<&'static str>,
}

impl Question {
    /// Tells the figures, and what to write into the configuration.
    pub(super) fn answer(&self) -> String {
        let sizing = self.plan.size();
        let mut text = Text(self.said());
        self.waits(&sizing, &mut text);
        self.loads(&sizing, &mut text);
        self.ports(&sizing, &mut text);
        self.per_client(&sizing, &mut text);
        self.recommend(&sizing, &mut text);
        self.advise(&sizing, &mut text);
        text.0
    }

    fn said(&self) -> String {
        let plan = &self.plan;
        let mut text = format!(
            "Plan: rate={} rtt={} think={} abandoned={} timeout={}\n      cores={} busiest={} \
             peer={} cap={} loss={}\n",
            figure(plan.rate),
            word(plan.rtt),
            word(plan.think),
            percent(plan.abandoned),
            word(plan.timeout),
            plan.cores,
            percent(plan.busiest),
            match plan.peers {
                Peers::Strict => "strict",
                Peers::Exclusive => "exclusive",
            },
            plan.per_client_max,
            percent(plan.loss),
        );
        if !self.assumed.is_empty() {
            text += &format!("Not said but assumed: {}\n", self.assumed.join(", "));
        }
        text
    }

    fn waits(&self, sizing: &Sizing, text: &mut Text) {
        let plan = &self.plan;
        text.title("How long a port waits for its client");
        text.line(
            "a client that comes",
            format!(
                "2 × {} + {} = {}: 227 ½ rtt, SYN ½, SYN-ACK and ACK 1; think",
                seconds(plan.rtt.as_secs_f64()),
                seconds(plan.think.as_secs_f64()),
                seconds(sizing.used_seconds),
            ),
        );
        text.line(
            "one that does not",
            format!(
                "{}: data.accept_timeout",
                seconds(plan.timeout.as_secs_f64())
            ),
        );
        text.line(
            "on average",
            format!(
                "{} × {} + {} × {} = {}",
                percent(1.0 - plan.abandoned),
                seconds(sizing.used_seconds),
                percent(plan.abandoned),
                seconds(plan.timeout.as_secs_f64()),
                seconds(sizing.mean_seconds),
            ),
        );
    }

    fn loads(&self, sizing: &Sizing, text: &mut Text) {
        let plan = &self.plan;
        text.title("How many wait at a time (Little's law: rate × mean wait)");
        text.line(
            "on the server",
            format!(
                "{}/s × {} = {}; {} of them abandoned",
                figure(plan.rate),
                seconds(sizing.mean_seconds),
                figure(sizing.load),
                percent(sizing.load_abandoned),
            ),
        );
        text.line(
            "on one core",
            format!(
                "{} / {} = {}, if the kernel spreads connections evenly (SO_REUSEPORT)",
                figure(sizing.load),
                plan.cores,
                figure(sizing.load_core),
            ),
        );
        let known = match self.assumed.contains(&"busiest") {
            true => "; the worst case: say clients= or busiest=",
            false => "",
        };
        text.line(
            "for the busiest address",
            format!(
                "{} × {} = {} on one core{known}",
                percent(plan.busiest),
                figure(sizing.load_core),
                figure(sizing.load_busiest),
            ),
        );
    }

    fn ports(&self, sizing: &Sizing, text: &mut Text) {
        let plan = &self.plan;
        let loss = percent(plan.loss);
        let load = figure(sizing.load_sized);
        text.title(match plan.peers {
            Peers::Strict => "Ports per core (a port waits for many addresses, once for each)",
            Peers::Exclusive => "Ports per core (a port waits for one client at a time)",
        });
        text.line(
            "to refuse few",
            match sizing.for_loss {
                Some(ports) => format!("{ports}, the least n with Erlang B(n, {load}) ≤ {loss}"),
                None => format!("more than {PORTS_MAX} for Erlang B(n, {load}) ≤ {loss}"),
            },
        );
        if plan.cores > 1 {
            let ports = count(sizing.for_loss_gathered);
            text.line(
                "",
                format!("{ports} if all sessions of the busiest address met on one core"),
            );
        }
        text.line(
            "to rest",
            format!(
                "{}: {load} + {}/s × {}, so that a late SYN meets no other transfer",
                figure(sizing.for_rest),
                figure(sizing.rate_core),
                seconds(sizing.stray_seconds),
            ),
        );
        text.line(
            "",
            format!(
                "late: rtt + think + {} after the 227, three SYNs lost (RFC 6298)",
                seconds(STRAY_SYN.as_secs_f64()),
            ),
        );
        text.line("at least", PER_CORE_MIN);
    }

    fn per_client(&self, sizing: &Sizing, text: &mut Text) {
        let plan = &self.plan;
        text.title("Ports for one address on one core (data.ports_per_client)");
        text.line(
            "needed",
            format!(
                "{}, the least n with Erlang B(n, {}) ≤ {}",
                count(sizing.per_client_needed),
                figure(sizing.load_busiest),
                percent(plan.loss),
            ),
        );
        let verdict = match self.cap(sizing) {
            None => "enough",
            Some(_) => "too few",
        };
        text.line(
            &format!("with {}", plan.per_client_max),
            format!(
                "the busiest address is refused {} of its requests: {verdict}",
                refusals(sizing.per_client_refused),
            ),
        );
    }

    fn recommend(&self, sizing: &Sizing, text: &mut Text) {
        text.title("Recommended");
        let reason = match sizing.reason {
            Reason::Loss => "to refuse few",
            Reason::Rest => "to rest",
            Reason::Floor => "at least",
            Reason::Exhausted => "there are no more",
        };
        text.line(
            "ports",
            format!(
                "{} ({reason}) × {} = {}",
                sizing.per_core, self.plan.cores, sizing.total
            ),
        );
        text.line(
            "",
            format!(
                "they refuse {} and rest {}",
                refusals(sizing.refused),
                seconds(sizing.rest_seconds),
            ),
        );
        text.line(
            "descriptors",
            format!(
                "{} for each address of server.listen; LimitNOFILE= must bear them",
                sizing.total
            ),
        );
        text.0 += &format!("\n{}", self.configuration(sizing));
    }

    /// What of `[data]` is not the default.
    fn configuration(&self, sizing: &Sizing) -> String {
        let plan = &self.plan;
        let defaults = Data::default();
        let mut text = format!("[data]\npassive_ports = \"{}\"\n", sizing.range);
        if plan.timeout != defaults.accept_timeout {
            text += &format!("accept_timeout = \"{}\"\n", duration_text(plan.timeout));
        }
        let cap = self.cap(sizing).unwrap_or(plan.per_client_max);
        if cap != defaults.ports_per_client {
            text += &format!("ports_per_client = {cap}\n");
        }
        if plan.peers == Peers::Exclusive {
            text += "peer_check = \"subnet\"  # or \"off\"\n";
        }
        text
    }

    /// What `data.ports_per_client` has to become, if it is too low.
    fn cap(&self, sizing: &Sizing) -> Option<usize> {
        let needed = sizing.per_client_needed.unwrap_or(PORTS_MAX);
        (needed > self.plan.per_client_max).then_some(needed)
    }

    /// What the figures alone do not say.
    fn advise(&self, sizing: &Sizing, text: &mut Text) {
        if sizing.reason == Reason::Exhausted {
            text.advice(format!(
                "{} ports per core are needed, and there are {}: shorten data.accept_timeout, or \
                 spread the clients over more addresses or servers.",
                count(sizing.for_loss),
                sizing.per_core,
            ));
        } else if (sizing.per_core as f64) < sizing.for_rest {
            text.advice(format!(
                "The ports from {SERVICES_END} to {} are too few for a rest of {}.",
                EPHEMERAL_FIRST - 1,
                seconds(sizing.stray_seconds),
            ));
        }
        if let (Reason::Rest, Some(fewer)) = (sizing.reason, sizing.for_loss) {
            let whose = match self.plan.peers {
                Peers::Strict => "of its own address",
                Peers::Exclusive => "of anybody",
            };
            text.advice(format!(
                "Where descriptors or ports are scarce, {} per core refuse few enough. They rest \
                 less; a late SYN does harm if its port waits for another transfer {whose}.",
                fewer.max(PER_CORE_MIN),
            ));
        }
        if let Some(shorter) = self.shorter(sizing) {
            text.advice(shorter);
        }
        if self.cap(sizing).is_some() && self.assumed.contains(&"busiest") {
            text.advice(
                "ports_per_client is for all requests from one address. Leave it out if there are \
                 many clients, and say clients= or busiest= to plan for them.",
            );
        }
        let (first, last) = (sizing.range.first(), sizing.range.last());
        if last < EPHEMERAL_FIRST {
            if first < SERVICES_END {
                text.advice(
                    "Other services listen in this range: `ss -ltn` tells which ports they hold.",
                );
            }
        } else if first < EPHEMERAL_LEFT_MIN {
            text.advice(
                "The range leaves hardly a port for outgoing connections: active mode and name \
                 servers need some.",
            );
        } else {
            text.advice(format!(
                "The range reaches into the ports of outgoing connections, which would block its \
                 ports. Move them: sysctl -w net.ipv4.ip_local_port_range=\"1024 {}\"",
                first - 1
            ));
        }
    }

    /// What a shorter timeout would save, where most ports wait in vain.
    fn shorter(&self, sizing: &Sizing) -> Option<String> {
        let many = sizing.for_loss.is_none_or(|ports| ports > PER_CORE_MIN);
        if !many || sizing.load_abandoned < 0.5 || self.plan.timeout < 2 * TIMEOUT_SHORT {
            return None;
        }
        let plan = Plan {
            timeout: TIMEOUT_SHORT,
            ..self.plan.clone()
        };
        // Half of it is left for lost SYNs.
        if plan.used_seconds() > TIMEOUT_SHORT.as_secs_f64() / 2.0 {
            return None;
        }
        let shorter = plan.size();
        Some(format!(
            "Most ports wait for clients that never come. With timeout={} {} wait at a time \
             instead of {}, and {} ports per core refuse as few.",
            word(plan.timeout),
            figure(shorter.load),
            figure(sizing.load),
            count(shorter.for_loss),
        ))
    }
}

/// What is told, in lines of two columns.
struct Text(String);

impl Text {
    fn title(&mut self, title: &str) {
        // Writing to a String does not fail, here and below.
        let _ = writeln!(self.0, "\n{title}");
    }

    /// A figure with its arithmetic; no label: more about the one above.
    fn line(&mut self, label: &str, text: impl Display) {
        let _ = writeln!(self.0, "  {label:<LABEL_WIDTH$}{text}");
    }

    /// A paragraph.
    fn advice(&mut self, text: impl AsRef<str>) {
        let mut width = LINE_WIDTH;
        for word in text.as_ref().split(' ') {
            let length = word.chars().count() + 1;
            if width + length > LINE_WIDTH {
                self.0.push('\n');
                width = 0;
            } else {
                self.0.push(' ');
            }
            width += length;
            self.0.push_str(word);
        }
        self.0.push('\n');
    }
}

/// A number with four digits that count.
fn figure(number: f64) -> String {
    if number != 0.0 && number < 1e-3 {
        return format!("{number:.1e}").replace(".0e", "e");
    }
    let digits_before = number.max(1.0).log10() as usize + 1;
    let text = format!("{number:.*}", 4usize.saturating_sub(digits_before));
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

/// A share as words take it: in percent, or as a power of ten when it is small.
pub(super) fn percent(share: f64) -> String {
    if share != 0.0 && share < 1e-4 {
        figure(share)
    } else {
        format!("{}%", figure(100.0 * share))
    }
}

/// A share of refusals: nobody counts to the end of a small one.
fn refusals(share: f64) -> String {
    if share < REFUSALS_MIN {
        format!("less than {}", percent(REFUSALS_MIN))
    } else {
        percent(share)
    }
}

/// A time in seconds, below one in milliseconds.
pub(super) fn seconds(seconds: f64) -> String {
    if seconds > 0.0 && seconds < 1.0 {
        format!("{} ms", figure(1000.0 * seconds))
    } else {
        format!("{} s", figure(seconds))
    }
}

/// A duration as one word.
fn word(duration: Duration) -> String {
    duration_text(duration).replace(' ', "")
}

fn count(ports: Option<usize>) -> String {
    ports.map_or_else(
        || format!("more than {PORTS_MAX}"),
        |ports| ports.to_string(),
    )
}

/// Long enough for a client whose first three SYNs are lost.
const TIMEOUT_SHORT: Duration = Duration::from_secs(10);

const REFUSALS_MIN: f64 = 1e-12;

/// Ranges that begin lower leave fewer than a thousand ports.
const EPHEMERAL_LEFT_MIN: u16 = 2024;

const LABEL_WIDTH: usize = 25;
const LINE_WIDTH: usize = 96;
